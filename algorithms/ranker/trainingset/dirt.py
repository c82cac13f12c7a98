"""What is no molecule: ice crystals, drops, sharp spots, edges of carbon or foil, gradients.

Images are `[canvas, canvas]`, origin at pixel canvas // 2, dense is bright, in units of the
deviation of the target inside its mask. Source: class-ranker.md section 9.2.
"""

import math

import numpy as np

from algorithms.simulate.scene import Decoy, draw_potential


def ice(rng: np.random.Generator, canvas: int, diameter_px: float, second: bool) -> np.ndarray:
    """Return contamination 5 to 50 times as strong as a particle.

    Parameters
    ----------
    rng
        What it is drawn from.
    canvas
        Side, px.
    diameter_px
        Of the target.
    second
        The second simulator: grains and needles, which the first never shows, instead of its spots,
        rims, drops and plates.
    """
    strength = 5.0 * 10.0 ** rng.uniform(0.0, 1.0)
    kind = 4 + rng.choice(2) if second else rng.choice(4)
    drawn = {0: _spots, 1: _ring, 4: _grains, 5: _needles}
    if kind in drawn:
        image = drawn[int(kind)](rng, canvas, diameter_px)
    else:
        decoy = Decoy(
            kind="ethane" if kind == 2 else "ice_crystal",
            x_px=0.0,
            y_px=0.0,
            radius_A=float(rng.uniform(0.15, 0.6)) * diameter_px,
            thickness_A=1.0,
            angle_deg=float(rng.uniform(0.0, 60.0)),
        )
        x, y = rng.normal(0.0, 0.2 * diameter_px, 2)
        # Lengths are in px here: a plate's edge is soft over few of them.
        image = draw_potential(decoy, (float(x), float(y)), canvas, 1.0)
    peak = float(np.abs(image).max())
    return (image * (strength / peak) if peak > 0.0 else image).astype(np.float32)


def _axes(canvas: int) -> tuple[np.ndarray, np.ndarray]:
    axis = np.arange(canvas) - canvas // 2
    return axis[None, :].astype(np.float64), axis[:, None].astype(np.float64)


def _spots(rng: np.random.Generator, canvas: int, diameter_px: float) -> np.ndarray:
    """Return some sharp, bright blobs."""
    x, y = _axes(canvas)
    image = np.zeros((canvas, canvas))
    for _ in range(int(rng.integers(1, 7))):
        at = rng.normal(0.0, 0.25 * diameter_px, 2)
        width = rng.uniform(0.025, 0.12) * diameter_px
        power = -0.5 * ((x - at[0]) ** 2 + (y - at[1]) ** 2) / width**2
        image += rng.uniform(0.4, 1.0) * np.exp(power)
    return image


def _ring(rng: np.random.Generator, canvas: int, diameter_px: float) -> np.ndarray:
    """Return a hexagonal rim, as crystals that formed in the vapour have."""
    x, y = _axes(canvas)
    at = rng.normal(0.0, 0.15 * diameter_px, 2)
    turn = rng.uniform(0.0, math.pi / 3.0) + np.radians((0.0, 60.0, 120.0))
    along = [np.abs((x - at[0]) * math.cos(t) + (y - at[1]) * math.sin(t)) for t in turn]
    edge = np.maximum.reduce(along) - rng.uniform(0.2, 0.55) * diameter_px
    rim = np.exp(-0.5 * (edge / (0.05 * diameter_px)) ** 2)
    return rim + 0.35 * (edge < 0.0)


def _grains(rng: np.random.Generator, canvas: int, diameter_px: float) -> np.ndarray:
    """Return a patch of grains of unequal thickness that meet in straight lines."""
    x, y = _axes(canvas)
    at = rng.normal(0.0, 0.3 * diameter_px, (int(rng.integers(4, 13)), 2))
    level = rng.uniform(0.1, 1.0, len(at))
    nearest = ((x[..., None] - at[:, 0]) ** 2 + (y[..., None] - at[:, 1]) ** 2).argmin(-1)
    reach = np.hypot(x - at[0, 0], y - at[0, 1]) / diameter_px
    return level[nearest] / (1.0 + np.exp((reach - rng.uniform(0.25, 0.6)) / 0.06))


def _needles(rng: np.random.Generator, canvas: int, diameter_px: float) -> np.ndarray:
    """Return some thin straight needles that grow from about one place."""
    x, y = _axes(canvas)
    at, image = rng.normal(0.0, 0.2 * diameter_px, 2), np.zeros((canvas, canvas))
    for turn in rng.uniform(0.0, 2.0 * math.pi, int(rng.integers(1, 5))):
        along = (x - at[0]) * math.cos(turn) + (y - at[1]) * math.sin(turn)
        across = (y - at[1]) * math.cos(turn) - (x - at[0]) * math.sin(turn)
        length, width = rng.uniform(0.4, 1.2) * diameter_px, rng.uniform(0.02, 0.07) * diameter_px
        ends = np.exp(-(((along / length - 0.5) / 0.5) ** 8))
        image += rng.uniform(0.5, 1.0) * ends * np.exp(-0.5 * (across / width) ** 2)
    return image


def edge(rng: np.random.Generator, canvas: int, diameter_px: float) -> np.ndarray:
    """Return the edge of a carbon film or a foil with its grain, or a gradient of thickness."""
    x, y = _axes(canvas)
    turn = rng.uniform(0.0, 2.0 * math.pi)
    across = x * math.cos(turn) + y * math.sin(turn)
    strength = 4.0 * 10.0 ** rng.uniform(0.0, 0.9)
    along = y * math.cos(turn) - x * math.sin(turn)
    bent = across - along**2 / (rng.uniform(6.0, 40.0) * diameter_px)
    at = rng.normal(0.0, 0.25) * diameter_px
    width = rng.uniform(0.02, 0.08) if rng.random() < 0.8 else rng.uniform(0.2, 0.6)
    film = 0.5 * (1.0 + np.tanh((bent - at) / (width * diameter_px)))
    grain = rng.standard_normal((canvas, canvas)) * rng.uniform(0.5, 3.0)
    rim = rng.uniform(0.0, 0.8) * np.exp(-0.5 * ((bent - at) / (0.06 * diameter_px)) ** 2)
    return (film * (strength + grain) + strength * rim).astype(np.float32)
