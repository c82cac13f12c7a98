"""The low-resolution frames that an alignment works on.

Frames are averaged over blocks of a few px: within the band as good as a full transform, and many
times cheaper. Whole frames and patches of them are then transformed at that size.

Source: preprocessing.md sections 2.4 and 8.4.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms import fourier
from algorithms.motion.memory import large_empty
from algorithms.motion.threads import Threads

# The band ends where the Gaussian filter of the first rounds has fallen to this.
_FILTER_FLOOR = 1e-3
# No alignment signal is expected beyond this frequency (cycles per unbinned px) or resolution.
_MAX_FREQUENCY = 0.25
_MAX_RESOLUTION_A = 5.0


@dataclass(frozen=True, kw_only=True)
class Band:
    """The sampling of one alignment.

    Parameters
    ----------
    binning
        Edge in px of the blocks that were averaged.
    binned, size
        Shape (ny, nx) of the averaged image, and of the maps that its cropped spectrum makes.
    scale
        Unbinned px per px of the maps, (x, y).
    k
        `[ny, nx//2+1]` frequency in cycles per unbinned px.
    inside
        1 where the band reaches, 0 outside and at the origin.
    weight
        Gaussian filter exp(-2 B k^2) inside the band.
    sharpen
        Inverse of the attenuation by the block average.
    """

    binning: int
    binned: fourier.Shape
    size: fourier.Shape
    scale: tuple[float, float]
    k: Tensor
    inside: Tensor
    weight: Tensor
    sharpen: Tensor


def highest_frequency(pixel_size_A: float, bfactor_px2: float) -> float:
    """End of the band in cycles per unbinned px."""
    floor = math.sqrt(-math.log(_FILTER_FLOOR) / (2.0 * bfactor_px2))
    return min(floor, _MAX_FREQUENCY, pixel_size_A / _MAX_RESOLUTION_A)


def block_size(shape: fourier.Shape, k_max: float) -> int:
    """Edge of the blocks for frames of `shape`: half a period of `k_max` or less, 1 at least."""
    return max(1, min(int(0.5 / k_max), min(shape) // 16))


def plan_band(
    binned: fourier.Shape, binning: int, k_max: float, bfactor_px2: float, device: str = "cpu"
) -> Band:
    """Return the sampling of images `binned` (ny, nx) that are averages over `binning` px."""
    used = (binned[0] * binning, binned[1] * binning)
    wanted = [fourier.fast_size(math.ceil(2.0 * k_max * n)) for n in used]
    size = (min(wanted[0], binned[0]), min(wanted[1], binned[1]))
    ky, kx = fourier.frequencies(binned, binning, device=device)
    average = _block_average(ky, binning) * _block_average(kx, binning)
    k2 = fourier.crop_rfft(ky * ky + kx * kx, binned, size)
    inside = (k2 <= k_max * k_max).to(torch.float32)
    inside[0, 0] = 0.0
    return Band(
        binning=binning,
        binned=binned,
        size=size,
        scale=(used[1] / size[1], used[0] / size[0]),
        k=torch.sqrt(k2),
        inside=inside,
        weight=torch.exp(-2.0 * bfactor_px2 * k2) * inside,
        sharpen=inside * fourier.crop_rfft(1.0 / average, binned, size),
    )


def _block_average(k: Tensor, binning: int) -> Tensor:
    """Transfer of an average over `binning` px at frequency k in cycles per px."""
    return torch.special.sinc(k * binning) / torch.special.sinc(k)


def band_spectrum(image: Tensor, band: Band) -> Tensor:
    """Cropped half spectrum complex64 of averaged images float32 `[..., *band.binned]`."""
    return fourier.crop_rfft(fourier.rfft2(image), band.binned, band.size).mul_(band.sharpen)


def band_spectra(images: Tensor, band: Band, threads: Threads) -> Tensor:
    """The same of `[n, *band.binned]`, image by image."""
    half = (band.size[0], band.size[1] // 2 + 1)
    out = large_empty((len(images), *half), torch.complex64, images.device)

    def transform(i: int) -> None:
        out[i] = band_spectrum(images[i], band)

    threads.map(transform, range(len(images)))
    return out
