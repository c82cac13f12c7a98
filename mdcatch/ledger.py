"""What mdcatch knows of a session: a fold of its own events. Pure.

`seen = settled + refused + waiting + pending` always.

Source: architecture.md section 3.
"""

from enum import StrEnum

import msgspec

from mdcatch import optics
from mdcatch.layouts import place
from mdcatch.spacing import Spread
from services.kit import events
from services.kit.errors import Code
from services.kit.events import Body

SESSION = "session"  # subject of waits for the raw folder


class Status(StrEnum):
    """Where an exposure stands in the ledger."""

    SEEN = "seen"
    WAITING = "waiting"
    SETTLED = "settled"
    REFUSED = "refused"


class Entry(msgspec.Struct, omit_defaults=True):
    """One exposure of the ledger; paths as the watcher names them."""

    status: Status = Status.SEEN
    path: str = ""  # of the movie once it is settled, else of the file that was noticed
    code: str = ""
    detail: str = ""
    digest: str = ""
    metadata_path: str = ""
    metadata: str = ""  # own, inherited or operator
    size_bytes: int = 0
    mtime_ns: int = 0
    since: float = 0.0  # wall clock of the first notice
    group: int = 0
    shift: tuple[float, float] | None = None


class Optics(msgspec.Struct):
    """What was learned of a session's beam shifts, and what was told of it."""

    spread: Spread = msgspec.field(default_factory=Spread)
    exposures: int = 0
    told: float = 0.0
    provisional: bool = True


class State(msgspec.Struct):
    """The fold of mdcatch's own events."""

    name: str = ""
    raw: str = ""
    closed: bool = False
    lost: dict[str, str] = msgspec.field(default_factory=dict)  # root -> why it cannot be seen
    roots: dict[str, events.RootAdded] = msgspec.field(default_factory=dict)  # by path
    sessions: dict[str, events.SessionFound] = msgspec.field(default_factory=dict)  # by name
    described: dict[str, events.SessionDescribed] = msgspec.field(default_factory=dict)
    gain_path: str | None = None  # of the last settled movie
    exposures: dict[str, Entry] = msgspec.field(default_factory=dict)
    groups: list[optics.Group] = msgspec.field(default_factory=list)
    sizes: dict[str, int] = msgspec.field(default_factory=dict)
    frames: dict[int, int] = msgspec.field(default_factory=dict)  # frames -> how many movies
    bytes_mean: float = 0.0  # of compressed movies
    learned: dict[str, Optics] = msgspec.field(default_factory=dict)  # by session
    last: dict[str, events.MovieSettled] = msgspec.field(default_factory=dict)  # by session
    lacking: dict[str, events.MovieSettled] = msgspec.field(default_factory=dict)  # own metadata
    gainless: dict[str, str] = msgspec.field(default_factory=dict)  # movie -> path, gain awaited
    planned: dict[str, events.SessionPlanned] = msgspec.field(default_factory=dict)  # by session
    overrides: dict[str, events.MovieOverridden] = msgspec.field(default_factory=dict)

    @property
    def unavailable(self) -> bool:
        """Whether a watched folder cannot be seen."""
        return bool(self.lost)

    def count(self) -> dict[Status, int]:
        """Return how many exposures have each status."""
        counts = dict.fromkeys(Status, 0)
        for entry in self.exposures.values():
            counts[entry.status] += 1
        return counts

    def session_of(self, movie: str) -> str:
        """Return the session of the acquisition software that an exposure belongs to."""
        return place(movie, self.raw.rpartition("/")[2]).session

    def where(self, body: events.MovieSettled) -> str:
        """Return a movie's path as the watcher names it: absolute on another root."""
        roots = (root.path for root in self.roots.values() if root.link == body.link)
        return body.path if body.link is None else f"{next(roots, body.link)}/{body.path}"


