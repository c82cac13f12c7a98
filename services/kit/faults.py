"""Named places where a test can kill this process.

A test sets COLDSTREAM_CRASH_DIR and creates files named `<process>.<point>`; the first time the
process passes that point it removes the file and dies as by SIGKILL. Without the variable a point
costs one dictionary look-up.
"""

import os
import signal
from pathlib import Path

POINTS = (
    "after-append-before-commit",
    "after-commit-before-bell",
    "after-attempt-before-submit",
    "before-job-folder",
    "after-job-folder-before-commit",
    "before-render",
    "after-render",
    "work-before-compute",
    "work-after-compute-before-rename",
    "work-after-rename-before-manifest",
    "work-after-manifest-before-result",
)

_process = "none"


def name_process(name: str) -> None:
    """Say which process this is: mdcatch, prep, proc or worker."""
    global _process
    _process = name


def crash_point(point: str) -> None:
    """Die here, once, if a test has asked for it."""
    folder = os.environ.get("COLDSTREAM_CRASH_DIR")
    if folder is None:
        return
    try:
        Path(folder, f"{_process}.{point}").unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
