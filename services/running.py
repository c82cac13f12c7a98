"""Which process runs a session: one at a time, and how it is told to stop.

A lock on `.coldstream/up.lock` says whether it runs, its content says who it is; the lock ends with
the process, however that ends.
"""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.kit.errors import Misuse
from services.kit.paths import Layout

# A look at the lock holds it for a moment; who starts a session waits that long.
PATIENCE_S = 1.0
LOOK_S = 0.1


@contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Hold the session of a project.

    Raises
    ------
    Misuse
        Another process runs it.
    """
    with open(_file(layout), "a+b") as lock:
        deadline = time.monotonic() + PATIENCE_S
        while not _take(lock.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise Misuse(
                    f"the session of {layout.project} runs already, as process {running(layout)}: "
                    "stop it first with `coldstream stop`, or follow it with `coldstream tail -f`"
                )
            time.sleep(LOOK_S)
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        yield


def running(layout: Layout) -> int | None:
    """Return the number of the process that runs a project's session, None when none does."""
    try:
        with open(_file(layout), "rb") as lock:
            if _take(lock.fileno(), fcntl.LOCK_SH):
                return None
            return int(lock.read() or b"0") or None
    except FileNotFoundError:
        return None


def stop(layout: Layout, patience_s: float) -> bool:
    """Tell the process that runs a session to stop, and wait for its end; False if none runs.

    Raises
    ------
    Misuse
        It did not end in time, or belongs to somebody else.
    """
    process = running(layout)
    if process is None:
        return False
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it ended in this moment
    except PermissionError:
        raise Misuse(f"process {process} belongs to another account: stop it there") from None
    deadline = time.monotonic() + patience_s
    while running(layout) == process:
        if time.monotonic() > deadline:
            raise Misuse(
                f"process {process} has not ended within {patience_s:g} s: look at its log"
            )
        time.sleep(LOOK_S)
    return True


def _file(layout: Layout) -> Path:
    return layout.hidden / "up.lock"


def _take(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
