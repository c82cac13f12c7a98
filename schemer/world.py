"""Facts about the files of a project folder, for the pure core (`schemer.facts.World`)."""

import glob
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from algorithms.formats import star
from schemer.errors import SchemeError

# Another program may be rewriting its scheme.star: RELION looks again five times.
_LOOKS = 6


class ProjectWorld:
    """A `World` on a project folder; counts are kept until a file changes.

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
        self._counts: dict[tuple[str, str], tuple[tuple[int, int, int], int]] = {}

    def file_exists(self, path: str) -> bool:
        """Return whether `path` names a file or folder; an empty path does not."""
        return bool(path) and (self.root / path).exists()

    def count_images(self, path: str, table: str) -> int:
        """Return the rows of a table; 0 without the file or the table.

        A file without optics is of the time before RELION 3.1: its only table counts.
        """
        if not self.file_exists(path):
            return 0
        status = (self.root / path).stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = self._counts.get((path, table))
        if known is None or known[0] != stamp:
            tables = self._load(path)
            if "optics" not in tables and table not in tables and len(tables) == 1:
                count = len(next(iter(tables.values())))
            else:
                count = len(tables.get(table, star.Table()))
            self._counts[path, table] = known = (stamp, count)
        return known[1]

    def column(self, path: str, table: str, label: str) -> Sequence[str]:
        """Return one column as text; SchemeError where file, table or label is missing."""
        tables = self._load(path)
        if table not in tables:
            raise SchemeError(f"{path} has no table {table!r}; it has {', '.join(tables)}")
        try:
            return tables[table].strings(label)
        except star.StarError as error:
            raise SchemeError(f"{path}, table {table!r}: {error}") from None

    def glob(self, pattern: str) -> Sequence[str]:
        """Return the paths that match, sorted, relative where the pattern is."""
        expanded = os.path.expanduser(pattern)
        return sorted(glob.glob(expanded, root_dir=self.root)) if expanded else []

    def job_table(self, scheme: str) -> Mapping[str, str] | None:
        """Return another Scheme's job names, original -> current; None without that Scheme."""
        path = f"Schemes/{scheme}/scheme.star"
        for look in range(_LOOKS):
            if not self.file_exists(path):
                return None
            table = self._load(path).get("scheme_jobs", star.Table())
            if len(table):
                names = table.strings("rlnSchemeJobNameOriginal")
                return dict(zip(names, table.strings("rlnSchemeJobName"), strict=True))
            if look + 1 < _LOOKS:
                time.sleep(self._retry_s)
        return {}

    def _load(self, path: str) -> dict[str, star.Table]:
        try:
            return star.load(self.root / path)
        except (FileNotFoundError, IsADirectoryError):
            raise SchemeError(f"{path} does not exist in {self.root}") from None
        except star.StarError as error:
            raise SchemeError(str(error)) from None
