"""Facts about the files of a project folder, for the pure core (`schemer.facts.World`)."""

import glob
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from algorithms.formats import star
from schemer.errors import SchemeError

# Another program may be rewriting its scheme.star: RELION looks again five times.
_LOOKS = 6
# A file that was changed this short a time ago may change again without a new time stamp.
_STILL_NS = 50_000_000
# Answers kept; a Scheme asks about a handful of files.
_KEPT = 64


class ProjectWorld:
    """A `World` on a project folder; what was read is kept until the file changes.

    Parameters
    ----------
    root
        Project folder, to which all paths are relative.
    retry_s
        Pause before a Scheme whose job table reads as empty is read again.
    """

    def __init__(self, root: str | os.PathLike[str], *, retry_s: float = 1.0):
        self.root = Path(root)
        self._retry_s = retry_s
        self._known: dict[Hashable, tuple[tuple[int, int, int], Any]] = {}

    def file_exists(self, path: str) -> bool:
        """Return whether `path` names a file or folder; an empty path does not."""
        return bool(path) and os.path.exists(self.root / path)

    def count_images(self, path: str, table: str) -> int:
        """Return the rows of a table; 0 without the file or the table.

        A file without optics is of the time before RELION 3.1: its only table counts.
        """
        if not self.file_exists(path):
            return 0
        counts = self._read(path, "rows", star.count_rows)
        if "optics" not in counts and table not in counts and len(counts) == 1:
            return next(iter(counts.values()))
        return counts.get(table, 0)

    def column(self, path: str, table: str, label: str) -> Sequence[str]:
        """Return one column as text; SchemeError where file, table or label is missing."""
        return self._read(path, (table, label), lambda file: _column(file, path, table, label))

    def glob(self, pattern: str) -> Sequence[str]:
        """Return the paths that match, sorted, relative where the pattern is."""
        expanded = os.path.expanduser(pattern)
        return sorted(glob.glob(expanded, root_dir=self.root)) if expanded else []

    def job_table(self, scheme: str) -> Mapping[str, str] | None:
        """Return another Scheme's job names, original -> current; None without that Scheme."""
        path = f"Schemes/{scheme}/scheme.star"
        for left in reversed(range(_LOOKS)):
            if not self.file_exists(path):
                return None
            try:
                table = self._read(path, "jobs", _job_table)
            except SchemeError:
                if not left:
                    raise
                table = {}
            if table or not left:
                return table
            time.sleep(self._retry_s)
        return None

    def _read(self, path: str, what: Hashable, read: Callable[[Path], Any]) -> Any:
        """Return what `read` makes of a file, again only after the file has changed."""
        file = self.root / path
        try:
            status = file.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = self._known.get((path, what))
            if known is not None and known[0] == stamp:
                return known[1]
            found = read(file)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise SchemeError(f"{path} does not exist in {self.root}") from None
        except (OSError, ValueError) as error:  # StarError is a ValueError
            if isinstance(error, SchemeError):
                raise
            raise SchemeError(f"{path} cannot be read: {error}") from None
        if time.time_ns() - status.st_mtime_ns > _STILL_NS:
            while len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[path, what] = (stamp, found)
        return found


def _column(file: Path, path: str, table: str, label: str) -> list[str]:
    tables = star.load(file, only=(table,))
    if table not in tables:
        there = ", ".join(star.count_rows(file)) or "none"
        raise SchemeError(f"{path} has no table {table!r}; it has {there[:300]}")
    try:
        return tables[table].strings(label)
    except star.StarError as error:
        raise SchemeError(f"{path}, table {table!r}: {error}") from None


def _job_table(file: Path) -> dict[str, str]:
    table = star.load(file, only=("scheme_jobs",)).get("scheme_jobs", star.Table())
    if not len(table):
        return {}
    names = table.strings("rlnSchemeJobNameOriginal")
    return dict(zip(names, table.strings("rlnSchemeJobName"), strict=True))
