"""The frames of one movie in their native type: decoded once where memory allows."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from algorithms.motion.memory import large_empty
from algorithms.motion.types import MovieLike

_STREAMED_BYTES = 128 << 20  # of frames at a time, of a movie that is not kept
_LARGEST_KEPT = 2  # bytes of a pixel: a movie in floating point is never kept


class FrameSource:
    """Frames first .. last - 1 of a movie, a few at a time, as `[n, ny, nx]` on a device.

    A movie of integers that fits into `hold_bytes` is read once and kept; others are read again
    at every pass. The chunk given is one buffer that the next chunk overwrites.
    """

    def __init__(self, movie: MovieLike, first: int, last: int, hold_bytes: int, device: str):
        self.device = torch.device(device)
        self.shape = (movie.ny, movie.nx)
        self.movie_shape = (movie.n_frames, movie.ny, movie.nx)
        self.first, self.last, self.n = first, last, last - first
        self._movie = movie
        self._hold_bytes = hold_bytes
        self._held: Tensor | None = None

    def chunks(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """Give (number of the first, counted from the first used; frames) of successive chunks.

        None reaches beyond a multiple of `size`; of a movie that is not kept they may be shorter.
        """
        if self._held is not None:
            for start, end in self._bounds(size, size):
                yield start, self._held[start:end]
            return
        frames = (frame for _, frame in self._movie.frames(self.first, self.last))
        frame = _native(next(frames))
        whole = self._empty(frame, self.n) if self._is_kept(frame) else None
        most = size if whole is not None else max(1, _STREAMED_BYTES // frame.nbytes)
        buffer = self._empty(frame, min(most, size, self.n)) if whole is None else whole
        for start, end in self._bounds(size, most):
            part = buffer[: end - start] if whole is None else whole[start:end]
            for i in range(end - start):
                # A copy: readers may give read-only or flipped views.
                part[i].copy_(torch.from_numpy(_writable(frame)))
                if start + i + 1 < self.n:
                    frame = _native(next(frames))
            yield start, part
        self._held = whole

    def release(self) -> None:
        """Let go of frames that were kept."""
        self._held = None

    def _bounds(self, size: int, most: int) -> Iterator[tuple[int, int]]:
        for group in range(0, self.n, size):
            end = min(group + size, self.n)
            for start in range(group, end, most):
                yield start, min(start + most, end)

    def _is_kept(self, frame: np.ndarray) -> bool:
        return frame.itemsize <= _LARGEST_KEPT and frame.nbytes * self.n <= self._hold_bytes

    def _empty(self, frame: np.ndarray, n: int) -> Tensor:
        kind = torch.from_numpy(np.empty(0, frame.dtype)).dtype
        return large_empty((n, *self.shape), kind, self.device)


def _native(frame: np.ndarray) -> np.ndarray:
    """The same pixels in rows, in the machine's byte order."""
    return np.ascontiguousarray(frame, frame.dtype.newbyteorder("="))


def _writable(frame: np.ndarray) -> np.ndarray:
    """The same pixels in an array that torch takes without a warning."""
    return frame if frame.flags.writeable else frame.copy()
