"""A low-pass filter for volumes.

Source: refinement.md section 2.6.
"""

import math

import torch
from torch import Tensor

FILTER_SHELLS = 2.0  # width of the soft edge


def low_passed(maps: Tensor, pixel_A: float, resolution_A: float) -> Tensor:
    """Return volumes `[K, N, N, N]` without what is finer than a resolution, float64.

    The edge is a raised cosine two shells wide, 1/2 at the resolution.
    """
    box = maps.shape[-1]
    full = torch.fft.fftfreq(box, 1.0 / box, dtype=torch.float64, device=maps.device)
    half = torch.fft.rfftfreq(box, 1.0 / box, dtype=torch.float64, device=maps.device)
    r = torch.sqrt(full[:, None, None] ** 2 + full[:, None] ** 2 + half**2)
    share = gain(r, box * pixel_A / resolution_A)
    spectra = torch.fft.rfftn(maps.double(), dim=(-3, -2, -1)) * share
    return torch.fft.irfftn(spectra, s=(box, box, box), dim=(-3, -2, -1))


def gain(shells: Tensor, middle: float) -> Tensor:
    """Return what the filter leaves of each of some shells (any shape)."""
    low, high = middle - FILTER_SHELLS / 2.0, middle + FILTER_SHELLS / 2.0
    ramp = 0.5 - 0.5 * torch.cos(math.pi * (high - shells) / FILTER_SHELLS)
    return torch.where(shells < low, 1.0, torch.where(shells > high, 0.0, ramp))