def fold(state: State, body: Body, at: float) -> None:
    """Fold one own event into the state."""
    match body:
        case events.MovieSeen():
            state.exposures[body.movie] = Entry(path=body.path, since=at)
        case events.MovieSettled():
            _settle(state, body, at)
        case events.MovieRefused():
            _note(state, body.movie, Status.REFUSED, body.code, body.detail)
        case events.MovieChanged():
            _note(state, body.movie, Status.SEEN, "", "")
        case events.MovieMoved():
            state.exposures[body.movie].path = body.path
        case events.MovieUpdated():
            entry = state.exposures[body.movie]
            entry.metadata, entry.metadata_path = "own", body.metadata_path
            state.lacking.pop(body.movie, None)
        case events.MovieOverridden():
            state.overrides[body.movie] = body
        case events.OpticsGrouped():
            optics.add_group(state.groups, body)
        case events.OpticsLearned():
            learned = state.learned.setdefault(body.session, Optics())
            learned.told, learned.provisional = body.threshold, body.provisional
        case events.WaitStarted() | events.WaitEnded():
            _wait(state, body)
        case _:
            _fold_session(state, body)


def _fold_session(state: State, body: Body) -> None:
    match body:
        case events.SessionOpened():
            state.name, state.raw = body.name, body.raw
        case events.SessionReopened():
            state.raw, state.closed = body.raw, False
        case events.SessionClosed():
            state.closed = True
        case events.RootAdded():
            state.roots[body.path] = body
        case events.SessionFound():
            state.sessions[body.session] = body
        case events.SessionDescribed():
            state.described[body.session] = body
        case events.SessionPlanned():
            state.planned[body.session] = body


def _wait(state: State, body: events.WaitStarted | events.WaitEnded) -> None:
    is_root = body.subject == SESSION or body.subject.startswith("/")
    match body:
        case events.WaitStarted() if is_root:
            state.lost[body.subject] = body.detail
        case events.WaitStarted():
            _note(state, body.subject, Status.WAITING, body.code, body.detail)
        case events.WaitEnded() if is_root:
            state.lost.pop(body.subject, None)
        case events.WaitEnded():
            _note(state, body.subject, Status.SEEN, "", "")


def _settle(state: State, body: events.MovieSettled, at: float) -> None:
    before = state.exposures.get(body.movie)
    is_new = before is None or not before.group
    state.exposures[body.movie] = Entry(
        status=Status.SETTLED,
        path=state.where(body),
        digest=body.digest,
        metadata_path=body.metadata_path or "",
        metadata=body.metadata,
        size_bytes=body.size_bytes,
        mtime_ns=body.mtime_ns,
        since=before.since if before is not None else at,
        group=body.optics_group,
        shift=optics.shift_of(body),
    )
    state.gain_path = body.gain_path or state.gain_path
    state.gainless.pop(body.movie, None)
    if "gain_missing" in body.flags:
        state.gainless[body.movie] = state.where(body)
    state.last[body.session] = body
    if body.metadata == "inherited":
        state.lacking[body.movie] = body
    if is_new:  # a movie that is published again has been counted
        _count(state, body)


def _count(state: State, body: events.MovieSettled) -> None:
    size = f"{body.width_px} x {body.height_px}"
    state.sizes[size] = state.sizes.get(size, 0) + 1
    state.frames[body.n_frames] = state.frames.get(body.n_frames, 0) + 1
    state.bytes_mean += (body.size_bytes - state.bytes_mean) / sum(state.sizes.values())
    optics.add_member(state.groups, body)
    learned = state.learned.setdefault(body.session, Optics())
    learned.exposures += 1
    shot = optics.shot_of(body)
    if shot is not None:
        learned.spread.add(shot)


def _note(state: State, movie: str, status: Status, code: str, detail: str) -> None:
    entry = state.exposures.setdefault(movie, Entry())
    entry.status, entry.code, entry.detail = status, code, detail


def closing(state: State) -> events.SessionClosed:
    """Return the event that closes the session, with its counts."""
    counts = state.count()
    return events.SessionClosed(
        seen=len(state.exposures),
        settled=counts[Status.SETTLED],
        refused=counts[Status.REFUSED],
        waiting=counts[Status.WAITING] + counts[Status.SEEN],
    )


def refusal(movie: str, code: Code, detail: str) -> events.MovieRefused:
    """Return the event that sets an exposure aside."""
    return events.MovieRefused(movie=movie, code=code, detail=detail[:4000])
