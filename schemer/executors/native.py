"""The executor `native`: coldstream's own algorithms, as the program `services.jobs`.

Only the name of that program is known here. It is called with the job folder as its argument, as a
site's own program is. Source: schemes.md section 10.
"""

import sys

from schemer.errors import SchemeError
from schemer.executors import JobRequest

PROGRAM = "services.jobs"
# Labels that the program does.
LABELS = (
    "relion.import.movies",
    "relion.import.other",
    "relion.motioncorr.own",
    "relion.ctffind.ctffind4",
    "relion.select.onvalue",
    "relion.select.discard",
    "relion.select.split",
    "relion.select.removeduplicates",
    "relion.select.class2dauto",
    "relion.autopick.log",
    "relion.autopick.topaz.pick",
    "relion.extract",
    "relion.extract.reextract",
    "relion.class2d",
    "relion.class3d",
    "relion.refine3d",
    "relion.maskcreate",
    "relion.postprocess",
    "relion.localres.own",
    "relion.initialmodel",
)
OTHERS = "run it with the executor relion (RELION's own program) or command:PROGRAM"
REASONS = {
    "relion.external": "its program is that of the option fn_exe; run it with the executor relion",
    "relion.localres.resmap": f"set do_relion_locres instead of do_resmap_locres, or {OTHERS}",
    "relion.motioncorr.motioncor2": f"set do_own_motioncor to Yes, or {OTHERS}",
}


class NativeExecutor:
    """Does jobs with coldstream's algorithms."""

    name = "native"

    def commands(self, job: JobRequest) -> list[list[str]]:
        """Return the command line of a job.

        Raises
        ------
        SchemeError
            There is no algorithm for this type; says which executor does it.
        """
        if job.label in LABELS:
            # -P: nothing in the project folder, the working directory, is taken for a module.
            return [[sys.executable, "-P", "-m", PROGRAM, job.process]]
        base = ".".join(job.label.split(".")[:2])
        reason = REASONS.get(job.label) or REASONS.get(base) or OTHERS
        place = f" ({job.process})" if job.process else ""
        raise SchemeError(f"{job.label}{place} has no native algorithm: {reason}")
