"""Preparing an amplitude spectrum, and CTFFIND's score of a fit to it.

Source: preprocessing.md sections 3.2 to 3.4.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from algorithms import fourier
from algorithms.ctf import Ctf, value
from algorithms.ctffit.types import CtfFitOptions

_CROSS_PX = 12
_SCORE_CROSS_PX = 10
_SOFT_MASK_A = (8.0, 4.0)


def spectrum_of_image(
    image: Tensor, pixel_size_A: float, size: int = 512, target_pixel_A: float = 1.4
) -> tuple[Tensor, float]:
    """Centred amplitudes `[size, size]` of a micrograph `[ny, nx]`, and their pixel size in A."""
    shape = (int(image.shape[-2]), int(image.shape[-1]))
    amplitudes = fourier.rfft2(image.float() - image.float().mean()).abs()
    amplitudes[0, 0] = 0.0
    new_pixel = max(pixel_size_A, target_pixel_A)
    plane = fourier.zoom_spectrum(amplitudes, shape, pixel_size_A, size, new_pixel)
    return plane, new_pixel


def subtract_background(spectrum: Tensor, pixel_size_A: float, options: CtfFitOptions) -> Tensor:
    """Spectrum `[n, n]` less its box average, in units of its deviation, spikes capped."""
    size = spectrum.shape[-1]
    x, y, r = pixel_radius(size, spectrum.device)
    r_min = size * pixel_size_A / options.min_resolution_A
    outside = (r > r_min) & (x.abs() > _CROSS_PX) & (y.abs() > _CROSS_PX)
    mean, deviation = spectrum[outside].mean(), spectrum[outside].std()
    scaled = spectrum / deviation.clamp(min=1e-30)
    cap = mean / deviation.clamp(min=1e-30) + 10.0
    axes = (x == 0) | (y == 0)
    scaled = torch.where(axes, scaled.clamp(max=cap), scaled)
    width = int(math.sqrt(2.0) * r_min) // 2 * 2 + 1
    valid = ((x.abs() > 1) & (y.abs() > 1)).float()
    average = _box(scaled * valid, width) / _box(valid, width).clamp(min=1e-12)
    flat = torch.where(r <= r_min, 0.0, scaled - average)
    half = size // 2
    inner = (x.abs() >= 3) & (y.abs() >= 3) & (x.abs() < half - 3) & (y.abs() < half - 3)
    return flat.clamp(max=flat[inner].max())


def _box(image: Tensor, width: int) -> Tensor:
    """Periodic average over `width` x `width` px, one axis after the other."""
    half = width // 2
    wrapped = pad(image[None, None], (half, half, half, half), mode="circular")
    rows = avg_pool2d(wrapped, (1, width), stride=1)
    return avg_pool2d(rows, (width, 1), stride=1)[0, 0]


def pixel_radius(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(x `[1, n]`, y `[n, 1]`, radius `[n, n]`) in px from the origin of a centred plane."""
    x, y = fourier.centred_frequencies(size, 1.0 / size, device=device)
    return x, y, torch.sqrt(x * x + y * y)


def figure_of_merit(
    flat: Tensor, pixel_size_A: float, optics: Ctf, options: CtfFitOptions
) -> float:
    """CTFFIND's score: correlation with |CTF|, strong low-resolution rings weighted down.

    `flat` is the background-subtracted spectrum `[n, n]`.
    """
    size = flat.shape[-1]
    x, y, r = pixel_radius(size, flat.device)
    reach = size * pixel_size_A
    centre, width = (reach / max(options.max_resolution_A, limit) for limit in _SOFT_MASK_A)
    ramp = ((r - centre) / width + 0.5).clamp(0.0, 1.0)
    masked = flat * (0.5 - 0.5 * torch.cos(math.pi * ramp))
    keep = (x < -_SCORE_CROSS_PX) & (y.abs() > _SCORE_CROSS_PX)
    keep = keep & (r > reach / options.min_resolution_A) & (r < reach / options.max_resolution_A)
    sx, sy = x / reach, y / reach
    model = value(optics, sx, sy).abs()[keep]
    pair = torch.stack([masked[keep], model])
    penalty = 0.0
    if options.astigmatism_tolerance_A > 0.0:
        difference = optics.defocus_u_A - optics.defocus_v_A
        penalty = difference**2 / (2.0 * options.astigmatism_tolerance_A**2 * model.numel())
    return float(torch.nan_to_num(torch.corrcoef(pair.double())[0, 1])) - penalty
