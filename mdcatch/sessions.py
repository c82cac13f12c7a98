"""Which sessions lie below the watched folders: found by names alone, no file is opened.

A session of EPU is a folder with `Images-Disc<n>` or `EpuSession.dm` in it; with a name that holds
date and time it is one even when nothing else is in it yet, or ever (its start was aborted). One of
SerialEM is a folder with frame mdocs, with its movies beside them or in a folder `frames`. Folders
whose time has not changed are not listed again.

Source: acquisition.md sections 2.1, 2.2 and 3.1.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from mdcatch import names
from mdcatch.disk import Entry, Folder
from mdcatch.gainfiles import date_in
from mdcatch.layouts import Software
from mdcatch.names import Role
from mdcatch.roots import RootConfig

DEPTH = 4  # folders between a root and its sessions, at most: microscope, year, visit, session
MOST = 100  # newest sessions that are counted; older ones are listed without counts
_FLAGS = re.IGNORECASE | re.ASCII
_DISC = re.compile(r"Images-Disc\d+", _FLAGS)
_SQUARE = re.compile(r"GridSquare_\d+", _FLAGS)
_NAMED = re.compile(r"(?:.*_)?(\d{8})_(\d{6})(?:_.*|$)", _FLAGS)
_STAMP = re.compile(r"(FoilHole_\d+_Data_\d+_\d+_(\d{8})_(\d{4,6}))", _FLAGS)
_ANY = datetime(2000, 1, 1)


class FoundSession(msgspec.Struct, kw_only=True):
    """One session; what is not known is empty, counts that were not made are None."""

    name: str
    raw: str  # absolute path of its folder
    key: str = ""  # what it keeps when its folder is renamed
    movies: str = ""  # absolute path of its movies, where they are in another tree
    software: str = Software.EPU
    # empty, aborted (no EpuSession.dm and no exposures), renamed (an empty one beside the session
    # that has its start) or acquired
    state: str = ""
    started: str = ""  # ISO 8601, local time of the microscope, as names tell it
    last: str = ""  # the newest exposure
    exposures: int | None = None
    squares: int | None = None  # with exposures
    discs: int = 0
    metadata: str = ""  # of the newest exposure
    movie: str = ""


class Listing(Protocol):
    """What is asked of a file system."""

    def changed(self, folder: str) -> int: ...  # noqa: D102
    def entries(self, folder: str) -> list[Entry]: ...  # noqa: D102


class _Shot(NamedTuple):
    at: str
    path: str


class _Content(msgspec.Struct):
    """What one folder of files holds."""

    changed: int
    stems: set[str]
    first: str = ""
    metadata: _Shot = _Shot("", "")
    movie: _Shot = _Shot("", "")


class SessionScanner:
    """Lists sessions, again and again.

    Parameters
    ----------
    roots
        The watched folders.
    listings
        Their file systems by path; default: the folders.
    """

    def __init__(self, roots: Iterable[RootConfig], listings: dict[str, Listing] | None = None):
        self._roots = [
            (root, (listings or {}).get(root.path) or Folder(Path(root.path))) for root in roots
        ]
        self._seen: dict[tuple[str, str], _Content] = {}

    def scan(self, most: int = MOST) -> list[FoundSession]:
        """Return all sessions, the newest first.

        Parameters
        ----------
        most
            How many are counted.
        """
        found: list[tuple[RootConfig, Listing, str, FoundSession]] = []
        for root, listing in self._roots:
            for folder, session in self._folders(root, listing):
                found.append((root, listing, folder, session))
        found.sort(key=lambda item: (item[3].started, item[3].name), reverse=True)
        for number, (root, listing, folder, session) in enumerate(found):
            if number < most or session.software != Software.EPU:
                self._count(root, listing, folder, session)
        return _joined([(root, session) for root, _, _, session in found])

    # ---- finding

    def _folders(self, root: RootConfig, listing: Listing) -> Iterable[tuple[str, FoundSession]]:
        todo = [("", 0)]
        while todo:
            folder, depth = todo.pop()
            try:
                entries = listing.entries(folder)
            except OSError:
                continue
            software = _software(entries)
            path = f"{root.path}/{folder}" if folder else root.path
            name = path.rpartition("/")[2]
            named = _NAMED.fullmatch(name)
            if software is None and named and not entries:
                software = Software.EPU
            if software is not None:
                yield folder, _session(name, path, software, entries, named)
            elif depth < DEPTH:
                inner = [e.name for e in entries if e.is_folder and not e.name.startswith(".")]
                todo += [(f"{folder}/{one}" if folder else one, depth + 1) for one in inner]

    # ---- counting

    def _count(
        self, root: RootConfig, listing: Listing, folder: str, session: FoundSession
    ) -> None:
        stems: set[str] = set()
        session.squares = 0
        newest, first = {"metadata": _Shot("", ""), "movie": _Shot("", "")}, ""
        for inner in _data_folders(listing, folder):
            content = self._content(root, listing, inner)
            stems |= content.stems
            session.squares += bool(content.stems) and "/GridSquare_" in f"/{inner}"
            first = min(filter(None, (first, content.first)), default="")
            for part in newest:
                newest[part] = max(newest[part], getattr(content, part))
        session.exposures = len(stems)
        session.started = first or session.started
        session.last = max(shot.at for shot in newest.values())
        session.metadata, session.movie = newest["metadata"].path, newest["movie"].path
        if stems:
            session.state = "acquired"

    def _content(self, root: RootConfig, listing: Listing, folder: str) -> _Content:
        key = root.path, folder
        try:
            changed = listing.changed(folder)
            known = self._seen.get(key)
            if known is not None and known.changed == changed:
                return known
            entries = listing.entries(folder)
        except OSError:
            return _Content(0, set())
        content = self._seen[key] = _Content(changed, set())
        prefix = f"{root.path}/{folder}/" if folder else f"{root.path}/"
        for entry in entries:
            if not entry.is_folder:
                _add(content, prefix, entry.name)
        return content


def _add(content: _Content, prefix: str, name: str) -> None:
    """Take a file into account: exposures are counted by stem, whatever of them is there."""
    found = names.classify(name)
    stamp = _STAMP.match(name)
    if stamp is not None and found.role in (Role.MOVIE, Role.IMAGE, Role.METADATA):
        at = _iso(stamp[2], stamp[3])
    elif found.role in (Role.MOVIE, Role.IMAGE) or (found.role is Role.MDOC and stamp is None):
        date = date_in(name, _ANY)
        at = "" if date is None or date.year <= _ANY.year + 1 else date.isoformat()
    else:
        return
    if found.role is not Role.MDOC or not content.stems:
        content.stems.add(found.identity)
    content.first = min(filter(None, (content.first, at)), default="")
    shot = _Shot(at or name, prefix + name)
    if found.role in (Role.METADATA, Role.MDOC):
        content.metadata = max(content.metadata, shot)
    elif found.role is Role.MOVIE or found.foreign:
        content.movie = max(content.movie, shot)


def _software(entries: list[Entry]) -> Software | None:
    """Tell whose session a folder is, None for a folder above sessions or beside them."""
    folders = {entry.name for entry in entries if entry.is_folder}
    files = [entry.name for entry in entries if not entry.is_folder]
    if "EpuSession.dm" in files or any(map(_DISC.fullmatch, folders)):
        return Software.EPU
    if any(_STAMP.match(name) for name in files):
        return Software.EPU
    if any(name.lower().endswith(".mdoc") for name in files):
        return Software.SERIALEM
    frames = [name for name in folders if name.lower() == "frames"]
    return Software.SERIALEM if frames else None


def _session(
    name: str,
    path: str,
    software: Software,
    entries: list[Entry],
    named: re.Match[str] | None,
) -> FoundSession:
    has_file = any(entry.name == "EpuSession.dm" for entry in entries)
    state = "" if software is not Software.EPU or has_file else "aborted" if entries else "empty"
    stamp = _iso(named[1], named[2]) if named else ""
    return FoundSession(
        name=name,
        raw=path,
        # EPU keeps date and time of the start when a person renames the session.
        key=f"{software} {stamp}" if stamp else path,
        software=software,
        state=state,
        started=stamp,
        discs=sum(1 for e in entries if e.is_folder and _DISC.fullmatch(e.name)),
    )


def _data_folders(listing: Listing, folder: str) -> list[str]:
    """Return the folders below a session that hold exposures."""
    found = [folder]
    try:
        entries = listing.entries(folder)
    except OSError:
        return found
    inside = f"{folder}/" if folder else ""
    for entry in entries:
        if not entry.is_folder:
            continue
        if entry.name.lower() == "frames":
            found.append(inside + entry.name)
        elif _DISC.fullmatch(entry.name):
            found += _squares(listing, inside + entry.name)
        elif _SQUARE.fullmatch(entry.name):
            found.append(f"{inside}{entry.name}/Data")
    return found


def _squares(listing: Listing, disc: str) -> list[str]:
    try:
        entries = listing.entries(disc)
    except OSError:
        return []
    return [f"{disc}/{e.name}/Data" for e in entries if e.is_folder and _SQUARE.fullmatch(e.name)]


def _joined(found: list[tuple[RootConfig, FoundSession]]) -> list[FoundSession]:
    """Put the movies of a session, on a root of their own, to its metadata: by name, then key."""
    sessions = [session for root, session in found if root.role != "movies"]
    for root, session in found:
        if root.role != "movies":
            continue
        mine = [one for one in sessions if one.name == session.name]
        mine = mine or [one for one in sessions if session.key and one.key == session.key]
        if not mine:
            session.movies = session.raw
            sessions.append(session)
            continue
        mine[0].movies, mine[0].movie = session.raw, session.movie or mine[0].movie
        mine[0].exposures = max(mine[0].exposures or 0, session.exposures or 0)
    filled = {one.key for one in sessions if one.state != "empty"}
    for one in sessions:
        if one.state == "empty" and one.key in filled:
            one.state, one.key = "renamed", one.raw
    return sorted(sessions, key=lambda one: (one.last or one.started, one.name), reverse=True)


def _iso(date: str, time: str) -> str:
    """Return a date and time of a name as ISO 8601; "" when it is none."""
    try:
        return datetime.strptime(f"{date}{time:0<6}", "%Y%m%d%H%M%S").isoformat()
    except ValueError:
        return ""
