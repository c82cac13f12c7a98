"""Two small real services: `emitter` says that movies were seen, `counter` answers each once.

Run as processes: `python -m tests.toy emitter --project P`. The session's settings say how many
movies there are (`total`), how many come at a time (`batch`), after which time (`every_s`), and at
which the emitter has a bug (`bug_at`).
"""

import sys
from collections.abc import Container, Iterable, Iterator
from typing import Any

import msgspec

from services.kit.errors import Bug
from services.kit.events import Body, MicrographSelected, MovieSeen
from services.kit.host import Arrived, Source
from services.kit.main import service_main
from services.kit.paths import Layout
from services.kit.session import Session
from services.kit.work import Task


class Seen(msgspec.Struct):
    """How often each movie had its effect."""

    count: dict[str, int] = {}


class Toy:
    """What both services have in common."""

    name = ""
    consumes: tuple[str, ...] = ()
    state_type = Seen

    def empty(self) -> Seen:
        return Seen()

    def apply(self, state: Seen, body: Body, at: float) -> None:
        assert isinstance(body, MovieSeen | MicrographSelected)
        state.count[body.movie] = state.count.get(body.movie, 0) + 1

    def decide(self, state: Seen, stimulus: Any) -> Iterator[Body]:
        raise NotImplementedError

    def want(self, state: Seen, room: int, running: Container[str]) -> list[Task]:
        return []

    def still_wanted(self, state: Seen, task: Task) -> bool:
        return True

    def perform(self, state: Seen) -> Iterable[Any]:
        return ()

    def render(self, state: Seen, *, everything: bool) -> None:
        return None

    def begin(self, state: Seen) -> None:
        return None

    def finish(self, state: Seen) -> None:
        return None

    def explain(self, body: Body) -> None:
        return None


class Emitter(Toy):
    """Says that a movie was seen, for every number of its source."""

    name = "emitter"

    def __init__(self, bug_at: int | None = None):
        self.bug_at = bug_at

    def decide(self, state: Seen, stimulus: Any) -> Iterator[Body]:
        if isinstance(stimulus, int):
            yield seen(stimulus)
            if stimulus == self.bug_at:
                raise Bug(f"there is no movie {stimulus}")


class Counter(Toy):
    """Selects every movie that the emitter has seen."""

    name = "counter"
    consumes = ("emitter",)

    def decide(self, state: Seen, stimulus: Any) -> Iterator[Body]:
        if isinstance(stimulus, Arrived) and isinstance(stimulus.event.body, MovieSeen):
            yield MicrographSelected(movie=stimulus.event.body.movie)


class Numbers:
    """Counts on from what the state has, up to `total`."""

    def __init__(self, total: int, batch: int, every_s: float):
        self.total, self.batch, self.every_s = total, batch, every_s

    def open(self, wake: Any) -> None:
        return None

    def poll(self, now: float, state: Seen) -> tuple[list[int], float]:
        first = len(state.count)
        return list(range(first, min(first + self.batch, self.total))), now + self.every_s

    def close(self) -> None:
        return None


def seen(number: int) -> MovieSeen:
    """Return the event of one movie."""
    return MovieSeen(movie=f"Images-Disc1/Data/m{number:06d}", path=f"m{number:06d}.tiff")


def build(layout: Layout, session: Session) -> tuple[Toy, Source | None]:
    """Return the service that the command line names."""
    if sys.argv[1] == "counter":
        return Counter(), None
    get = session.settings
    bug_at = int(get["bug_at"]) if "bug_at" in get else None
    return Emitter(bug_at), Numbers(int(get["total"]), int(get["batch"]), float(get["every_s"]))


if __name__ == "__main__":
    sys.exit(service_main(sys.argv[1], build, needs_cluster=False, argv=sys.argv[2:]))
