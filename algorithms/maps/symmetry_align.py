"""Lays a map along the axes of a point group and averages it over the group.

Source: refinement.md section 6. The group's place is found by `symmetry_search.fit` instead of by
random orientations; the map is read once, so the average blurs no more than one interpolation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.maps import shells, symmetry_search
from algorithms.maps.selfrotation import SelfRotation
from algorithms.orientation import symmetry

FINER = 2  # times, before the map is read linearly between voxels
BATCH = 2**22  # points at once


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """A map along the axes of a group.

    Parameters
    ----------
    volume
        `[N, N, N]`, averaged over the group if that was asked for.
    rotation, centre_A
        The map now at x was at rotation x + centre (x, y, z from the middle of the box).
    worst
        Correlation of the map with itself after the operator that fits worst.
    """

    volume: Tensor
    rotation: Tensor
    centre_A: Tensor
    worst: float


def aligned(
    volume: Tensor,
    pixel_A: float,
    group: str,
    map_: SelfRotation,
    *,
    average: bool = True,
    keep_centre: bool = False,
) -> Aligned:
    """Turn and move a map so that a group's axes are where RELION has them.

    Parameters
    ----------
    volume
        `[N, N, N]` (z, y, x).
    pixel_A
        Edge of a voxel.
    group
        Its name; C1 changes nothing.
    map_
        The same map, prepared with its shape.
    average
        Apply the symmetry.
    keep_centre
        The axes go through the middle of the box already.

    Raises
    ------
    SymmetryError
        There is no such group.
    """
    operators = symmetry.operators(group)
    if len(operators) == 1:
        return Aligned(
            volume=volume,
            rotation=torch.eye(3, dtype=torch.float64),
            centre_A=torch.zeros(3, dtype=torch.float64),
            worst=1.0,
        )
    fit = symmetry_search.fit(map_, group, move=not keep_centre)
    turned = fit.rotation @ (operators if average else operators[:1])
    return Aligned(
        volume=mean_of_views(volume, turned, fit.centre_A / pixel_A),
        rotation=fit.rotation,
        centre_A=fit.centre_A,
        worst=fit.worst,
    )


def mean_of_views(volume: Tensor, rotations: Tensor, centre_px: Tensor) -> Tensor:
    """Return the mean of V(R x + c) over rotations R.

    Parameters
    ----------
    volume
        `[N, N, N]`.
    rotations
        `[r, 3, 3]`.
    centre_px
        c: (x, y, z) from the middle of the box.
    """
    size = volume.shape[-1]
    fine = _finer(volume, size * FINER)[None, None]
    axis = torch.arange(size, dtype=volume.dtype, device=volume.device) - size // 2
    rotations, centre = rotations.to(volume), centre_px.to(volume)
    scale = 2.0 * FINER / (size * FINER - 1)
    middle = scale * (size // 2) - 1.0
    out = torch.zeros_like(volume)
    for planes in torch.arange(size).split(max(1, BATCH // size**2)):
        z, y, x = torch.meshgrid(axis[planes], axis, axis, indexing="ij")
        points = torch.stack([x, y, z], dim=-1)
        for rotation in rotations:
            unit = (points @ rotation.T + centre) * scale + middle
            out[planes] += torch.nn.functional.grid_sample(fine, unit[None], align_corners=True)[
                0, 0
            ]
    return out / len(rotations)


def _finer(volume: Tensor, size: int) -> Tensor:
    """Return a map on a finer grid of the same edge."""
    spectrum, old = shells.to_fourier(volume), volume.shape[-1]
    half = old // 2
    out = spectrum.new_zeros((size, size, size // 2 + 1))
    ends = (slice(0, half), slice(-half, None))
    for z in ends:
        for y in ends:
            out[z, y, :half] = spectrum[z, y, :half]
    return shells.from_fourier(out, size)
