"""What the pure core may ask about the world outside; `schemer.world` answers from a folder."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class World(Protocol):
    """Facts about files. All paths are relative to the project root, as RELION writes them."""

    def file_exists(self, path: str) -> bool:
        """Return whether `path` names a file or folder; an empty path does not."""
        ...

    def count_images(self, path: str, table: str) -> int:
        """Return the number of rows of `table` in the STAR file `path`; 0 without the file."""
        ...

    def column(self, path: str, table: str, label: str) -> Sequence[str]:
        """Return the values, as text, of one column; raises SchemeError if it is not there."""
        ...

    def glob(self, pattern: str) -> Sequence[str]:
        """Return the paths that match a shell wildcard, sorted."""
        ...

    def job_table(self, scheme: str) -> Mapping[str, str] | None:
        """Return another Scheme's job names, original -> current; None if there is no such Scheme.

        Parameters
        ----------
        scheme
            Name of the folder below `Schemes/`, without slashes.
        """
        ...
