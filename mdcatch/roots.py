"""The folders a session is spread over, what each may hold, and how changes in it are noticed.

inotify reports nothing of what another host does on a share, so a root on a network file system
is only polled, and its files are given more time to settle: clients cache sizes and times.

Source: acquisition.md sections 2.1, 2.9, 8 (3) and 10 (2).
"""

import re
from pathlib import Path
from typing import Literal

import msgspec

from mdcatch.names import Role
from services.kit.paths import file_system_of, is_network
from services.kit.sitetables import Site

Holds = Literal["metadata", "movies", "both"]

# EPU's names of sessions: Supervisor_20250130_145409_68practice2.
_START = re.compile(r"(?<!\d)\d{8}_\d{6}(?!\d)", re.ASCII)
_METADATA = frozenset({Role.METADATA, Role.SESSION})
_MOVIES = frozenset({Role.MOVIE, Role.IMAGE})
# What cameras and SerialEM write beside the movies.
_ALWAYS = frozenset({Role.GAIN, Role.DEFECTS, Role.FRACTIONS, Role.MDOC})


class RootConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder that is watched; it is only ever read."""

    path: str  # absolute
    role: Holds = "both"
    session: str = ""  # below a folder of many sessions: the name of the one that is meant

    def takes(self, role: Role) -> bool:
        """Tell whether files of a role are looked for here."""
        if role in _ALWAYS:
            return True
        return (
            role in _METADATA
            if self.role == "metadata"
            else (role in _MOVIES if self.role == "movies" else role in _METADATA | _MOVIES)
        )


class FileSystem(msgspec.Struct, frozen=True):
    """What a root lies on."""

    kind: str
    is_network: bool

    @property
    def observer(self) -> str:
        """How changes are noticed."""
        return "polling" if self.is_network else "inotify and polling"


def file_system(path: Path, mounts: str | None = None) -> FileSystem:
    """Return what a folder lies on; unknown counts as local, where polling finds all the same."""
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text()
        except OSError:
            mounts = ""  # not Linux
    _, kind = file_system_of(path, mounts)
    return FileSystem(kind, is_network(kind))


def is_other_session(name: str, session: str) -> bool:
    """Tell whether a folder is that of another session, by date and time in its name.

    A session that is renamed keeps them. What has none may be anything, and is entered.
    """
    mine, other = _START.search(session), _START.search(name)
    if mine is None or other is None:
        return False
    return mine[0] != other[0]


def roots_of(raw: Path, site: Site) -> tuple[Holds, tuple[RootConfig, ...]]:
    """Return what a session's folder holds, and where its other half is, by the site's roots.

    Parameters
    ----------
    raw
        The session's folder.
    site
        Its roots with their roles.
    """
    mine = site.root_of(raw)
    if mine is None or mine.role == "both":
        return "both", ()
    wanted = "movies" if mine.role == "metadata" else "metadata"
    found = [
        RootConfig(path=_half(raw, Path(mine.path), Path(root.path)), role=wanted, session=raw.name)
        for root in site.roots.values()
        if root.role == wanted
    ]
    return mine.role, tuple(found)


def watched(raw: Path, movies: str | None, site: Site) -> tuple[Holds, tuple[RootConfig, ...]]:
    """Return what a session's folder holds, and where else a person, or the site, says to look.

    Parameters
    ----------
    raw
        The session's folder.
    movies
        That of its movies, as a person gave it.
    site
        Its roots with their roles.
    """
    if movies is None or movies == str(raw):
        return roots_of(raw, site)
    return "both", (RootConfig(path=movies, role="movies", session=raw.name),)


def gain_folders(site: Site) -> tuple[str, ...]:
    """Return the folders where the site keeps gains that EPU does not copy."""
    cameras = (camera for microscope in site.microscopes for camera in microscope.cameras)
    return tuple(dict.fromkeys(one.gain_folder for one in cameras if one.gain_folder))


def _half(raw: Path, mine: Path, other: Path) -> str:
    """Return the session's folder on another root; the root itself while there is none."""
    tails = (raw.relative_to(mine), Path(raw.name), Path("DoseFractions", raw.name))
    places = (other / tail for tail in tails)
    return str(next((place for place in places if place.is_dir()), other))
