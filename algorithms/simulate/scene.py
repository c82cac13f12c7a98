"""What lies in the field of view: particles, their poses and heights, and decoys.

Positions are in px of the image in MRC orientation, (0, 0) the centre of its first pixel, at the
first frame. Decoys are limited to ice crystals and ethane blobs: carbon edges, broken particles
and gold are not made.

Source: simulation.md sections 3.5 and 3.6.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from algorithms.simulate.recipe import Recipe
from algorithms.simulate.specimen import ice_potential_V

# Centres may lie this share of a diameter outside the image: some particles are cut.
EDGE_DIAMETERS = 0.25
# So many misses in a row mean that the field is full.
_MISSES = 2000
_PREFERRED_TILT_DEG = 12.0
_CRYSTAL_SPACING_A = 3.8
_SOFT_EDGE_A = 8.0

DECOY_KINDS = ("ice_crystal", "ethane")


@dataclass(frozen=True, kw_only=True)
class Decoy:
    """Something that is no particle: position in px, radius and thickness in A."""

    kind: str
    x_px: float
    y_px: float
    radius_A: float
    thickness_A: float
    angle_deg: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Contents of one movie; one entry per particle in every array."""

    position_px: NDArray[np.float64]
    """`[n, 2]` (x, y)."""
    height_A: NDArray[np.float64]
    slab: NDArray[np.int64]
    """Index of the slab that the particle is imaged with."""
    angles_deg: NDArray[np.float64]
    """`[n, 3]` (rot, tilt, psi)."""
    decoys: tuple[Decoy, ...]


def slab_offsets_A(recipe: Recipe) -> NDArray[np.float64]:
    """Defocus of every slab relative to the middle of the layer."""
    centres = (np.arange(recipe.n_slabs) + 0.5) / recipe.n_slabs - 0.5
    return centres * recipe.layer_height_A


def make_scene(recipe: Recipe, diameter_A: float, rng: np.random.Generator) -> Scene:
    """Draw the contents of one movie for particles of the diameter."""
    n_decoys = round(recipe.decoy_fraction * recipe.n_particles)
    diameter_px = diameter_A / recipe.pixel_size_A
    sites = poisson_disc(
        (recipe.ny, recipe.nx),
        recipe.n_particles + n_decoys,
        distance_px=recipe.spacing_diameters * diameter_px,
        edge_px=EDGE_DIAMETERS * diameter_px,
        rng=rng,
    )
    # A full field loses particles and decoys in proportion.
    n_decoys = round(len(sites) * n_decoys / max(1, recipe.n_particles + n_decoys))
    position = sites[n_decoys:]
    height = rng.uniform(-0.5, 0.5, len(position)) * recipe.layer_height_A
    slab = np.floor((height / max(recipe.layer_height_A, 1e-6) + 0.5) * recipe.n_slabs)
    return Scene(
        position_px=position,
        height_A=height,
        slab=np.clip(slab.astype(np.int64), 0, recipe.n_slabs - 1),
        angles_deg=draw_angles(len(position), recipe.preferred_fraction, rng),
        decoys=tuple(_draw_decoy(site, diameter_A, rng) for site in sites[:n_decoys]),
    )


def poisson_disc(
    shape: tuple[int, int],
    n_sites: int,
    *,
    distance_px: float,
    edge_px: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Random sites `[n, 2]` (x, y) no nearer to each other than `distance_px`.

    Sites may lie up to `edge_px` outside the image of `shape` (ny, nx). Fewer than `n_sites` come
    back when no room is found for more.
    """
    low = -edge_px
    high = np.array([shape[1] - 1 + edge_px, shape[0] - 1 + edge_px])
    sites = np.empty((n_sites, 2))
    found = misses = 0
    while found < n_sites and misses < _MISSES:
        candidate = rng.uniform(low, high)
        offsets = sites[:found] - candidate
        if np.all(np.hypot(offsets[:, 0], offsets[:, 1]) >= distance_px):
            sites[found] = candidate
            found, misses = found + 1, 0
        else:
            misses += 1
    return sites[:found]


def draw_angles(n: int, preferred_fraction: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Euler angles `[n, 3]` in degrees, uniform over all orientations but for the preferred."""
    rot, psi = rng.uniform(-180.0, 180.0, (2, n))
    tilt = np.degrees(np.arccos(rng.uniform(-1.0, 1.0, n)))
    flat = np.abs(rng.normal(0.0, _PREFERRED_TILT_DEG, n))
    tilt = np.where(rng.random(n) < preferred_fraction, flat, tilt)
    return np.column_stack([rot, tilt, psi])


def _draw_decoy(site: NDArray[np.float64], diameter_A: float, rng: np.random.Generator) -> Decoy:
    kind = DECOY_KINDS[int(rng.integers(len(DECOY_KINDS)))]
    radius = float(rng.uniform(0.25, 0.5)) * diameter_A
    share = rng.uniform(0.4, 0.8) if kind == "ice_crystal" else rng.uniform(0.6, 1.0)
    return Decoy(
        kind=kind,
        x_px=float(site[0]),
        y_px=float(site[1]),
        radius_A=radius,
        thickness_A=float(share * radius),
        angle_deg=float(rng.uniform(0.0, 60.0)),
    )


def draw_potential(
    decoy: Decoy, offset_px: tuple[float, float], box_px: int, pixel_size_A: float
) -> NDArray[np.float32]:
    """Projected potential in V A of a decoy, `[box, box]`, centred at box // 2 + offset (x, y)."""
    axis = np.arange(box_px) - box_px // 2
    x = (axis - offset_px[0])[None, :] * pixel_size_A
    y = (axis - offset_px[1])[:, None] * pixel_size_A
    if decoy.kind == "ethane":
        # A drop that wets: thickest in the middle, thin at the rim.
        shape = np.square(np.clip(1.0 - (x * x + y * y) / decoy.radius_A**2, 0.0, None))
        return (ice_potential_V() * decoy.thickness_A * shape).astype(np.float32)
    turns = [math.radians(decoy.angle_deg + step) for step in (0.0, 60.0, 120.0)]
    along = [x * math.cos(turn) + y * math.sin(turn) for turn in turns]
    edge = decoy.radius_A - np.maximum.reduce([np.abs(a) for a in along])
    plate = 1.0 / (1.0 + np.exp(-np.clip(edge / _SOFT_EDGE_A * 4.0, -50.0, 50.0)))
    fringes: NDArray[np.float64] | float = 0.0
    if _CRYSTAL_SPACING_A > 2.0 * pixel_size_A:
        waves = [np.cos(2 * math.pi * a / _CRYSTAL_SPACING_A) for a in along]
        fringes = 0.5 * np.sum(waves, axis=0)
    return (ice_potential_V() * decoy.thickness_A * plate * (1.0 + fringes)).astype(np.float32)
