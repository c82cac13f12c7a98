"""How the specimen moves during an exposure, in px relative to the first frame.

Displacements are those of the specimen, +d; programs report the correction, -d. The local field is
RELION's third-order model: `[2, 18]` coefficients (x axis, then y axis) of 1, x, x^2, y, y^2, xy
(x, y from -0.5 to 0.5 over the image), each times z, z^2, z^3 (z = frame counted from 0).

Source: simulation.md section 5, preprocessing.md sections 2.3 and 2.6.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from algorithms.simulate.recipe import Recipe

# The first-frames burst dies away over this many frames.
_BURST_FRAMES = 2.0
# Movies of one session differ: spread of the logarithm of burst and creep.
_SPREAD = 0.3
# Critical dose at 300 kV, a q^b + c in e/A^2 (Grant and Grigorieff 2015), and its share at 200 kV.
_CRITICAL = (0.24499, -1.6649, 2.8141)
_CRITICAL_200KV = 0.8


def draw_drift_px(recipe: Recipe, rng: np.random.Generator) -> NDArray[np.float64]:
    """Global displacement `[F, 2]` (x, y): burst, then creep, with a random walk on top."""
    time = np.arange(recipe.n_frames)
    direction = rng.uniform(0, 2 * math.pi)
    turned = direction + rng.normal(0.0, math.radians(40.0))
    burst = recipe.burst_A * rng.lognormal(0.0, _SPREAD) * (1 - np.exp(-time / _BURST_FRAMES))
    creep = recipe.creep_A * rng.lognormal(0.0, _SPREAD) * time / max(1, recipe.n_frames - 1)
    walk = np.cumsum(rng.normal(0.0, recipe.walk_A, (recipe.n_frames, 2)), axis=0)
    path = (
        burst[:, None] * [math.cos(direction), math.sin(direction)]
        + creep[:, None] * [math.cos(turned), math.sin(turned)]
        + (walk - walk[0])
    )
    return path / recipe.pixel_size_A


def draw_local_coeff(recipe: Recipe, rng: np.random.Generator) -> NDArray[np.float64]:
    """Coefficients `[2, 18]` of a local field with the recipe's mean size at the last frame."""
    space = np.concatenate([np.zeros((2, 1)), rng.normal(size=(2, 5))], axis=1)
    last = max(1, recipe.n_frames - 1)
    # 1 - (1 - t)^3: most of the local movement happens early, as in real movies.
    in_time = np.array([3 / last, -3 / last**2, 1 / last**3])
    coeff = (space[:, :, None] * in_time).reshape(2, 18)
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 21), np.linspace(-0.5, 0.5, 21))
    size = np.hypot(*local_shift_px(coeff, last, x, y))
    wanted = recipe.local_motion_A / recipe.pixel_size_A
    return coeff * (wanted / math.sqrt(float(np.mean(size**2))))


def local_shift_px(
    coeff: NDArray[np.float64], frame: float, x: ArrayLike, y: ArrayLike
) -> NDArray[np.float64]:
    """Local displacement `[2, ...]` at x, y (each -0.5 to 0.5 over the image) in one frame."""
    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    space = np.stack([np.ones_like(x), x, x * x, y, y * y, x * y])
    weights = coeff.reshape(2, 6, 3) @ np.array([frame, frame**2, frame**3])
    return np.tensordot(weights, space, axes=1)


def displacements_px(
    drift_px: NDArray[np.float64],
    coeff: NDArray[np.float64],
    position_px: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Displacement `[n, F, 2]` of particles that start at `position_px` `[n, 2]` (x, y)."""
    ny, nx = shape
    x, y = position_px[:, 0] / nx - 0.5, position_px[:, 1] / ny - 0.5
    local = [local_shift_px(coeff, frame, x, y).T for frame in range(len(drift_px))]
    return drift_px[None] + np.stack(local, axis=1)


def damage(q: NDArray[np.floating], dose_e_A2: float, voltage_kV: float) -> NDArray[np.float32]:
    """Amplitude that is left at q (1/A) after a dose, exp(-N / (2 Nc(q)))."""
    scale, power, floor = _CRITICAL
    # At the origin the critical dose is infinite: nothing is lost.
    with np.errstate(divide="ignore"):
        critical = scale * np.power(np.asarray(q, np.float64), power) + floor
    share = 1.0 if voltage_kV == 300.0 else _CRITICAL_200KV
    return np.exp(-dose_e_A2 / (2.0 * share * critical)).astype(np.float32)
