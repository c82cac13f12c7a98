"""Named places where a test can kill the process that runs a Scheme.

A test sets COLDSTREAM_CRASH_DIR and creates a file with the name of a point; the first time the
process passes that point it removes the file and dies as by SIGKILL. Without the variable a point
costs one dictionary look-up.
"""

import os
import signal
from pathlib import Path

POINTS = (
    "scheme-before-log",
    "scheme-after-log-before-write",
    "scheme-after-write",
    "effect-before",
    "effect-after-before-write",
    "job-before-folder",
    "job-after-folder-before-write",
    "job-before-running",
    "job-before-start",
    "job-after-start",
    "job-after-end-before-status",
    "job-after-status-before-write",
    "end-before-control-file",
    "end-after-control-file",
)


def crash_point(name: str) -> None:
    """Die here, once, if a test has asked for it."""
    folder = os.environ.get("COLDSTREAM_CRASH_DIR")
    if folder is None:
        return
    try:
        Path(folder, name).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
