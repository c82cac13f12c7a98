"""The watched tree as the watcher sees it: read-only, no links followed.

Source: acquisition.md section 8 (12); reliability.md section 2.11.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple, Protocol

from algorithms.formats.movie import Structure, structure_of
from mdcatch.settle import Facts

DIGEST_END = 64 * 2**10  # bytes at either end of a file that enter its digest


class Entry(NamedTuple):
    """One name in a folder; `regular` is False for links, devices and pipes."""

    name: str
    is_folder: bool
    regular: bool = True


class Tree(Protocol):
    """What the watcher asks of a file system; paths are below the raw root, "" is the root."""

    def changed(self, folder: str) -> int:
        """Return a folder's modification time in ns."""
        ...

    def entries(self, folder: str) -> list[Entry]:
        """Return a folder's names."""
        ...

    def facts(self, path: str) -> Facts | None:
        """Return what identifies the present state of a file; None when it is not there."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """Return at most `limit` bytes of a file."""
        ...

    def structure(self, path: str) -> Structure:
        """Return what a movie's headers say; raises `FormatError`."""
        ...

    def digest(self, path: str, facts: Facts) -> str | None:
        """Return the digest of a file, None if `facts` are past."""
        ...


class Disk:
    """A folder on disk."""

    def __init__(self, root: Path):
        self.root = root

    def changed(self, folder: str) -> int:
        """Return a folder's modification time in ns."""
        return os.stat(self.root / folder).st_mtime_ns

    def entries(self, folder: str) -> list[Entry]:
        """Return a folder's names, in order."""
        with os.scandir(self.root / folder) as found:
            return sorted(
                Entry(
                    entry.name,
                    entry.is_dir(follow_symlinks=False),
                    entry.is_file(follow_symlinks=False),
                )
                for entry in found
            )

    def facts(self, path: str) -> Facts | None:
        """Return what identifies the present state of a file; None when it is not there."""
        try:
            found = os.lstat(self.root / path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Facts(found.st_size, found.st_mtime_ns, found.st_ino)

    def read(self, path: str, limit: int) -> bytes:
        """Return at most `limit` bytes of a file."""
        with open(self._open(path), "rb") as file:
            return file.read(limit)

    def structure(self, path: str) -> Structure:
        """Return what a movie's headers say; raises `FormatError`."""
        return structure_of(self.root / path)

    def digest(self, path: str, facts: Facts) -> str | None:
        """Return SHA-256 over size (decimal text), first and last 64 KiB; None if `facts` are past.

        It tells files of one session apart and survives a share that comes back with other
        inode numbers; it is no checksum of every byte.
        """
        with open(self._open(path), "rb") as file:
            size = facts.size
            total = hashlib.sha256(str(size).encode())
            total.update(file.read(min(size, DIGEST_END)))
            file.seek(max(0, size - DIGEST_END))
            total.update(file.read(min(size, DIGEST_END)))
            now = os.fstat(file.fileno())
        if Facts(now.st_size, now.st_mtime_ns, now.st_ino) != facts:
            return None
        return total.hexdigest()

    def _open(self, path: str) -> int:
        descriptor = os.open(self.root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{path} is not a regular file")
        return descriptor
