"""What the journals of a project say about each movie, for latencies and rates."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from services.kit.errors import Misuse
from services.kit.events import (
    Body,
    Event,
    MicrographCorrected,
    MicrographCtf,
    MicrographRefused,
    MovieSettled,
    ParticlesExtracted,
    ParticlesPicked,
)
from services.kit.journal import Reader
from services.kit.ledger import STAGES
from services.kit.paths import Layout

PREP: tuple[type[Body], ...] = (MicrographCorrected, MicrographCtf)
PROC: tuple[type[Body], ...] = (ParticlesPicked, ParticlesExtracted)
# A movie that has one of these needs nothing more.
LAST: tuple[type[Body], ...] = (ParticlesExtracted, MicrographRefused)


class Task(NamedTuple):
    """A piece of work that is done: when it was begun and when its result was taken in."""

    begun: float
    done: float

    @property
    def took_s(self) -> float:
        """Computing time."""
        return self.done - self.begun


class Stories:
    """All events of a project by kind and movie."""

    def __init__(self, project: Path):
        self.events: dict[type[Body], dict[str, Event]] = {}
        layout = Layout(project)
        for stage in STAGES:
            if not layout.journal(stage).exists():
                continue
            try:
                reader = Reader(layout.journal(stage))
            except Misuse:
                continue  # its service is just making it
            for event in reader.read():
                self.events.setdefault(type(event.body), {})[event.subject] = event
            reader.close()

    def of(self, kind: type[Body]) -> dict[str, Event]:
        """Return the newest event of a kind of each movie."""
        return self.events.get(kind, {})

    def ended(self) -> int:
        """Return how many movies need nothing more."""
        return len({movie for kind in LAST for movie in self.of(kind)})

    def tasks(self, kinds: Iterable[type[Body]]) -> list[Task]:
        """Return the tasks behind the events of some kinds, in the order of their ends."""
        found = [event for kind in kinds for event in self.of(kind).values()]
        return sorted((_task(event) for event in found), key=lambda task: task.done)

    def task(self, kind: type[Body], movie: str) -> Task:
        """Return the task behind an event of one movie."""
        return _task(self.of(kind)[movie])

    def written(self) -> dict[str, float]:
        """Return when the last byte of each settled movie was written."""
        bodies = (event.body for event in self.of(MovieSettled).values())
        return {b.movie: b.mtime_ns * 1e-9 for b in bodies if isinstance(b, MovieSettled)}


def _task(event: Event) -> Task:
    return Task(event.at - getattr(event.body, "took_s", math.nan), event.at)


def steady_rate(ends: list[float], skip: int = 5) -> float:
    """Return ends per second between the first and the last `skip` of them."""
    ends = sorted(ends)
    if len(ends) < 2 * skip + 2:
        skip = 0
    inner = ends[skip : len(ends) - skip]
    return (len(inner) - 1) / (inner[-1] - inner[0]) if len(inner) > 1 else float("nan")


def busy_s(tasks: Iterable[Task], begin: float, end: float) -> float:
    """Return the seconds of work that lie between two times."""
    inside = [min(task.done, end) - max(task.begun, begin) for task in tasks]
    return float(np.sum(np.maximum(inside, 0.0))) if inside else 0.0
