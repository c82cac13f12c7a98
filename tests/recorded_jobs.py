"""A program in the place of `services.jobs.live` that leaves what RELION's runs have left.

The 3D jobs of the reference runs take minutes; how a service deals with a job does not depend on
who computes it. Iterations come one by one, are told as a job tells them, and the job goes on after
the last one that it told. Every other job is done by the real program.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

from services.kit import iterations
from services.kit.iterations import Iteration

ITERATIONS, PAUSE_S = 4, 0.15
FINAL = {
    "relion.initialmodel": {"run_it020_class001.mrc": "initial_model.mrc"},
    "relion.refine3d": {
        name: name
        for name in (
            "run_class001.mrc",
            "run_half1_class001_unfil.mrc",
            "run_half2_class001_unfil.mrc",
            "run_data.star",
            "run_model.star",
            "run_optimiser.star",
        )
    },
}
FOLDERS = {"relion.initialmodel": "ini3d", "relion.refine3d": "refine3d"}


def main() -> int:
    """Do the job of a folder; `recorded_jobs.py RUNS FOLDER --parent PID --nice N`."""
    runs, folder = Path(sys.argv[1]), Path(sys.argv[2])
    job = json.loads((folder / "job.json").read_text())
    if job["type"] not in FINAL:
        live = [sys.executable, "-P", "-m", "services.jobs.live", *sys.argv[2:]]
        os.execv(sys.executable, live)  # noqa: S606 - an argument list
    if "--fail" in job["options"]["other_args"]:
        print("ERROR: option other_args asks for what cannot be", file=sys.stderr)
        return 1
    told = iterations.read(folder)
    for number in range(len(told) + 1, ITERATIONS + 1):
        time.sleep(PAUSE_S)
        (folder / f"pid{number}").write_text(str(os.getpid()))
        told.append(iteration(number))
        iterations.tell(folder, told)
    for name, target in FINAL[job["type"]].items():
        shutil.copy(runs / FOLDERS[job["type"]] / name, folder / target)
    return 0


def iteration(number: int) -> Iteration:
    """Return what is told of an iteration."""
    return Iteration(
        iteration=number,
        iterations=ITERATIONS,
        place=number,
        particles=500,
        total=500,
        particles_per_s=1000.0,
        log_likelihood=-1.0,
        resolution_A=80.0 / number,
        classes_used=1,
        is_last=number == ITERATIONS,
    )


if __name__ == "__main__":
    sys.exit(main())
