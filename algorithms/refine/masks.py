"""What is done to a reference in real space: solvent mask, soft edge of the box, centring.

Source: refinement.md sections 3.3 and 3.5.
"""

import torch
from torch import Tensor

from algorithms.refine.images import EDGE_PX, soft_mask

BOX_EDGE_PX = 3.0


def edge_masked(maps: Tensor) -> Tensor:
    """Return maps `[K, N, N]`, or in 3D, that fade into the mean of what is beyond radius N/2."""
    box, axes = maps.shape[-1], tuple(range(1, maps.ndim))
    outside = soft_mask(box, box / 2.0, BOX_EDGE_PX, len(axes)).to(maps)
    mean = (maps * outside).sum(axes, keepdim=True) / outside.sum()
    return maps + outside * (mean - maps)


def flattened(maps: Tensor, diameter_px: float) -> Tensor:
    """Return maps that fade to 0 beyond the particle."""
    inside = 1.0 - soft_mask(maps.shape[-1], diameter_px / 2.0, EDGE_PX, maps.ndim - 1)
    return maps * inside.to(maps)


def of_solvent(maps: Tensor, diameter_px: float, mask: Tensor | None) -> Tensor:
    """Return maps that are flat in the solvent: beyond a diameter, or as a mask says."""
    return flattened(maps, diameter_px) if mask is None else maps * mask.to(maps)


def centre_shifts(maps: Tensor, most_px: float) -> Tensor:
    """Return what moves the centre of mass of the positive pixels to the origin, px `[K, 2]`.

    Parameters
    ----------
    maps
        `[K, N, N]`, origin at pixel N/2.
    most_px
        A shift is cut to this length along each axis.
    """
    box = maps.shape[-1]
    axis = torch.arange(box, device=maps.device, dtype=torch.float64) - box // 2
    mass = maps.double().clamp(min=0.0)
    total = mass.sum((-2, -1)).clamp(min=1e-300)
    x = (mass.sum(-2) * axis).sum(-1) / total
    y = (mass.sum(-1) * axis).sum(-1) / total
    return -torch.stack([x, y], dim=1).clamp(-most_px, most_px)


def shifted(maps: Tensor, shifts_px: Tensor) -> Tensor:
    """Return maps moved by (x, y) px with linear interpolation; what comes in is 0."""
    box = maps.shape[-1]
    axis = torch.arange(box, device=maps.device, dtype=torch.float64)
    out = maps.double()
    for dim, part in ((-1, shifts_px[:, 0]), (-2, shifts_px[:, 1])):
        source = axis - part.double().to(maps.device)[:, None]
        low = torch.floor(source)
        high_weight = source - low
        moved = torch.zeros_like(out)
        for offset, weight in ((0, 1.0 - high_weight), (1, high_weight)):
            index = low.long() + offset
            there = (index >= 0) & (index < box)
            index = index.clamp(0, box - 1)
            weight = weight * there
            if dim == -1:
                taken = out.gather(-1, index[:, None, :].expand_as(out))
                moved += taken * weight[:, None, :]
            else:
                taken = out.gather(-2, index[:, :, None].expand_as(out))
                moved += taken * weight[:, :, None]
        out = moved
    return out.to(maps.dtype)
