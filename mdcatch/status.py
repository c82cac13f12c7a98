"""How a watched session stands, for people and programs: counts, orphans, groups, squares. Pure.

Source: acquisition.md sections 2.8 and 8; users.md W22.
"""

import msgspec

from mdcatch.layouts import place
from mdcatch.ledger import State, Status
from mdcatch.names import identifiers
from services.kit.errors import Code

ORPHANS = frozenset({Code.NO_MOVIE, Code.NO_METADATA, Code.VANISHED})
_COUNTED = {
    Status.SEEN: "pending",
    Status.WAITING: "waiting",
    Status.SETTLED: "settled",
    Status.REFUSED: "refused",
}
MOST = 200  # orphans that are listed; their number is always told


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """An exposure that lacks its movie or its metadata."""

    movie: str
    lacks: str  # the code
    age_s: float  # since it was noticed
    detail: str


class Square(msgspec.Struct, kw_only=True):
    """One grid square of a session."""

    session: str
    grid_square: str
    seen: int = 0
    settled: int = 0
    refused: int = 0
    waiting: int = 0  # pending ones included
    holes: int = 0
    first: str = ""  # time in the names, as the microscope writes it
    last: str = ""


class SessionStatus(msgspec.Struct, kw_only=True):
    """One session of the acquisition software."""

    session: str
    path: str
    software: str
    software_version: str = ""
    exposures: int = 0
    settled: int = 0


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """One watched folder; `lost` says why it cannot be seen."""

    path: str
    role: str
    link: str
    file_system: str
    observer: str
    lost: str = ""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """One optics group."""

    optics_group: int
    session: str
    acquisition_area: str
    members: int


class Overview(msgspec.Struct, kw_only=True):
    """Everything at one moment."""

    at: float  # Unix time, s
    name: str
    closed: bool
    counts: dict[str, int]
    roots: list[Root]
    sessions: list[SessionStatus]
    squares: list[Square]
    orphans: list[Orphan]  # the oldest first
    n_orphans: int
    groups: list[Group]
    grouping_provisional: bool
    inherited: list[str]  # movies that went without metadata of their own


def overview(state: State, at: float) -> Overview:
    """Return how a session stands.

    Parameters
    ----------
    state
        The ledger.
    at
        Unix time, s, by which ages are told.
    """
    orphans = _orphans(state, at)
    return Overview(
        at=at,
        name=state.name,
        closed=state.closed,
        counts={"exposures": len(state.exposures)}
        | {_COUNTED[status]: number for status, number in state.count().items()},
        roots=_roots(state),
        sessions=_sessions(state),
        squares=squares(state),
        orphans=orphans[:MOST],
        n_orphans=len(orphans),
        groups=[
            Group(
                optics_group=group.number,
                session=group.optics.session,
                acquisition_area=group.area,
                members=group.members,
            )
            for group in state.groups
        ],
        grouping_provisional=any(one.told and one.provisional for one in state.learned.values()),
        inherited=sorted(state.lacking),
    )


def squares(state: State) -> list[Square]:
    """Return the grid squares of all sessions, in the order of their names."""
    found: dict[tuple[str, str], Square] = {}
    holes: dict[tuple[str, str], set[str]] = {}
    root = state.raw.rpartition("/")[2]
    for movie, entry in state.exposures.items():
        names = identifiers(movie)
        key = place(movie, root).session, names.grid_square
        square = found.setdefault(key, Square(session=key[0], grid_square=key[1]))
        square.seen += 1
        square.settled += entry.status is Status.SETTLED
        square.refused += entry.status is Status.REFUSED
        holes.setdefault(key, set()).add(names.foil_hole)
        taken = "_".join(movie.rsplit("_", 2)[1:]) if names.foil_hole else ""
        if taken:
            square.first = min(square.first or taken, taken)
            square.last = max(square.last, taken)
    for key, square in found.items():
        square.waiting = square.seen - square.settled - square.refused
        square.holes = len(holes[key] - {""})
    return [found[key] for key in sorted(found)]


def _orphans(state: State, at: float) -> list[Orphan]:
    found = [
        Orphan(movie=movie, lacks=entry.code, age_s=at - entry.since, detail=entry.detail)
        for movie, entry in state.exposures.items()
        if entry.status is Status.WAITING and entry.code in ORPHANS
    ]
    return sorted(found, key=lambda orphan: (-orphan.age_s, orphan.movie))


def _roots(state: State) -> list[Root]:
    return [
        Root(
            path=root.path,
            role=root.role,
            link=root.link,
            file_system=root.file_system,
            observer=root.observer,
            lost=state.lost.get("session" if root.path == state.raw else root.path, ""),
        )
        for root in state.roots.values()
    ]


def _sessions(state: State) -> list[SessionStatus]:
    found = {
        name: SessionStatus(session=name, path=one.path, software=one.software)
        for name, one in state.sessions.items()
    }
    for name, described in state.described.items():
        if name in found:
            found[name].software_version = described.software_version
    for movie, entry in state.exposures.items():
        session = found.get(state.session_of(movie))
        if session is not None:
            session.exposures += 1
            session.settled += entry.status is Status.SETTLED
    return list(found.values())
