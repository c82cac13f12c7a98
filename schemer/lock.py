"""RELION's pipeline lock, kept together with a lock that a crash cannot leave behind.

RELION locks `default_pipeline.star` by making the folder `.relion_lock`; after a crash it stays
for ever. coldstream processes take an operating-system lock first, and sign RELION's lock file
with who they are, so a folder left by a coldstream process that has died is known and removed,
while one of a living RELION is respected. Source: schemes.md section 7.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from schemer.errors import ProjectLocked

RETRY_S = 3.0  # RELION's own interval and number of tries: 1 minute
TRIES = 20


@contextmanager
def pipeline_lock(
    root: Path, *, retry_s: float = RETRY_S, tries: int = TRIES, pipeline: str = "default"
) -> Iterator[bool]:
    """Hold the right to change a project's pipeline file. Not reentrant.

    Gives whether the last coldstream process that held it died in the middle of a change.

    Parameters
    ----------
    root
        Project folder.
    retry_s, tries
        How often, and how many times, to look whether another program has let go.
    pipeline
        Name of the pipeline.

    Raises
    ------
    ProjectLocked
        Another program holds RELION's lock all the time; says which and how to remove it.
    """
    own = root / ".coldstream" / "pipeline.lock"
    own.parent.mkdir(parents=True, exist_ok=True)
    with open(own, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        # A holder empties the file when it is done: content means that it died in between.
        interrupted = bool(file.read())
        _rewrite(file, _identity())
        theirs = root / ".relion_lock" / f"lock_{pipeline}_pipeline.star"
        # Signed before it is put in place: a crash cannot leave a lock without its holder's name.
        signed = own.with_name("lock.signed")
        signed.write_text(f"{_identity()}\n", encoding="utf-8")
        try:
            _take(theirs, signed, interrupted, retry_s, tries)
            try:
                yield interrupted
            finally:
                theirs.unlink(missing_ok=True)
                with suppress(FileNotFoundError):
                    theirs.parent.rmdir()
        finally:
            _rewrite(file, "")


def is_foreign(root: Path, *, pipeline: str = "default") -> bool:
    """Return whether a program that is not ours holds RELION's lock, and may be writing.

    Ours replace the pipeline file in one step: it can be read at any time.
    """
    lock = root / ".relion_lock" / f"lock_{pipeline}_pipeline.star"
    return lock.parent.exists() and not _holder(lock).startswith("coldstream ")


def _rewrite(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def _take(lock: Path, signed: Path, interrupted: bool, retry_s: float, tries: int) -> None:
    for attempt in range(tries + 1):
        try:
            lock.parent.mkdir()
        except FileExistsError:
            _remove_if_stale(lock, interrupted and attempt > 0)
        else:
            signed.rename(lock)
            return
        if attempt < tries and lock.parent.exists():
            time.sleep(retry_s)
    raise ProjectLocked(
        f"{lock.parent} is held ({_holder(lock) or 'no reason given'}) and was not released in "
        f"{tries * retry_s:.0f} s; if no RELION program runs in this project, remove that folder"
    )


def _remove_if_stale(lock: Path, interrupted: bool) -> None:
    """Remove a lock folder that a dead coldstream process left; the own lock is held.

    An empty folder is either such a rest, or a RELION program between its two system calls: it
    counts as a rest only where a coldstream process died and a first wait has passed.
    """
    try:
        empty = not any(lock.parent.iterdir())
        stale = (interrupted and empty) or _is_dead(_holder(lock))
    except FileNotFoundError:
        return
    if stale:
        lock.unlink(missing_ok=True)
        with suppress(OSError):
            lock.parent.rmdir()


def _holder(lock: Path) -> str:
    try:
        return lock.read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""


def _identity() -> str:
    return f"coldstream {os.getpid()} {_started(os.getpid())} {socket.gethostname()}"


def _is_dead(holder: str) -> bool:
    """Return whether `holder` signs for a coldstream process of this host that is gone."""
    words = holder.split()
    if len(words) != 4 or words[0] != "coldstream" or words[3] != socket.gethostname():
        return False
    # The holder of the own lock is this process: a lock signed by it is a rest too.
    return int(words[1]) == os.getpid() or _started(int(words[1])) != words[2]


def _started(pid: int) -> str:
    """Return the start time of a process in clock ticks since boot, `gone` if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    # The name in parentheses may hold blanks; 20 fields after it comes the start time.
    return stat.rpartition(")")[2].split()[19]
