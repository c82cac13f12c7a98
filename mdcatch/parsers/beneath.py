"""Opening a file below a root: no link, no way out, nothing but a regular file.

Each component is opened by itself, so that a link put there at any moment is met as a link.

Source: reliability.md section 2.11 (SubFramePath, file names).
"""

import errno
import os
import stat

from mdcatch.parsers.window import Window
from services.kit.errors import Code, Refused

_FOLDER = os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_beneath(root: str, path: str) -> int:
    """Return a descriptor of a regular file, for reading; closing it is the caller's.

    Parameters
    ----------
    root
        Folder that may be read; it may be a link itself.
    path
        Relative to the root.

    Raises
    ------
    Refused
        BAD_NAME for a path that is absolute, goes up, passes through a link, or ends at anything
        but a regular file.
    OSError
        What the file system says.
    """
    *folders, name = path.split("/")
    if "\0" in path or ".." in (*folders, name) or name in ("", ".") or path.startswith("/"):
        raise Refused(Code.BAD_NAME, f"{path[:200]!r} is not the path of a file below the folder")
    place = os.open(root, _FOLDER & ~os.O_NOFOLLOW)
    try:
        for folder in folders:
            inner = _enter(place, folder or ".")
            os.close(place)
            place = inner
        return _open(place, name)
    finally:
        os.close(place)


def window_of(descriptor: int) -> Window:
    """Return a window onto an open file; never more than the file has is asked for."""
    size = os.fstat(descriptor).st_size

    def read(offset: int, length: int) -> bytes:
        wanted = max(0, min(length, size - offset))
        return os.pread(descriptor, wanted, offset) if wanted else b""

    return Window(read, size)


def _enter(place: int, folder: str) -> int:
    try:
        return os.open(folder, _FOLDER, dir_fd=place)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise Refused(Code.BAD_NAME, f"{folder[:200]!r} is a link or no folder") from None


def _open(place: int, name: str) -> int:
    # A device may act on being opened, so it is looked at first; and again once it is open.
    _regular(os.stat(name, dir_fd=place, follow_symlinks=False), name)
    try:
        descriptor = os.open(name, _FILE, dir_fd=place)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise Refused(Code.BAD_NAME, f"{name[:200]!r} is a link") from None
    try:
        _regular(os.fstat(descriptor), name)
    except Refused:
        os.close(descriptor)
        raise
    return descriptor


def _regular(found: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Refused(Code.BAD_NAME, f"{name[:200]!r} is no file: a link, a folder, a device")
