"""What a classification tells of its iterations, in a file of its job folder.

The job is a process of its own; whoever has started it, or looks at it, reads here how far it is.
An iteration is told after all that the next one needs is on the disk, so a job that was killed
tells each iteration once. Source: architecture.md section 6.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from services.kit.paths import atomic_write

# A reader looks every second, and an iteration takes longer than 20 ms.
KEPT = 100


class Iteration(msgspec.Struct, frozen=True, kw_only=True):
    """One iteration; `files` is the root of its files below the project, "" if none are written."""

    iteration: int
    iterations: int  # at which the schedule ends
    place: float  # on the schedule: the iteration, or less where particles have joined
    particles: int  # in this iteration
    total: int  # in the set
    particles_per_s: float
    log_likelihood: float
    resolution_A: float
    classes_used: int  # with more than half of the mean of particles
    is_last: bool
    files: str = ""


def read(folder: Path) -> list[Iteration]:
    """Return the last iterations of the job in `folder`, none where there is nothing to read."""
    try:
        return msgspec.json.decode(_file(folder).read_bytes(), type=list[Iteration])
    except (OSError, msgspec.MsgspecError):
        return []


def tell(folder: Path, told: Sequence[Iteration]) -> None:
    """Write the last iterations of the job in `folder`."""
    atomic_write(_file(folder), msgspec.json.encode(told[-KEPT:]), durable=False)


def _file(folder: Path) -> Path:
    return folder / ".coldstream" / "iterations.json"
