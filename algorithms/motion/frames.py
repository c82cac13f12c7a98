"""The frames of one movie, decoded once, corrected on request."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from algorithms.motion.defects import Repair
from algorithms.motion.types import MovieLike


class FrameSource:
    """Frames first .. last - 1 of a movie as float32 planes `[ny, nx]` on a device.

    A movie that fits into `hold_bytes` in its native type is read once and kept; a larger one is
    read again at every pass. The plane given is one buffer that the next frame overwrites.
    """

    def __init__(self, movie: MovieLike, first: int, last: int, hold_bytes: int, device: str):
        self.device = device
        self.shape = (movie.ny, movie.nx)
        self.movie_shape = (movie.n_frames, movie.ny, movie.nx)
        self.first, self.last, self.n = first, last, last - first
        self._movie = movie
        self._hold_bytes = hold_bytes
        self._held: list[Tensor] | None = None
        self._plane = torch.empty(self.shape, device=device)
        self._gain: Tensor | None = None
        self._repair: Repair | None = None

    def raw(self) -> Iterator[Tensor]:
        """Give every frame as it was read."""
        for frame in self._native():
            yield self._plane.copy_(frame)

    def prepare(self, gain: Tensor | None, repair: Repair) -> None:
        """Set what `corrected` applies."""
        self._gain, self._repair = gain, repair

    def corrected(self) -> Iterator[Tensor]:
        """Give every frame times the gain, bad pixels filled."""
        for index, plane in enumerate(self.raw(), start=self.first):
            if self._gain is not None:
                plane.mul_(self._gain)
            if self._repair is not None:
                self._repair.apply(plane, index)
            yield plane

    def _native(self) -> Iterator[Tensor]:
        if self._held is not None:
            yield from self._held
            return
        held: list[Tensor] = []
        for _, frame in self._movie.frames(self.first, self.last):
            # A copy: readers may give read-only, flipped or byte-swapped views.
            native = np.array(frame, dtype=frame.dtype.newbyteorder("="), order="C")
            tensor = torch.from_numpy(native)
            if tensor.nbytes * self.n <= self._hold_bytes:
                held.append(tensor)
            yield tensor
        if len(held) == self.n:
            self._held = held
