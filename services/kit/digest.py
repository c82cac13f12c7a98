"""Digests of files: enough to tell one file from another without reading all of it."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

ENDS = 64 * 1024


def file_digest(path: Path) -> str:
    """Return SHA-256 over size, first and last 64 KiB; "missing" when it cannot be read.

    The same file, moved or on a share that gives it another inode, keeps its digest
    (reliability.md F11).
    """
    try:
        status = path.stat()
        return _digest(str(path), status.st_size, status.st_mtime_ns)
    except OSError:
        return "missing"


@lru_cache(maxsize=4096)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256(size.to_bytes(8, "big"))
    with open(path, "rb") as file:
        digest.update(file.read(ENDS))
        if size > ENDS:
            file.seek(max(ENDS, size - ENDS), os.SEEK_SET)
            digest.update(file.read(ENDS))
    return digest.hexdigest()
