"""Memory of large arrays, apart from all other memory of the process.

A movie needs a few blocks of half a gigabyte, one after the other. Among smaller ones in the heap
they would leave gaps into which nothing fits, and fetching new pages for each of them takes as
long as reading the movie. Here they lie in one range of addresses, where those to come take the
place of those that are done with; up to a gigabyte is kept for the next movie.
"""

import math
import mmap
import threading
import weakref
from contextlib import suppress
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_LARGE_BYTES = 1 << 20
_KEPT_BYTES = 1 << 30  # of what is free
# Pages that nobody touched are no memory; where addresses are limited (ulimit -v, strict
# overcommitment) fewer of them have to do.
_ADDRESSES = (1 << 40, 1 << 36, 1 << 34)
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
_ALIGNED = 4096


class Arena:
    """A range of addresses, given out piece by piece; the lowest place that fits is taken."""

    def __init__(self, addresses: int = _ADDRESSES[0], kept: int = _KEPT_BYTES):
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
        self._memory = mmap.mmap(-1, addresses, flags=flags)
        self._size, self._kept = addresses, kept
        self._used: dict[int, int] = {}  # where a piece begins -> where it ends
        self._touched = 0
        self._lock = threading.RLock()  # an array may be let go at any moment

    def take(self, size: int) -> np.ndarray:
        """Return uint8 `[size]` whose memory is free again when nobody holds it any more.

        What is in it is undefined.

        Raises
        ------
        MemoryError
            The addresses are used up.
        """
        with self._lock:
            start = 0
            for begin, end in sorted(self._used.items()):
                if begin - start >= size:
                    break
                start = end
            end = start + -(-size // _ALIGNED) * _ALIGNED
            if end > self._size:
                raise MemoryError(f"{size} bytes for an array of a movie")
            self._used[start] = end
            self._touched = max(self._touched, end)
        piece = np.frombuffer(self._memory, np.uint8, size, start)
        weakref.finalize(piece, self._free, start).atexit = False
        return piece

    def _free(self, start: int) -> None:
        with self._lock:
            self._used.pop(start)
            free, last = 0, 0
            for begin, end in [*sorted(self._used.items()), (self._touched, self._touched)]:
                keep = min(begin, last + max(0, self._kept - free))
                if keep < begin:
                    self._memory.madvise(mmap.MADV_DONTNEED, keep, begin - keep)
                free += begin - last
                last = end

    @property
    def used_bytes(self) -> int:
        """Bytes given out."""
        with self._lock:
            return sum(end - start for start, end in self._used.items())


@lru_cache(maxsize=1)
def arena() -> Arena | None:
    """Return this process's arena; None where it gets no addresses for one."""
    for addresses in _ADDRESSES:
        with suppress(OSError):
            return Arena(addresses)
    return None


def large_empty(shape: tuple[int, ...], kind: torch.dtype, device: torch.device) -> Tensor:
    """An array to be filled; a large one on the CPU lies in the arena."""
    size = math.prod(shape) * torch.empty(0, dtype=kind).element_size()
    place = arena() if device.type == "cpu" and size >= _LARGE_BYTES else None
    if place is None:
        return torch.empty(shape, dtype=kind, device=device)
    return torch.frombuffer(place.take(size), dtype=kind).view(shape)


def large_zeros(shape: tuple[int, ...], kind: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; large ones on the CPU lie in the arena."""
    return large_empty(shape, kind, device).zero_()
