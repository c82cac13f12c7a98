"""The standard movie of motion correction, with its truth, and what its results are measured by.

Source: preprocessing.md section 9.2.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import grid_sample

from algorithms import fourier

SHAPE, FRAMES = (1364, 1920), 24
_MARGIN = 32


class Frames:
    """A movie in memory."""

    def __init__(self, frames: np.ndarray):
        self.array = frames
        self.n_frames, self.ny, self.nx = frames.shape

    def frames(self, first: int, last: int) -> Iterator[tuple[int, np.ndarray]]:
        return ((i, self.array[i]) for i in range(first, last))


@dataclass(frozen=True)
class Standard:
    """A movie uint8 `[n, ny, nx]` and the (x, y) of its hot pixels, sorted."""

    frames: np.ndarray
    hot: list[tuple[int, int]]


def displacement(frame: float, x: np.ndarray, y: np.ndarray, local: float = 1.0) -> np.ndarray:
    """Displacement of the specimen in px `[2, ...]` at x, y of -0.5 to 0.5, relative to frame 0."""
    t = frame / 23.0
    dx = 6 * (1 - np.exp(-frame / 4)) + local * (3 * x + 2 * x * y - 2 * y * y) * (
        1.5 * t - 0.5 * t * t
    )
    dy = -3 * (1 - np.exp(-frame / 6)) + local * (-2.5 * y + 2 * x * x + x) * (
        1.3 * t - 0.3 * t * t
    )
    return np.stack(np.broadcast_arrays(dx, dy))


def standard_movie(
    seed: int, *, shape: tuple[int, int] = SHAPE, counts: float = 1.0, local: float = 1.0
) -> Standard:
    """Poisson counts of a smooth random field that moves as `displacement`; 20 hot pixels."""
    rng = np.random.default_rng(seed)
    ny, nx = shape
    big = (ny + 2 * _MARGIN, nx + 2 * _MARGIN)
    k = fourier.radius(big)
    field = fourier.rfft2(torch.from_numpy(rng.standard_normal(big, np.float32)))
    field *= (k < 0.15) / (k + 0.01)
    field[0, 0] = 0.0
    image = fourier.irfft2(field, big)
    image *= 0.15 / image.std()
    y, x = np.meshgrid(np.arange(ny), np.arange(nx), indexing="ij")
    out = np.empty((FRAMES, ny, nx), np.uint8)
    for f in range(FRAMES):
        dx, dy = displacement(f, x / nx - 0.5, y / ny - 0.5, local)
        grid = np.stack(
            [(x - dx + _MARGIN) * 2 / (big[1] - 1) - 1, (y - dy + _MARGIN) * 2 / (big[0] - 1) - 1],
            axis=-1,
        )
        moved = grid_sample(
            image[None, None],
            torch.from_numpy(grid.astype(np.float32))[None],
            mode="bicubic",
            align_corners=True,
        )[0, 0].numpy()
        out[f] = rng.poisson(counts * np.clip(1 + moved, 0, None)).clip(0, 255)
    hot = sorted({(int(rng.integers(nx)), int(rng.integers(ny))) for _ in range(20)})
    for hot_x, hot_y in hot:
        out[:, hot_y, hot_x] = 40
    return Standard(out, hot)


def errors(applied: np.ndarray, local: float = 1.0) -> tuple[float, float]:
    """R.m.s. of applied shift + displacement in px: as it is, and around each place's mean.

    `applied` is `[n, 9, 9, 2]` (x, y) at the grid of `grid()`.
    """
    x, y = grid()
    true = np.stack([displacement(f, x, y, local) for f in range(len(applied))])
    error = applied + np.moveaxis(true, 1, -1)
    centred = error - error.mean(0)
    total, around = (float(np.sqrt(np.square(e).sum(-1).mean())) for e in (error, centred))
    return total, around


def grid() -> tuple[np.ndarray, np.ndarray]:
    """Places (x, y), each `[9, 9]`, of -0.5 to 0.5 over the image."""
    axis = (np.arange(9) + 0.5) / 9 - 0.5
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x, y
