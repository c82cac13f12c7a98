"""What file names mean in an EPU tree, and which names are let in.

Source: acquisition.md sections 2.2 and 8.2; reliability.md section 2.11 (file names).
"""

import re
from enum import StrEnum
from pathlib import PurePosixPath
from typing import NamedTuple

MAX_PATH = 1000  # an event's path has at most 1024 characters


class Role(StrEnum):
    """What a file is to the watcher."""

    MOVIE = "movie"
    IMAGE = "image"  # EPU's sum, or a movie without a suffix: the number of sections decides
    METADATA = "metadata"
    GAIN = "gain"
    IGNORED = "ignored"


class FileName(NamedTuple):
    """A file's role and the exposure it belongs to.

    `identity` is the path without the movie suffix or ".xml"; `exposure` is True when the name
    alone tells that there is an exposure (an XML of another name counts once its movie is there).
    """

    role: Role
    identity: str = ""
    exposure: bool = False


class Identifiers(NamedTuple):
    """Numbers EPU writes into names, as text: they can exceed seven digits. "" is unknown."""

    grid_square: str = ""
    foil_hole: str = ""
    acquisition_area: str = ""


_FLAGS = re.IGNORECASE | re.ASCII | re.DOTALL
_STEM = r"FoilHole_(?P<hole>\d+)_Data_(?P<area>\d+)_\d+_\d{8}_\d{4,6}"
_TEMPORARY = re.compile(r"[.~].*|.*\.(tmp|part|partial|filepart|downloading|crdownload)", _FLAGS)
_GAIN = re.compile(r"(.*[_-]gain([_-]ref)?|gain)\.(mrc|tiff?|gain)|.*\.gain", _FLAGS)
# Ordered: the first that fits decides. A K2 of old EPU writes stem-<n>.mrc next to stem.mrc.
_MOVIES: tuple[tuple[re.Pattern[str], Role], ...] = (
    (re.compile(r"(?P<stem>.+)_fractions\.(mrcs?|tiff?)", _FLAGS), Role.MOVIE),
    (re.compile(r"(?P<stem>.+?)(_EER)?\.eer", _FLAGS), Role.MOVIE),
    (re.compile(rf"(?P<stem>{_STEM})-\d+\.mrcs?", _FLAGS), Role.MOVIE),
    (re.compile(rf"(?P<stem>{_STEM}(-\d+)?)\.(mrcs?|tiff?)", _FLAGS), Role.IMAGE),
)
_EXPOSURE = re.compile(rf"{_STEM}(-\d+)?", _FLAGS)
_PREVIEW = re.compile(r"(FoilHole_\d+_\d{8}_\d+|GridSquare_.*|Tile_.*|Atlas_.*)\.xml", _FLAGS)
_GRID_SQUARE = re.compile(r"GridSquare_(\d+)", _FLAGS)
_ALLOWED = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+ -]*")


def classify(path: str) -> FileName:
    """Tell a file's role by its path below the raw root."""
    folder, slash, name = path.rpartition("/")
    if is_temporary(name):
        return FileName(Role.IGNORED)
    if _GAIN.fullmatch(name):
        return FileName(Role.GAIN)
    for pattern, role in _MOVIES:
        if found := pattern.fullmatch(name):
            return FileName(role, folder + slash + found["stem"], role is Role.MOVIE)
    if name.lower().endswith(".xml"):
        stem = name[:-4]
        if stem.lower().endswith("_fractions") or _PREVIEW.fullmatch(name):
            return FileName(Role.IGNORED)
        exposure = _EXPOSURE.fullmatch(stem) is not None
        return FileName(Role.METADATA, folder + slash + stem, exposure)
    return FileName(Role.IGNORED)


def is_temporary(name: str) -> bool:
    """Tell whether a file or folder name belongs to an unfinished copy, or is hidden."""
    return _TEMPORARY.fullmatch(name) is not None


def is_allowed(path: str) -> bool:
    """Tell whether every component of a path keeps to the characters that are let in."""
    return len(path) <= MAX_PATH and all(map(_ALLOWED.fullmatch, path.split("/")))


def printable(path: str) -> str:
    """Return a form of any path that can be stored and shown."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)[:MAX_PATH]


def identifiers(identity: str) -> Identifiers:
    """Return grid square, foil hole and acquisition area of an exposure."""
    path = PurePosixPath(identity)
    square = next(filter(None, map(_GRID_SQUARE.fullmatch, reversed(path.parts))), None)
    stem = _EXPOSURE.fullmatch(path.name)
    return Identifiers(
        square[1] if square else "", stem["hole"] if stem else "", stem["area"] if stem else ""
    )
