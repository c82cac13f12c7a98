"""The camera: transfer of the signal, gain, defects, counting.

raw counts ~ Poisson(expected / gain): multiplying a raw frame by the gain gives electrons back.
The gain is in MRC orientation, its mean over good pixels 1, and 0 where a pixel is dead.

Source: simulation.md section 5.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from algorithms.simulate.recipe import Recipe

_SMOOTH_GAIN = 0.04
_SEAM_STEP = 0.02
_HOT_COUNTS = (5.0, 60.0)


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Fixed properties of a session's camera; defects as (x, y)."""

    gain: NDArray[np.float32]
    hot_px: NDArray[np.int64]
    hot_counts: NDArray[np.float64]
    """Counts that a hot pixel adds to every frame."""
    dead_px: NDArray[np.int64]
    dead_columns: tuple[int, ...]

    def count(self, electrons: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Counts of one frame from the expected electrons per pixel `[ny, nx]`."""
        with np.errstate(divide="ignore"):
            rate = np.where(self.gain > 0, electrons / self.gain, 0.0)
        np.clip(rate, 0.0, None, out=rate)
        rate[self.hot_px[:, 1], self.hot_px[:, 0]] += self.hot_counts
        counts = rng.poisson(rate)
        return np.minimum(counts, 255).astype(np.uint8)


def make_detector(recipe: Recipe, rng: np.random.Generator) -> Detector:
    """Draw a camera: smooth field, pixel noise, sensor seams, hot and dead pixels."""
    ny, nx = recipe.ny, recipe.nx
    noise = 1.0 + recipe.gain_noise * np.clip(rng.standard_normal((ny, nx)), -4.0, 4.0)
    gain = noise * _smooth_field(ny, nx, rng) * _seams(ny, nx, rng)
    defects = rng.choice(ny * nx, recipe.n_hot + recipe.n_dead, replace=False)
    defects_px = np.column_stack([defects % nx, defects // nx])
    hot, dead = defects_px[: recipe.n_hot], defects_px[recipe.n_hot :]
    columns = tuple(int(c) for c in rng.choice(nx, recipe.n_dead_columns, replace=False))
    gain[dead[:, 1], dead[:, 0]] = 0.0
    gain[:, columns] = 0.0
    gain /= gain[gain > 0].mean()
    return Detector(
        gain=gain.astype(np.float32),
        hot_px=hot,
        hot_counts=rng.uniform(*_HOT_COUNTS, recipe.n_hot),
        dead_px=dead,
        dead_columns=columns,
    )


def _smooth_field(ny: int, nx: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A few long waves over the sensor."""
    y, x = np.arange(ny)[:, None] / ny, np.arange(nx)[None, :] / nx
    field = np.zeros((ny, nx))
    for _ in range(4):
        turns, phase = rng.uniform(-1.5, 1.5, 2), rng.uniform(0, 2 * math.pi)
        field += np.cos(2 * math.pi * (turns[0] * x + turns[1] * y) + phase)
    return 1.0 + _SMOOTH_GAIN * field / math.sqrt(2.0)


def _seams(ny: int, nx: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Steps where two halves and four stripes of the sensor meet."""
    columns = np.repeat(1.0 + rng.normal(0.0, _SEAM_STEP, 2), math.ceil(nx / 2))[:nx]
    rows = np.repeat(1.0 + rng.normal(0.0, _SEAM_STEP, 4), math.ceil(ny / 4))[:ny]
    return rows[:, None] * columns[None, :]


def signal_transfer(q_per_pixel: NDArray[np.floating], at_nyquist: float) -> NDArray[np.float32]:
    """Transfer of the signal, a Gaussian through `at_nyquist` at 0.5 cycles/px.

    A counting camera's noise is close to white, so only the expectation is filtered.
    """
    return np.power(at_nyquist, np.square(2.0 * q_per_pixel)).astype(np.float32)
