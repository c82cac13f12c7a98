"""One writer at a time in a job folder, and none that was asked before the last one.

A worker whose service was killed may still be at work when the next iteration is asked for.
Source: reliability.md section 2.5 (fencing).
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.kit.paths import atomic_write

HIDDEN = ".coldstream"
LOCK, ORDER = "items.lock", "order"  # the lock is that of a job done by hand


class Overtaken(Exception):
    """Something that was asked for later has been written already."""


@contextmanager
def alone(folder: Path, order: int) -> Iterator[None]:
    """Keep others from writing in `folder`, and remember the order of what is written.

    Raises
    ------
    Overtaken
        A later one was here.
    """
    hidden = folder / HIDDEN
    hidden.mkdir(exist_ok=True)
    with open(hidden / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = hidden / ORDER
        if path.exists() and int(path.read_text()) > order:
            raise Overtaken(f"{folder} holds a later selection than {order}")
        atomic_write(path, str(order))
        yield
