"""Point groups: names, operators, and directions of one asymmetric unit.

A volume V has the symmetry when V(R x) = V(x) for every operator R. An orientation A and A R
then give the same image.

Source: refinement.md sections 2.4 and 3.1 (axes of RELION's settings of each group).
"""

import math
import re
from functools import lru_cache

import torch
from torch import Tensor

from algorithms.orientation import euler, healpix

# Fold and axis (x, y, z) of the generators; the axes need not be of length 1.
_FIXED: dict[str, tuple[tuple[int, tuple[float, float, float]], ...]] = {
    "T": ((3, (0.0, 0.0, 1.0)), (2, (0.0, 0.816496, 0.577350))),
    "O": ((3, (1.0, 1.0, 1.0)), (4, (0.0, 0.0, 1.0))),
    "I1": (
        (2, (1.0, 0.0, 0.0)),
        (5, (0.850650807, 0.0, -0.525731114)),
        (3, (0.934172364, 0.356822077, 0.0)),
    ),
    "I2": (
        (2, (0.0, 0.0, 1.0)),
        (5, (0.525731114, 0.0, 0.850650807)),
        (3, (0.0, 0.356822076, 0.934172364)),
    ),
    "I3": (
        (2, (-0.525731114, 0.0, 0.850650807)),
        (5, (0.0, 0.0, 1.0)),
        (3, (-0.491123478, 0.356822076, 0.794654475)),
    ),
    "I4": (
        (2, (0.525731114, 0.0, 0.850650807)),
        (5, (0.894427193, 0.0, 0.447213591)),
        (3, (0.491123478, 0.356822076, 0.794654475)),
    ),
}
_SIZES = {"T": 12, "O": 24, "I1": 60, "I2": 60, "I3": 60, "I4": 60}
MAX_FOLD = 99
# Where the asymmetric unit is centred: in no mirror plane of any of the groups.
_INSIDE = torch.tensor([0.2887, 0.1213, 0.9497], dtype=torch.float64)
# Mates this near to a kept direction say nothing new; only few directions are worth the look.
_FEW = 4000


class SymmetryError(ValueError):
    """There is no such point group."""


def normalised(name: str) -> str:
    """Return RELION's name of a group: C1, C7, D2, T, O, I1 to I4; I is I2.

    Raises
    ------
    SymmetryError
        There is no such group, or it has mirrors: molecules are handed.
    """
    upper = name.strip().upper()
    upper = "I2" if upper == "I" else upper
    if upper in _FIXED:
        return upper
    match = re.fullmatch(r"([CD])([1-9]\d?)", upper)
    if match is None:
        raise SymmetryError(
            f"{name!r} is no point group of a molecule; known are C1 to C{MAX_FOLD}, D1 to "
            f"D{MAX_FOLD}, T, O, and I or I1 to I4"
        )
    return upper


@lru_cache(maxsize=32)
def operators(name: str) -> Tensor:
    """Return the rotations of a group, float64 `[s, 3, 3]`, the identity first.

    Raises
    ------
    SymmetryError
        There is no such group.
    """
    group = normalised(name)
    size = _SIZES.get(group) or int(group[1:]) * (2 if group[0] == "D" else 1)
    found = torch.eye(3, dtype=torch.float64)[None]
    generators = [_rotation(fold, axis) for fold, axis in _generators(group)]
    grown = True
    while grown:
        grown = False
        for generator in generators:
            for candidate in found @ generator:
                if not bool((candidate - found).abs().amax((1, 2)).lt(1e-3).any()):
                    found, grown = torch.cat([found, candidate[None]]), True
    if len(found) != size:
        raise SymmetryError(f"{group} was closed to {len(found)} operators instead of {size}")
    return found


def order(name: str) -> int:
    """Return the number of operators of a group."""
    return len(operators(name))


def unit_directions(healpix_order: int, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the HEALPix directions of one asymmetric unit.

    Of each set of mates the one nearest to a point inside the unit is kept. Of few directions
    (below 4,000) those are left out as well that lie within half a pixel radius of a mate of a
    kept one.

    Parameters
    ----------
    healpix_order
        Of the grid.
    name
        Point group.

    Returns
    -------
    tuple
        Numbers of the pixels `[d]`, rot and tilt in degrees `[d]`.
    """
    rot, tilt = healpix.pixels(healpix_order)
    group = operators(name)
    everything = torch.arange(len(rot))
    if len(group) == 1:
        return everything, rot, tilt
    vectors = euler.directions(rot, tilt)
    mates = torch.einsum("sij,dj->sdi", group, vectors)
    near = mates @ (_INSIDE / _INSIDE.norm())
    keep = everything[near[0] >= near.amax(0) - 1e-9]
    if len(rot) < _FEW:
        keep = _apart(keep, vectors, mates, healpix.step_deg(healpix_order) / 4.0)
    return keep, rot[keep], tilt[keep]


def _apart(keep: Tensor, vectors: Tensor, mates: Tensor, least_deg: float) -> Tensor:
    """Leave out directions that are nearly mates of one that is kept."""
    limit = math.cos(math.radians(least_deg))
    nearly = (torch.einsum("di,sei->sde", vectors[keep], mates[1:, keep]) > limit).any(0)
    kept: list[int] = []
    for row in range(len(keep)):
        if not bool(nearly[row, kept].any()):
            kept.append(row)
    return keep[kept]


def _generators(group: str) -> tuple[tuple[int, tuple[float, float, float]], ...]:
    if group in _FIXED:
        return _FIXED[group]
    about_z = (int(group[1:]), (0.0, 0.0, 1.0))
    return (about_z,) if group[0] == "C" else (about_z, (2, (1.0, 0.0, 0.0)))


def _rotation(fold: int, axis: tuple[float, float, float]) -> Tensor:
    """Return the rotation by 360/fold degrees about an axis (Rodrigues)."""
    u = torch.tensor(axis, dtype=torch.float64)
    x, y, z = (u / u.norm()).tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    angle = 2.0 * math.pi / fold
    turned = math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)
    return torch.eye(3, dtype=torch.float64) + turned
