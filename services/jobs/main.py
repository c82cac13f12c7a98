"""Carries out one job and tells how it ended by the exit code."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from algorithms.formats.star import StarError
from services.jobs import ranks
from services.jobs.autorefine import refine3d
from services.jobs.classes import class2d
from services.jobs.ctf import ctffind
from services.jobs.extraction import extract
from services.jobs.imports import import_movies, import_other
from services.jobs.initialmodel import initialmodel
from services.jobs.job import Aborted, Failed, Job
from services.jobs.localres import localres
from services.jobs.maps import maskcreate, postprocess
from services.jobs.motion import motioncorr
from services.jobs.picking import autopick, topaz
from services.jobs.ranking import class2dauto
from services.jobs.reextraction import reextract
from services.jobs.selection import discard, on_value, remove_duplicates, split
from services.jobs.threed import class3d
from services.kit.errors import ColdstreamError, Misuse
from services.kit.process import show_name

DONE, FAILED, ABORTED = 0, 1, 2
AGAIN = 75  # the surroundings are at fault, such as a full disk: whoever keeps it running waits
PREDECESSOR_S = 20.0  # a killed process may need so long to let go of its memory

JOBS: dict[str, Callable[[Job], None]] = {
    "relion.import.movies": import_movies,
    "relion.import.other": import_other,
    "relion.motioncorr.own": motioncorr,
    "relion.ctffind.ctffind4": ctffind,
    "relion.select.onvalue": on_value,
    "relion.select.discard": discard,
    "relion.select.split": split,
    "relion.select.removeduplicates": remove_duplicates,
    "relion.select.class2dauto": class2dauto,
    "relion.autopick.log": autopick,
    "relion.autopick.topaz.pick": topaz,
    "relion.extract": extract,
    "relion.extract.reextract": reextract,
    "relion.class2d": class2d,
    "relion.class3d": class3d,
    "relion.refine3d": refine3d,
    "relion.maskcreate": maskcreate,
    "relion.postprocess": postprocess,
    "relion.localres.own": localres,
    "relion.initialmodel": initialmodel,
}
# By several processes; see `services.jobs.ranks`.
SHARED = {"relion.class2d", "relion.initialmodel", "relion.class3d", "relion.refine3d"}


def main(arguments: Sequence[str]) -> int:
    """Do the job of a folder; return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m services.jobs FOLDER  (in the project folder)", file=sys.stderr)
        return FAILED
    return carry_out(arguments[0])


def carry_out(folder: str, *, live: bool = False) -> int:
    """Do the job of a folder below the working directory; return the exit code.

    `live`: for a service that starts it again whenever it ends, so a signal ends it at once, and
    it waits until the process before it has ended.
    """
    show_name("coldstream-job")
    try:
        job = Job(Path.cwd(), folder)
        if job.label not in JOBS:
            raise Misuse(f"{job.label} is not done here; known are {', '.join(JOBS)}")
        if job.options.switch("do_queue", False):
            job.say("note: the native executor works on this machine; do_queue is not looked at")
        if ranks.rank() > 0:
            if job.label not in SHARED:
                raise Misuse(f"{job.label} is not done by several processes")
            ranks.serve(job)
            return DONE
        if not live:
            job.stop.watch_signals()
        with job.alone(PREDECESSOR_S if live else 0.0):
            JOBS[job.label](job)
    except Aborted as aborted:
        print(f" {aborted}", flush=True)
        return ABORTED
    except (Misuse, Failed, StarError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return FAILED
    except ColdstreamError as error:
        print(f"ERROR: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    except OSError as error:
        place = error.filename or os.fspath(Path.cwd())
        print(f"ERROR: {place}: {error.strerror or error}", file=sys.stderr)
        return AGAIN if live else FAILED
    return DONE
