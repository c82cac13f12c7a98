"""What file names mean in the trees of EPU, SerialEM and TFS Tomography, and which are let in.

Source: acquisition.md sections 2.2, 3.1, 4 and 8.2; reliability.md section 2.11 (file names).
"""

import re
from enum import StrEnum
from pathlib import PurePosixPath
from typing import NamedTuple

MAX_PATH = 1000  # an event's path has at most 1024 characters


class Role(StrEnum):
    """What a file is to the watcher."""

    MOVIE = "movie"
    IMAGE = "image"  # a sum, or a movie without EPU's suffix: the number of sections decides
    METADATA = "metadata"  # XML of one exposure
    MDOC = "mdoc"  # sections that each name a movie
    FRACTIONS = "fractions"  # the camera's own list of what it wrote: a witness
    SESSION = "session"  # EpuSession.dm
    GAIN = "gain"
    DEFECTS = "defects"
    IGNORED = "ignored"


class FileName(NamedTuple):
    """A file's role and the exposure it belongs to.

    `identity` is the path without the movie suffix or ".xml"; `exposure` is True when the name
    alone tells that there is an exposure (an XML of another name counts once its movie is there);
    `foreign` is True for names that EPU would not give: in its trees they mean nothing.
    """

    role: Role
    identity: str = ""
    exposure: bool = False
    foreign: bool = False


class Identifiers(NamedTuple):
    """Numbers EPU writes into names, as text: they can exceed seven digits. "" is unknown."""

    grid_square: str = ""
    foil_hole: str = ""
    acquisition_area: str = ""


_FLAGS = re.IGNORECASE | re.ASCII | re.DOTALL
_STEM = r"FoilHole_(?P<hole>\d+)_Data_(?P<area>\d+)_\d+_\d{8}_\d{4,6}"
_TEMPORARY = re.compile(r"[.~].*|.*\.(tmp|part|partial|filepart|downloading|crdownload)", _FLAGS)
_GAIN = re.compile(
    r"(.*[_-]gain([_-]ref)?|gain)\.(mrc|tiff?|gain)|.*\.gain"
    r"|(CountRef|SuperRef)_.*\.(dm4|mrc|tiff?)",
    _FLAGS,
)
_DEFECTS = re.compile(r"defects_.*\.txt", _FLAGS)
# Ordered: the first that fits decides. A K2 of old EPU writes stem-<n>.mrc next to stem.mrc.
_MOVIES: tuple[tuple[re.Pattern[str], Role], ...] = (
    (re.compile(r"(?P<stem>.+)_fractions\.(mrcs?|tiff?)", _FLAGS), Role.MOVIE),
    (re.compile(r"(?P<stem>.+?)_EER\.eer", _FLAGS), Role.MOVIE),
    (re.compile(rf"(?P<stem>{_STEM})\.eer", _FLAGS), Role.MOVIE),
    (re.compile(rf"(?P<stem>{_STEM})-\d+\.mrcs?", _FLAGS), Role.MOVIE),
    (re.compile(rf"(?P<stem>{_STEM}(-\d+)?)\.(mrcs?|tiff?)", _FLAGS), Role.IMAGE),
)
_EXPOSURE = re.compile(rf"{_STEM}(-\d+)?", _FLAGS)
_PREVIEW = re.compile(
    r"(FoilHole_\d+_\d{8}_\d+|GridSquare_.*|Tile_.*|Atlas_.*)\.(xml|mrcs?|tiff?)", _FLAGS
)
_FOREIGN = re.compile(r"(?P<stem>.+)\.(mrcs?|tiff?|eer)", _FLAGS)
_MDOC = re.compile(r"(?P<stem>.+?)(\.(mrcs?|tiff?|eer|st))?\.(mdoc|idoc)", _FLAGS)
_GRID_SQUARE = re.compile(r"GridSquare_(\d+)", _FLAGS)
_ALLOWED = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+ -]*")


def classify(path: str) -> FileName:
    """Tell a file's role by its path below a root."""
    folder, slash, name = path.rpartition("/")
    if is_temporary(name):
        return FileName(Role.IGNORED)
    if _GAIN.fullmatch(name):
        return FileName(Role.GAIN)
    here = folder + slash
    for pattern, role in _MOVIES:
        if found := pattern.fullmatch(name):
            return FileName(role, here + found["stem"], role is Role.MOVIE)
    return _other(here, name)


def _other(here: str, name: str) -> FileName:
    if _PREVIEW.fullmatch(name):
        return FileName(Role.IGNORED)
    if found := _FOREIGN.fullmatch(name):
        return FileName(Role.IMAGE, here + found["stem"], foreign=True)
    if found := _MDOC.fullmatch(name):
        return FileName(Role.MDOC, here + found["stem"], foreign=True)
    lower = name.lower()
    if lower.endswith("_fractions.xml"):
        return FileName(Role.FRACTIONS, here + name[: -len("_fractions.xml")])
    if lower.endswith(".xml"):
        return FileName(Role.METADATA, here + name[:-4], _EXPOSURE.fullmatch(name[:-4]) is not None)
    if lower == "epusession.dm":
        return FileName(Role.SESSION)
    return FileName(Role.DEFECTS if _DEFECTS.fullmatch(name) else Role.IGNORED)


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
