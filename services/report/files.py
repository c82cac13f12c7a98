"""Where the pictures and pages of a report are: a folder beside it, named by movie."""

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path

from algorithms.formats.atomic import atomic_write
from services.kit.errors import Misuse

STEM_LENGTH = 120


def stem_of(movie: str) -> str:
    """Return the name of a movie's files: its own, made harmless, and digits of its whole path."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", movie.rsplit("/", 1)[-1])[:STEM_LENGTH].lstrip(".")
    return f"{name}-{hashlib.sha256(movie.encode()).hexdigest()[:6]}"


class ReportFiles:
    """The folder of a report: figures, thumbnails, and pages of micrographs.

    Parameters
    ----------
    folder
        For `report.html` this is `report` beside it.
    patience_s
        How long new thumbnails may take; None: as long as they need.
    """

    def __init__(self, folder: Path, patience_s: float | None = None):
        self.folder = folder
        self._deadline = None if patience_s is None else time.monotonic() + patience_s

    def figure(self, name: str) -> Path:
        """Return the file of a figure of the session."""
        return self.folder / f"{name}.png"

    def page(self, movie: str) -> Path:
        """Return the page of a micrograph."""
        return self.folder / "micrographs" / f"{stem_of(movie)}.html"

    def picture(self, movie: str, kind: str) -> Path:
        """Return a picture of a micrograph: "picks", "spectrum", "curve", "drift", "steps"."""
        return self.folder / "micrographs" / f"{stem_of(movie)}_{kind}.png"

    def link(self, movie: str) -> str:
        """Return the link from the report to the page of a micrograph."""
        return f"{self.folder.name}/micrographs/{stem_of(movie)}.html"

    def thumbnail(
        self, movie: str, kind: str, source: Path, make: Callable[[], bytes | None]
    ) -> bytes | None:
        """Return a small picture, made anew where its source is newer and there is time for it.

        Parameters
        ----------
        movie, kind
            Whose, and which: "image" or "ctf".
        source
            The file it is made of.
        make
            Makes it; None when it cannot.
        """
        path = self.folder / "thumbnails" / f"{stem_of(movie)}_{kind}.jpg"
        try:
            if path.stat().st_mtime_ns >= source.stat().st_mtime_ns:
                return path.read_bytes()
        except OSError:
            pass  # one of them is not there; what is missing now is no reason to lose the old one
        if self._deadline is not None and time.monotonic() > self._deadline:
            return None
        made = make()
        if made is not None:
            write(path, made)
        return made

    def reserve(self, movie: str, text: str) -> None:
        """Put `text` where a micrograph's page will be, unless something is there."""
        path = self.page(movie)
        if not path.exists():
            write(path, text)


def write(path: Path, data: bytes | str) -> None:
    """Write a file of a report in one step.

    Raises
    ------
    Misuse
        The folder is not ours to write to, or full; the message names the file.
    """
    try:
        atomic_write(path, data, durable=False)
    except OSError as error:
        raise Misuse(
            f"{path} cannot be written ({error.strerror}): give another place with --out"
        ) from error
