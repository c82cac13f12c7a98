"""Named places where a test can kill this process.

A test sets COLDSTREAM_CRASH_DIR and creates files named `<process>.<point>`; the first time the
process passes that point it removes the file and dies as by SIGKILL (`schemer.faults`).
"""

from schemer import faults

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
    faults.crash_point(f"{_process}.{point}")
