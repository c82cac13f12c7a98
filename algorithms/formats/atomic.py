"""Files that are either the old one or the new one, never half of one."""

import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

_ABANDONED = re.compile(r"\..+\.(\d+)-[0-9a-f]{12}\.tmp")


def atomic_write(
    path: str | os.PathLike[str], data: bytes | str, *, durable: bool = True
) -> os.stat_result:
    """Replace `path` by `data` in one step that survives a crash at any moment.

    Parameters
    ----------
    path
        Target file. Its folder is made if missing.
    data
        Whole content; text is written as UTF-8.
    durable
        Sync the file before and the folder after the rename, so that the new content survives a
        power cut. False keeps atomicity (readers never see half a file) and drops the two syncs:
        right for views that can be rebuilt from the journal.

    Returns
    -------
    os.stat_result
        Of the file as written; another time, size or inode later means another writer.

    Source: reliability.md section 1 (ALICE: write, sync, rename, sync the folder).
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Hidden and unique: a reader's wildcard never matches it, two writers never share it.
    # It tells whose it is, so that what a killed writer left can be removed.
    name = f".{target.name}.{os.getpid()}-{secrets.token_hex(6)}.tmp"
    temporary = target.with_name(name)
    content = data.encode() if isinstance(data, str) else data
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(target.parent)
    return status


def remove_abandoned(paths: Iterable[Path]) -> int:
    """Remove unfinished copies whose writer does not live any more; return how many.

    Parameters
    ----------
    paths
        Files; those with other names than `atomic_write` gives are left alone.
    """
    removed = 0
    for path in paths:
        found = _ABANDONED.fullmatch(path.name)
        if found is not None and not _lives(int(found[1])):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is somebody else's
    return process != os.getpid()  # our own number, but an earlier process: nothing is written yet


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in `folder` (creations, renames) survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
