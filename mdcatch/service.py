"""mdcatch's ledger and its decisions: stimuli in, events out, state by folding events. Pure.

`seen = settled + refused + waiting + pending` always; an exposure is published once, whatever is
told again after a restart, and a refused one whose files change and then pass is published.

Source: architecture.md sections 3 and 4; acquisition.md sections 8 and 9.
"""

from collections.abc import Container
from enum import StrEnum

import msgspec

from mdcatch import checks, optics
from mdcatch.config import MdcatchConfig
from mdcatch.stimuli import (
    Noticed,
    Opened,
    Quiet,
    Ready,
    Rejected,
    RootFound,
    RootLost,
    Waits,
)
from services.kit import events
from services.kit.errors import Code, Refused
from services.kit.events import Body
from services.kit.work import Task

SESSION = "session"  # subject of waits that concern no single movie


class Status(StrEnum):
    """Where an exposure stands in the ledger."""

    SEEN = "seen"
    WAITING = "waiting"
    SETTLED = "settled"
    REFUSED = "refused"


class Entry(msgspec.Struct):
    """One exposure of the ledger."""

    status: Status = Status.SEEN
    path: str = ""  # of the movie once it is settled, else of the file that was noticed
    code: str = ""
    detail: str = ""
    digest: str = ""


class State(msgspec.Struct):
    """The fold of mdcatch's own events."""

    name: str = ""
    raw: str = ""
    closed: bool = False
    unavailable: bool = False
    gain_path: str | None = None  # of the last settled movie
    exposures: dict[str, Entry] = msgspec.field(default_factory=dict)
    groups: list[optics.Group] = msgspec.field(default_factory=list)
    sizes: dict[str, int] = msgspec.field(default_factory=dict)

    def count(self) -> dict[Status, int]:
        """Return how many exposures have each status."""
        counts = dict.fromkeys(Status, 0)
        for entry in self.exposures.values():
            counts[entry.status] += 1
        return counts


