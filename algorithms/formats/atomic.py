"""Files that are either the old one or the new one, never half of one."""

import os
import secrets
from pathlib import Path


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
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
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


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in `folder` (creations, renames) survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
