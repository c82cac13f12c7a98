"""Coordinates of the pixels of a centred plane, computed once per size."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from algorithms import fourier

CENTRE_PX = 5


@dataclass(frozen=True, eq=False)
class Plane:
    """x `[1, n]`, y `[n, 1]` and radius `[n, n]` in px from the origin of a centred plane."""

    x: Tensor
    y: Tensor
    r: Tensor


@dataclass(frozen=True, eq=False)
class HalfPlane:
    """Pixels of one half plane off the centre and the axes: the rest repeats or disturbs.

    Parameters
    ----------
    pixels
        Places in the plane read row by row, `[k]`.
    r2, r2_cos, r2_sin
        Square of the radius, and that times cos and sin of twice the azimuth, px^2, float64 `[k]`.
    """

    pixels: Tensor
    r2: Tensor
    r2_cos: Tensor
    r2_sin: Tensor


def mean_of(image: Tensor) -> Tensor:
    """Mean of an image `[ny, nx]`, summed row by row: the same for any number of threads."""
    return image.mean(1, dtype=torch.float64).mean().float()


@lru_cache(maxsize=8)
def plane(size: int, device: torch.device) -> Plane:
    """Coordinates of a plane `[size, size]`."""
    x, y = fourier.centred_frequencies(size, 1.0 / size, device=device)
    return Plane(x, y, torch.sqrt(x * x + y * y))


@lru_cache(maxsize=4)
def half_plane(size: int) -> HalfPlane:
    """Pixels of the half plane x < 0 on the host."""
    whole = plane(size, torch.device("cpu"))
    keep = (whole.r >= CENTRE_PX) & (whole.x < 0) & (whole.y != 0)
    iy, ix = torch.nonzero(keep, as_tuple=True)
    x, y = whole.x[0, ix].double(), whole.y[iy, 0].double()
    return HalfPlane(iy * size + ix, x * x + y * y, x * x - y * y, 2.0 * x * y)
