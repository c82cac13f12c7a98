"""What the journals of a project say about each movie, for latencies and rates."""

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
        tasks = [Task(e.at - getattr(e.body, "took_s"), e.at) for e in found]  # noqa: B009
        return sorted(tasks, key=lambda task: task.done)

    def settled(self) -> dict[str, MovieSettled]:
        """Return the settled movies."""
        return {m: e.body for m, e in self.of(MovieSettled).items() if _is_settled(e.body)}  # pyright: ignore[reportReturnType]


def _is_settled(body: Body) -> bool:
    return isinstance(body, MovieSettled)


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
