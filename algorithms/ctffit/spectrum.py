"""Preparing an amplitude spectrum, and CTFFIND's score of a fit to it.

Source: preprocessing.md sections 3.2 to 3.4.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from algorithms import fourier
from algorithms.ctf import Ctf, value
from algorithms.ctffit.plane import mean_of, plane
from algorithms.ctffit.types import CtfFitOptions

_CROSS_PX = 12
_SCORE_CROSS_PX = 10
_SOFT_MASK_A = (8.0, 4.0)


def spectrum_of_image(
    image: Tensor, pixel_size_A: float, size: int = 512, target_pixel_A: float = 1.4
) -> tuple[Tensor, float]:
    """Centred amplitudes `[size, size]` of a micrograph `[ny, nx]`, and their pixel size in A."""
    shape = (int(image.shape[-2]), int(image.shape[-1]))
    amplitudes = fourier.rfft2(image.float() - mean_of(image)).abs()
    amplitudes[0, 0] = 0.0
    new_pixel = max(pixel_size_A, target_pixel_A)
    centred = fourier.zoom_spectrum(amplitudes, shape, pixel_size_A, size, new_pixel)
    return centred, new_pixel


@dataclass(frozen=True, eq=False)
class _Window:
    """What the background of a size needs: where to measure, and pixels in each box."""

    outside: Tensor
    valid: Tensor
    centre: Tensor
    count: Tensor
    width: int


@lru_cache(maxsize=4)
def _window(size: int, r_min: float, device: torch.device) -> _Window:
    here = plane(size, device)
    outside = (here.r > r_min) & (here.x.abs() > _CROSS_PX) & (here.y.abs() > _CROSS_PX)
    valid = ((here.x.abs() > 1) & (here.y.abs() > 1)).float()
    width = int(math.sqrt(2.0) * r_min) // 2 * 2 + 1
    count = _box_sum(valid, width).clamp(min=0.5)
    return _Window(outside, valid, here.r <= r_min, count, width)


def subtract_background(spectrum: Tensor, pixel_size_A: float, options: CtfFitOptions) -> Tensor:
    """Spectrum `[n, n]` less its box average, in units of its deviation, spikes capped."""
    size = spectrum.shape[-1]
    r_min = size * pixel_size_A / options.min_resolution_A
    window = _window(size, r_min, spectrum.device)
    deviation, mean = torch.std_mean(spectrum[window.outside])
    deviation = deviation.clamp(min=1e-30)
    scaled = spectrum / deviation
    cap = float(mean / deviation) + 10.0
    half = size // 2
    scaled[half].clamp_(max=cap)
    scaled[:, half].clamp_(max=cap)
    average = _box_sum(scaled * window.valid, window.width) / window.count
    flat = scaled.sub_(average).masked_fill_(window.centre, 0.0)
    inner = slice(4, half - 2), slice(half + 3, size - 3)
    return flat.clamp_(max=max(float(flat[a, b].max()) for a in inner for b in inner))


def _box_sum(image: Tensor, width: int) -> Tensor:
    """Periodic sum over `width` x `width` px: differences of running sums, along each axis.

    The running sums are double: differences of single ones would lose the last digits.
    """
    half = width // 2
    for axis in (0, 1):
        size = image.shape[axis]
        order = torch.arange(-half - 1, size + half, device=image.device) % size
        running = image.index_select(axis, order).cumsum(axis, dtype=torch.float64)
        image = running.narrow(axis, width, size) - running.narrow(axis, 0, size)
    return image.float()


@dataclass(frozen=True, eq=False)
class _ScoredPixels:
    """Places of the pixels that the score looks at, frequencies in 1/A, soft mask; `[k]` each."""

    pixels: Tensor
    sx: Tensor
    sy: Tensor
    mask: Tensor


@lru_cache(maxsize=4)
def _scored(
    size: int, pixel_size_A: float, band_A: tuple[float, float], device: torch.device
) -> _ScoredPixels:
    here = plane(size, device)
    reach = size * pixel_size_A
    keep = (here.x < -_SCORE_CROSS_PX) & (here.y.abs() > _SCORE_CROSS_PX)
    keep = keep & (here.r > reach / band_A[0]) & (here.r < reach / band_A[1])
    iy, ix = torch.nonzero(keep, as_tuple=True)
    centre, width = (reach / max(band_A[1], limit) for limit in _SOFT_MASK_A)
    ramp = ((here.r[iy, ix] - centre) / width + 0.5).clamp(0.0, 1.0)
    mask = 0.5 - 0.5 * torch.cos(math.pi * ramp)
    return _ScoredPixels(iy * size + ix, here.x[0, ix] / reach, here.y[iy, 0] / reach, mask)


def figure_of_merit(
    flat: Tensor, pixel_size_A: float, optics: Ctf, options: CtfFitOptions
) -> float:
    """CTFFIND's score: correlation with |CTF|, strong low-resolution rings weighted down.

    `flat` is the background-subtracted spectrum `[n, n]`.
    """
    band = (options.min_resolution_A, options.max_resolution_A)
    scored = _scored(flat.shape[-1], pixel_size_A, band, flat.device)
    masked = flat.reshape(-1)[scored.pixels] * scored.mask
    model = value(optics, scored.sx, scored.sy).abs()
    pair = torch.stack([masked, model]).double()
    penalty = 0.0
    if options.astigmatism_tolerance_A > 0.0:
        difference = optics.defocus_u_A - optics.defocus_v_A
        penalty = difference**2 / (2.0 * options.astigmatism_tolerance_A**2 * model.numel())
    return float(torch.nan_to_num(torch.corrcoef(pair)[0, 1])) - penalty
