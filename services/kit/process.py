"""Processes that do not outlive their parent, and a name for the system's tools to show."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent ends; end now if it already has.

    Parameters
    ----------
    parent
        Process id of the parent as it was when this process was started.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        # It ended before we asked.
        sys.exit(1)


def show_name(name: str) -> None:
    """Set the name that `ps` and `top` show for this process (15 bytes)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)
