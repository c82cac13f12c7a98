"""What a report tells: the journals' events folded into one story per movie, and the ledger."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from services.kit.errors import Code
from services.kit.events import (
    Body,
    Event,
    MicrographCtf,
    MicrographImported,
    MicrographRefused,
    MovieImported,
    MovieRefused,
    MovieSeen,
    MovieSettled,
    ParticlesExtracted,
    ResultsOutdated,
    SessionOpened,
    SessionReopened,
    WaitEnded,
    WaitStarted,
)
from services.kit.ledger import STAGES

_REFUSALS = (MovieRefused, MicrographRefused)
# What puts a movie into a room (again), and what is a room's last word on it.
_COMES = (MovieSeen, MovieImported, MicrographImported)
_DECIDES = (MovieSettled, MicrographCtf, ParticlesExtracted, *_REFUSALS)

Kind = TypeVar("Kind", bound=Body)


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """Everything a report needs besides the project folder.

    Parameters
    ----------
    session
        Name shown in the title.
    events
        Envelopes of all producers, in any interleaving; the events of one producer stand in the
        order of its journal.
    simulated
        True labels the page; a session whose name starts with "Simulated" is labelled anyway.
    particle_diameter_A
        Diameter of the circles drawn around picks; None takes two thirds of the extraction box.
    fit_limit_A
        To which the CTF of a selected micrograph has to fit; None draws no limit.
    project_name
        How commands on the pages name the project.
    written_at
        Wall clock of the report, seconds since 1970.
    """

    session: str
    events: Sequence[Event]
    simulated: bool = False
    particle_diameter_A: float | None = None
    fit_limit_A: float | None = None
    project_name: str = "P"
    written_at: float = field(default_factory=time.time)

    @property
    def is_simulated(self) -> bool:
        """Whether the data were made by a simulator."""
        return self.simulated or Path(self.session).name.lower().startswith("simulated")


@dataclass(kw_only=True)
class Story:
    """What happened to one movie so far.

    `latest` keeps the last event of each kind with its wall time; `outcome` the last word of each
    room that the movie has come to, a result or a refusal, None before; `waiting` what mdcatch
    waits for. A room is a producer: mdcatch, prep, proc.
    """

    movie: str
    opened_at: float = 0.0  # of the session, as it was when the movie was noticed
    latest: dict[type[Body], tuple[float, Body]] = field(default_factory=dict)
    outcome: dict[str, Body | None] = field(default_factory=dict)
    waiting: WaitStarted | None = None

    @property
    def name(self) -> str:
        """The movie's file name without folders."""
        return self.movie.rsplit("/", 1)[-1]

    def get(self, kind: type[Kind]) -> Kind | None:
        """Return the last event of `kind`, or None."""
        _, body = self.latest.get(kind, (0.0, None))
        return body if isinstance(body, kind) else None

    def at(self, kind: type[Body]) -> float | None:
        """Return when the last event of `kind` was recorded, seconds since 1970, or None."""
        return self.latest[kind][0] if kind in self.latest else None

    def available_at(self) -> float | None:
        """Return when the movie could first be processed: last byte written, session open."""
        settled = self.get(MovieSettled)
        return max(settled.mtime_ns / 1e9, self.opened_at) if settled else None

    def state(self, room: str) -> str | None:
        """Return "done", "refused" or "pending" in a room; None where the movie has not come."""
        if room not in self.outcome:
            return None
        outcome = self.outcome[room]
        if outcome is None:
            return "pending"
        return "refused" if isinstance(outcome, _REFUSALS) else "done"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the ledger: seen = done + refused + pending."""

    room: str
    done: int
    refused: int
    pending: int

    @property
    def seen(self) -> int:
        """How many have come to this room."""
        return self.done + self.refused + self.pending


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """Why one movie is refused or waits."""

    movie: str
    state: str
    stage: str
    code: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """One line of a micrograph's history."""

    at: float  # seconds since 1970
    service: str
    event: str
    text: str


def stories(events: Iterable[Event]) -> list[Story]:
    """Return one story per movie, in the order in which the movies are first named."""
    found: dict[str, Story] = {}
    opened_at = 0.0
    for event in events:
        body = event.body
        if isinstance(body, SessionOpened | SessionReopened):
            opened_at = event.at
        if isinstance(body, ResultsOutdated):
            for name in body.movies:
                found.setdefault(name, Story(movie=name)).outcome[event.producer] = None
        movie = getattr(body, "movie", None)
        if isinstance(body, WaitStarted | WaitEnded):
            movie = body.subject if body.subject != "session" else None
        if movie is None:
            continue
        story = found.setdefault(movie, Story(movie=movie))
        if isinstance(body, MovieSeen):
            story.opened_at = opened_at
        _tell(story, event)
    return list(found.values())


def _tell(story: Story, event: Event) -> None:
    """Add one event to a movie's story."""
    body = event.body
    story.latest[type(body)] = (event.at, body)
    if isinstance(body, WaitStarted):
        story.waiting = body
    elif isinstance(body, WaitEnded):
        story.waiting = None
    elif isinstance(body, _COMES):
        story.outcome[event.producer] = None
    elif isinstance(body, _DECIDES):
        story.outcome[event.producer] = body


def ledger(told: Iterable[Story]) -> list[Line]:
    """Return the ledger of the three rooms."""
    states = [[story.state(room) for room in STAGES] for story in told]
    lines = []
    for index, room in enumerate(STAGES):
        column = [row[index] for row in states]
        lines.append(
            Line(
                room=room,
                done=column.count("done"),
                refused=column.count("refused"),
                pending=column.count("pending"),
            )
        )
    return lines


def set_aside(told: Iterable[Story]) -> list[SetAside]:
    """Return every refused and every pending movie with its reason; refused ones first."""
    found = []
    for story in told:
        for room in STAGES:
            state = story.state(room)
            if state == "refused":
                found.append(_refusal(story, room))
            elif state == "pending":
                found.append(_wait(story, room))
    return sorted(found, key=lambda item: (item.state != "refused", item.stage, item.movie))


def _refusal(story: Story, room: str) -> SetAside:
    body = story.outcome[room]
    stage = body.stage if isinstance(body, MicrographRefused) else room
    code, detail = getattr(body, "code", ""), getattr(body, "detail", "")
    return SetAside(movie=story.movie, state="refused", stage=stage, code=code, detail=detail)


def _wait(story: Story, room: str) -> SetAside:
    code, detail = "", "waits for its turn"
    if room == "mdcatch":
        code, detail = Code.SETTLING, "the file is settling"
        if story.waiting is not None:
            code, detail = story.waiting.code, story.waiting.detail
    return SetAside(movie=story.movie, state="pending", stage=room, code=code, detail=detail)
