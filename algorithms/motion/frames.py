"""The frames of one movie in their native type: decoded once where memory allows."""

import math
import mmap
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from algorithms.motion.types import MovieLike

_LARGE_BYTES = 128 << 20


class FrameSource:
    """Frames first .. last - 1 of a movie, a few at a time, as `[n, ny, nx]` on a device.

    A movie that fits into `hold_bytes` in its native type is read once and kept; a larger one is
    read again at every pass. The chunk given is one buffer that the next chunk overwrites.
    """

    def __init__(self, movie: MovieLike, first: int, last: int, hold_bytes: int, device: str):
        self.device = torch.device(device)
        self.shape = (movie.ny, movie.nx)
        self.movie_shape = (movie.n_frames, movie.ny, movie.nx)
        self.first, self.last, self.n = first, last, last - first
        self._movie = movie
        self._hold_bytes = hold_bytes
        self._held: Tensor | None = None

    def chunks(self, sizes: list[int]) -> Iterator[tuple[int, Tensor]]:
        """Give (number of the first, counted from the first used; frames) of successive chunks."""
        start = 0
        if self._held is not None:
            for size in sizes:
                yield start, self._held[start : start + size]
                start += size
            return
        frames = self._movie.frames(self.first, self.last)
        whole: Tensor | None = None
        buffer: Tensor | None = None
        for size in sizes:
            for i in range(size):
                frame = next(frames)[1]
                native = np.ascontiguousarray(frame, frame.dtype.newbyteorder("="))
                if buffer is None:
                    whole = self._room(native)
                    buffer = self._empty(native, max(sizes)) if whole is None else whole
                at = i if whole is None else start + i
                # A copy: readers may give read-only or flipped views.
                buffer[at].copy_(torch.from_numpy(_writable(native)))
            if buffer is None:
                continue
            yield start, buffer[:size] if whole is None else whole[start : start + size]
            start += size
        self._held = whole

    def release(self) -> None:
        """Let go of frames that were kept."""
        self._held = None

    def _room(self, frame: np.ndarray) -> Tensor | None:
        if frame.nbytes * self.n > self._hold_bytes:
            return None
        return self._empty(frame, self.n)

    def _empty(self, frame: np.ndarray, n: int) -> Tensor:
        kind = torch.from_numpy(np.empty(0, frame.dtype)).dtype
        return large_zeros((n, *self.shape), kind, self.device)


def large_zeros(shape: tuple[int, ...], kind: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; large ones on the CPU in memory of their own, all of which is given back.

    A worker keeps what it frees for its next movie. Blocks of half a gigabyte among smaller ones
    would leave gaps there that nothing fits into.
    """
    size = math.prod(shape) * torch.empty(0, dtype=kind).element_size()
    if device.type != "cpu" or size < _LARGE_BYTES:
        return torch.zeros(shape, dtype=kind, device=device)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=kind).view(shape)


def _writable(frame: np.ndarray) -> np.ndarray:
    """The same pixels in an array that torch takes without a warning."""
    return frame if frame.flags.writeable else frame.copy()


def even_chunks(n: int, size: int) -> list[int]:
    """Sizes of chunks of `size`, the last one what remains."""
    return [min(size, n - start) for start in range(0, n, size)]