class Mdcatch:
    """The service side of mdcatch.

    Parameters
    ----------
    config
        Values of the site and of the person.
    """

    name = "mdcatch"
    consumes: tuple[str, ...] = ()
    state_type = State

    def __init__(self, config: MdcatchConfig):
        self._config = config

    def empty(self) -> State:
        """Return the state before any event."""
        return State()

    def apply(self, state: State, body: Body, at: float) -> None:
        """Fold one own event into the state."""
        match body:
            case events.SessionOpened():
                state.name, state.raw = body.name, body.raw
            case events.SessionReopened():
                state.raw, state.closed = body.raw, False
            case events.SessionClosed():
                state.closed = True
            case events.MovieSeen():
                state.exposures[body.movie] = Entry(path=body.path)
            case events.MovieSettled():
                _settle(state, body)
            case events.MovieRefused():
                _note(state, body.movie, Status.REFUSED, body.code, body.detail)
            case events.OpticsGrouped():
                optics.add_group(state.groups, body)
            case events.WaitStarted() | events.WaitEnded() if body.subject == SESSION:
                state.unavailable = isinstance(body, events.WaitStarted)
            case events.WaitStarted():
                _note(state, body.subject, Status.WAITING, body.code, body.detail)
            case events.WaitEnded():
                _note(state, body.subject, Status.SEEN, "", "")

    def decide(self, state: State, stimulus: object) -> list[Body]:
        """Return the events that follow from a stimulus; none when they are told already."""
        match stimulus:
            case Opened() if not state.name:
                return [events.SessionOpened(name=stimulus.name, raw=stimulus.raw, software="EPU")]
            case Opened():
                return [events.SessionReopened(raw=stimulus.raw)]
            case RootLost() if not state.unavailable:
                wait = {"subject": SESSION, "code": Code.UNAVAILABLE, "detail": stimulus.detail}
                return [events.WaitStarted(**wait)]
            case RootFound() if state.unavailable:
                return [events.WaitEnded(subject=SESSION, code=Code.UNAVAILABLE)]
            case Quiet() if not state.closed:
                return [_closing(state)]
            case Noticed() | Waits() | Rejected() | Ready():
                return self._of_exposure(state, stimulus)
        return []

    def want(self, state: State, room: int, running: Container[str]) -> list[Task]:
        """Return the heavy work wanted: none."""
        return []

    def still_wanted(self, state: State, task: Task) -> bool:
        """Say whether a running task's result would be used: there is none."""
        return False

    def perform(self, state: State) -> list[object]:
        """Do small local deeds: none."""
        return []

    def render(self, state: State, *, everything: bool) -> None:
        """Write views: none; the journal says it all."""

    def begin(self, state: State) -> None:
        """Nothing of the project is mdcatch's."""

    def finish(self, state: State) -> None:
        """Leave everything as it is."""

    def explain(self, body: Body) -> tuple[str, dict[str, object]] | None:
        """Return the log line of an event."""
        match body:
            case events.MovieSeen():
                return None
            case events.MovieSettled():
                fields: dict[str, object] = {
                    "movie": body.movie.rpartition("/")[2],
                    "frames": body.n_frames,
                    "pixel_A": body.pixel_size_A,
                    "dose_e_A2": body.dose_e_A2,
                    "optics_group": body.optics_group,
                }
                return "INFO", fields | ({"flags": ",".join(body.flags)} if body.flags else {})
            case events.MovieRefused() | events.WaitStarted():
                fields = msgspec.structs.asdict(body)
                subject = str(fields.pop("movie", "") or fields.pop("subject", ""))
                return "WARNING", {"movie": subject.rpartition("/")[2]} | fields
        return "INFO", msgspec.structs.asdict(body)

    def _of_exposure(
        self, state: State, stimulus: Noticed | Waits | Rejected | Ready
    ) -> list[Body]:
        movie = stimulus.movie
        entry = state.exposures.get(movie)
        bodies: list[Body] = []
        if entry is None:
            entry = Entry()
            bodies.append(events.MovieSeen(movie=movie, path=getattr(stimulus, "path", movie)))
        if entry.status is Status.SETTLED or isinstance(stimulus, Noticed):
            return bodies
        ended: list[Body] = []
        if entry.status is Status.WAITING:
            ended.append(events.WaitEnded(subject=movie, code=entry.code))
        if isinstance(stimulus, Ready):
            return bodies + ended + self._publish(state, entry, stimulus)
        told = entry.code == stimulus.code and entry.detail == stimulus.detail
        if isinstance(stimulus, Waits):
            # A refused exposure stays refused until it passes: a wait would hide the reason.
            if entry.status is Status.REFUSED or (entry.status is Status.WAITING and told):
                return bodies
            return [
                *bodies,
                *ended,
                events.WaitStarted(subject=movie, code=stimulus.code, detail=stimulus.detail),
            ]
        if entry.status is Status.REFUSED and told:
            return bodies
        return bodies + ended + _refusal(movie, stimulus.code, stimulus.detail)

    def _publish(self, state: State, entry: Entry, ready: Ready) -> list[Body]:
        bodies: list[Body] = []
        try:
            physics = checks.check(ready, self._config, state.sizes)
            group = optics.find(state.groups, physics.key, self._config.beam_shift_threshold)
            if group is None:
                bodies.append(optics.opened(state.groups, physics.key))
            number = len(state.groups) + 1 if group is None else group.number
            bodies.append(checks.publication(ready, physics, number))
        except Refused as error:
            if (entry.code, entry.detail) == (error.code, error.detail):
                return []
            return _refusal(ready.movie, error.code, error.detail)
        return bodies


def _refusal(movie: str, code: Code, detail: str) -> list[Body]:
    return [events.MovieRefused(movie=movie, code=code, detail=detail[:4000])]


def _settle(state: State, body: events.MovieSettled) -> None:
    state.exposures[body.movie] = Entry(status=Status.SETTLED, path=body.path, digest=body.digest)
    state.gain_path = body.gain_path or state.gain_path
    size = checks.size_text(body.width_px, body.height_px)
    state.sizes[size] = state.sizes.get(size, 0) + 1
    optics.add_member(state.groups, body)


def _note(state: State, movie: str, status: Status, code: str, detail: str) -> None:
    entry = state.exposures.setdefault(movie, Entry())
    entry.status, entry.code, entry.detail = status, code, detail


def _closing(state: State) -> events.SessionClosed:
    counts = state.count()
    return events.SessionClosed(
        seen=len(state.exposures),
        settled=counts[Status.SETTLED],
        refused=counts[Status.REFUSED],
        waiting=counts[Status.WAITING] + counts[Status.SEEN],
    )
