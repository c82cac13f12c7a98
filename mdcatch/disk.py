"""The watched tree as the watcher sees it: read-only, no links followed.

Source: acquisition.md sections 2.9 and 8 (4, 12); reliability.md section 2.11.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple, Protocol

from mdcatch.parsers.beneath import open_beneath
from mdcatch.parsers.child import ParserChild
from mdcatch.parsers.record import Record
from mdcatch.settle import Facts

DIGEST_END = 64 * 2**10  # bytes at either end of a file that enter its digest
HEADER = 1024  # bytes at the start of a movie that are no data


class Entry(NamedTuple):
    """One name in a folder; `regular` is False for links, devices and pipes."""

    name: str
    is_folder: bool
    regular: bool = True
    inode: int = 0


class Ends(NamedTuple):
    """What the two ends of a file say.

    `digest` tells files of one session apart and survives a share that comes back with other
    inode numbers; it is no checksum of every byte. `unwritten` tells that data begin but do not
    end: the file was made at its full size, and its writer has not come to its end.
    """

    digest: str
    unwritten: bool = False


class Tree(Protocol):
    """What the watcher asks of a file system; paths are below a root, "" is the root."""

    def changed(self, folder: str) -> int:
        """Return a folder's modification time in ns."""
        ...

    def entries(self, folder: str) -> list[Entry]:
        """Return a folder's names."""
        ...

    def facts(self, path: str) -> Facts | None:
        """Return what identifies the present state of a file; None when it is not there."""
        ...

    def record(self, path: str) -> Record:
        """Return what a metadata file, or a movie's header, says; raises `Refused`."""
        ...

    def ends(self, path: str, facts: Facts) -> Ends | None:
        """Return what a file's ends say, None if `facts` are past."""
        ...


class Folder:
    """A folder on disk, as far as names and times tell.

    Parameters
    ----------
    root
        The folder.
    """

    def __init__(self, root: Path):
        self.root = root
        self._start = f"{root}/"

    def changed(self, folder: str) -> int:
        """Return a folder's modification time in ns."""
        return os.stat(self._start + folder).st_mtime_ns

    def entries(self, folder: str) -> list[Entry]:
        """Return a folder's names, in order."""
        with os.scandir(self._start + folder) as found:
            return sorted(
                Entry(
                    entry.name,
                    entry.is_dir(follow_symlinks=False),
                    entry.is_file(follow_symlinks=False),
                    entry.inode(),
                )
                for entry in found
            )

    def facts(self, path: str) -> Facts | None:
        """Return what identifies the present state of a file; None when it is not there."""
        try:
            found = os.lstat(self._start + path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Facts(found.st_size, found.st_mtime_ns, found.st_ino)


class Disk(Folder):
    """A folder on disk whose files are read.

    Parameters
    ----------
    root
        The folder.
    child
        Parses files below it.
    """

    def __init__(self, root: Path, child: ParserChild):
        super().__init__(root)
        self._child = child

    def record(self, path: str) -> Record:
        """Return what a file says, as the parser child reads it; raises `Refused`."""
        return self._child.parse(self._start + path, path)

    def ends(self, path: str, facts: Facts) -> Ends | None:
        """Return the digest of size, first and last 64 KiB; None if `facts` are past.

        Opening a file makes clients of a share ask the server: what is found out here is newer
        than what a look at the name shows.
        """
        descriptor = open_beneath(str(self.root), path)
        try:
            size = facts.size
            first = os.pread(descriptor, min(size, DIGEST_END), 0)
            last = os.pread(descriptor, min(size, DIGEST_END), max(0, size - DIGEST_END))
            now = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        # The inode is left out: some shares give another one to every look.
        if (now.st_size, now.st_mtime_ns) != (facts.size, facts.mtime_ns):
            return None
        return Ends(digest_of(size, first, last), is_unwritten(size, first, last))


def digest_of(size: int, first: bytes, last: bytes) -> str:
    """Return SHA-256 over a file's size and its two ends."""
    total = hashlib.sha256(str(size).encode())
    total.update(first)
    total.update(last)
    return total.hexdigest()


def is_unwritten(size: int, first: bytes, last: bytes) -> bool:
    """Tell whether a file has data at its start and nothing but zeros at its end.

    No camera writes that: even a sparse counting frame has electrons somewhere in 64 KiB. A file
    without any data is no such file: its writer has left it so.
    """
    tail = last[-max(1, min(DIGEST_END, size // 4)) :]
    return tail.count(0) == len(tail) and any(first[HEADER:])
