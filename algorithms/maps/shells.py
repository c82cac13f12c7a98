"""Shells of a volume's transform.

Transforms are half spectra `[N, N, N/2+1]` of real volumes `[N, N, N]` (z, y, x), divided by
N^3, phase origin at voxel 0. A shell is round(|q|); those up to N/2 count. Sums run over the
stored half as it is: RELION's way, by which its curves are matched to the last digit.

Source: refinement.md section 7.
"""

from functools import lru_cache

import torch
from torch import Tensor


def to_fourier(volume: Tensor) -> Tensor:
    """Return the half spectrum `[N, N, N/2+1]` of a volume, divided by the number of voxels."""
    return torch.fft.rfftn(volume, dim=(-3, -2, -1), norm="forward")


def from_fourier(spectrum: Tensor, box: int) -> Tensor:
    """Undo `to_fourier`."""
    return torch.fft.irfftn(spectrum, s=(box, box, box), dim=(-3, -2, -1), norm="forward")


@lru_cache(maxsize=2)
def radii(box: int) -> Tensor:
    """Return |q| of each stored voxel, float32 `[N, N, N/2+1]`; not to be changed by callers."""
    whole = torch.fft.fftfreq(box, 1.0 / box)
    half = torch.arange(box // 2 + 1, dtype=whole.dtype)
    return torch.sqrt(whole[:, None, None] ** 2 + whole[None, :, None] ** 2 + half**2)


def sums(values: Tensor, box: int) -> Tensor:
    """Sum real values `[N, N, N/2+1]` over each shell 0 .. N/2: float64 `[N/2+1]`."""
    shell = torch.round(radii(box)).long().to(values.device).reshape(-1)
    count = box // 2 + 1
    total = torch.bincount(shell, weights=values.reshape(-1).double(), minlength=count)
    return total[:count]


def means(values: Tensor, box: int) -> Tensor:
    """Return the mean over each shell: float64 `[N/2+1]`."""
    return sums(values, box) / sums(torch.ones_like(values), box)


def curve_on(curve: Tensor, box: int, beyond: float = 0.0) -> Tensor:
    """Spread a curve `[N/2+1]` over the shells `[N, N, N/2+1]`; `beyond` the last one."""
    shell = torch.round(radii(box)).long().to(curve.device)
    padded = torch.cat([curve, curve.new_full((1,), beyond)])
    return padded[shell.clamp(max=len(curve))]


def raised_cosine(box: int, at: float, width: float) -> Tensor:
    """Return a low-pass filter: 1, then down to 0 over `width` shells around shell `at`.

    Parameters
    ----------
    box
        N.
    at
        Shell where it is one half.
    width
        Of the edge, shells.
    """
    inside = (radii(box) - (at - width / 2)) / max(width, 1e-9)
    return 0.5 + 0.5 * torch.cos(torch.pi * inside.clamp(0.0, 1.0))
