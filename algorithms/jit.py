"""Loops compiled by Numba where it is installed; it is never needed.

A kernel is compiled once per machine: the code is kept beside the module, in `NUMBA_CACHE_DIR`, or
in the user's cache folder; where nothing can be written it is compiled in every process.
"""

from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return a loop over arrays as machine code that runs without Python's lock.

    None where Numba is not installed. Numba itself takes half a second to import, so this is to be
    called when a kernel is needed, not when a module is imported.
    """
    try:
        import numba
    except ImportError:
        return None
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder for the code can be written
        return numba.njit(nogil=True)(function)
