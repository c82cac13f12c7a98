"""The newest exposure of a session's folder: its metadata, its movie, and how movies are named.

A bounded look, for the moment a session is opened; the watcher does the rest.
Source: acquisition.md sections 2.1, 2.2 and 3.1.
"""

import heapq
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mdcatch import names
from mdcatch.names import Role
from services.kit.errors import Misuse

# An EPU session has two folders per grid square that was imaged, some hundreds at most.
MOST_FOLDERS = 5000
# The last exposure may still be written, and the one before be in the camera's queue.
MOST = 6
_DISC = re.compile(r"Images-Disc\d+", re.IGNORECASE)
_SQUARE = re.compile(r"GridSquare_\d+", re.IGNORECASE)
_EPU = re.compile(
    r"FoilHole_\d+_Data_\d+_\d+_(?P<stamp>\d{8}_\d{4,6})(?P<tail>.*)", re.IGNORECASE | re.DOTALL
)
# K2 of old EPU numbers its movies and keeps a sum of the same name without a number.
_NUMBERED = re.compile(r"-\d+(?=[_.])")
# An mdoc of one movie bears its whole name; that of a series or a map bears an MRC's.
_SAVED_MOVIES = re.compile(r"[0-9A-Za-z].*\.(tiff?|mrcs?|eer)\.mdoc", re.IGNORECASE | re.DOTALL)


class Newest(NamedTuple):
    """Files of the newest exposure that can be read; None where there is none. Absolute paths."""

    metadata: Path | None = None
    movie: Path | None = None


class Candidates(NamedTuple):
    """The newest metadata files and movies, the newest first; the very last may still grow."""

    metadata: list[Path]
    movies: list[Path]


def candidates(raw: Path, movies: Path | None = None, most: int = MOST) -> Candidates:
    """Return the newest files of a session's folder.

    Parameters
    ----------
    raw
        Folder with the metadata.
    movies
        Folder with the movies, if that is another tree with the same tail.
    most
        Of each kind.

    Raises
    ------
    Misuse
        A folder cannot be read.
    """
    best: dict[str, list[tuple[tuple[str, int], Path]]] = {"metadata": [], "movie": []}
    for root in dict.fromkeys((raw, movies or raw)):
        for path, kind, at in _exposures(root):
            kept = best[kind]
            heapq.heappush(kept, (at, path))
            if len(kept) > most:
                heapq.heappop(kept)
    return Candidates(*([path for _, path in sorted(best[kind], reverse=True)] for kind in best))


def stem_of(path: Path) -> str:
    """Return what metadata and movie of one exposure share."""
    return names.classify(path.name).identity


def pattern_of(movie: PurePosixPath | Path) -> str:
    """Return the wildcard pattern of a session's movies, told from one of them.

    Parameters
    ----------
    movie
        Path below the folder of the movies.
    """
    folders = [
        "Images-Disc*" if _DISC.fullmatch(part) else "GridSquare_*" if _SQUARE.fullmatch(part)
        else part
        for part in movie.parent.parts
    ]  # fmt: skip
    found = _EPU.fullmatch(movie.name)
    if found is None:
        return "/".join([*folders, f"*{movie.suffix}"])
    tail = found["tail"]
    number = "-*" if _NUMBERED.match(tail) else ""
    return "/".join([*folders, f"FoilHole_*_Data_*{number}{_NUMBERED.sub('', tail, count=1)}"])


def _exposures(root: Path) -> Iterator[tuple[Path, str, tuple[str, int]]]:
    """Yield metadata and movie files of exposures with their time: that of the name, else ns."""
    waiting, opened = [""], 0
    while waiting and opened < MOST_FOLDERS:
        folder, opened = waiting.pop(), opened + 1
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if names.is_temporary(entry.name) or entry.is_symlink():
                        continue
                    if entry.is_dir():
                        waiting.append(path)
                    elif kind := _kind(path):
                        yield root / path, kind, _time(entry)
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError as error:
            raise Misuse(f"{root / folder} cannot be read: {error.strerror}") from error


def _time(entry: os.DirEntry[str]) -> tuple[str, int]:
    """Return when an exposure was taken; EPU's names tell it without a look at the file."""
    stamp = _EPU.match(entry.name)
    if stamp is not None:
        return stamp["stamp"], 0
    return "", entry.stat(follow_symlinks=False).st_mtime_ns


def _kind(path: str) -> str:
    """Tell what a file is to us; which names mean a movie depends on who wrote the tree."""
    name = names.classify(path)
    if name.role is Role.MOVIE or (name.role is Role.IMAGE and name.foreign):
        return "movie"
    if name.role is Role.METADATA and name.exposure:
        return "metadata"
    is_frame = _SAVED_MOVIES.fullmatch(path.rpartition("/")[2]) is not None
    return "metadata" if name.role is Role.MDOC and is_frame else ""
