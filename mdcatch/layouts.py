"""Where in a session a file lies: software, session, grid square, and what is below the session.

EPU writes the same tail, from `Images-Disc<n>` on, to the metadata disk and to the disks of the
cameras, below folders that need not have the same name. So the tail is what joins them, and where
even the session has another name, grid square and file stem are.

Source: acquisition.md sections 2.1, 2.2, 3.1.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

_FLAGS = re.IGNORECASE | re.ASCII
_DISC = re.compile(r"Images-Disc\d+", _FLAGS)
_SQUARE = re.compile(r"GridSquare_(\d+)", _FLAGS)
_STEM = re.compile(r"FoilHole_\d+_Data_\d+_\d+_\d{8}_\d{4,6}.*", _FLAGS)


class Software(StrEnum):
    """Who wrote a tree."""

    EPU = "EPU"
    SERIALEM = "SerialEM"
    FLAT = "flat"  # movies in a folder, with or without metadata beside them
    UNKNOWN = "unknown"


class Place(NamedTuple):
    """Where an exposure belongs.

    `folder` is the session's folder below the root ("" when it is the root, or not told), `tail`
    what follows it, `session` its name.
    """

    session: str
    folder: str
    tail: str
    square: str
    stem: str

    @property
    def key(self) -> tuple[str, str]:
        """What an exposure keeps when its session has another name elsewhere."""
        return self.square, self.stem


def place(identity: str, root_name: str) -> Place:
    """Return where an exposure belongs.

    Parameters
    ----------
    identity
        Path below a root, without the movie suffix.
    root_name
        Name of the root's own folder: that of the session, when the path has no other.
    """
    parts = identity.split("/")
    start = _tail(parts)
    if start is None:
        return Place(root_name, "", identity, "", parts[-1])
    folder = "/".join(parts[:start])
    session = parts[start - 1] if start else root_name
    squares = [found[1] for part in parts[start:] if (found := _SQUARE.fullmatch(part))]
    return Place(session, folder, "/".join(parts[start:]), (squares or [""])[-1], parts[-1])


def _tail(parts: list[str]) -> int | None:
    """Return where the tail begins: at the last disc, else at the first grid square."""
    discs = [number for number, part in enumerate(parts[:-1]) if _DISC.fullmatch(part)]
    if discs:
        return discs[-1]
    squares = (number for number, part in enumerate(parts[:-1]) if _SQUARE.fullmatch(part))
    return next(squares, None)


def is_of_epu(path: str) -> bool:
    """Tell whether a path can only be EPU's: a foreign name means nothing there."""
    *folders, name = path.split("/")
    if any(_DISC.fullmatch(part) or _SQUARE.fullmatch(part) for part in folders):
        return True
    return name.lower() == "epusession.dm" or _STEM.match(name) is not None


def recognise(paths: Iterable[str]) -> Software:
    """Tell from some of its files who writes a tree."""
    software = Software.UNKNOWN
    for path in paths:
        lower = path.lower()
        if is_of_epu(path):
            return Software.EPU
        if lower.endswith((".mdoc", ".idoc")):
            software = Software.SERIALEM
        elif software is Software.UNKNOWN and lower.endswith(
            (".tif", ".tiff", ".mrc", ".mrcs", ".eer")
        ):
            software = Software.FLAT
    return software
