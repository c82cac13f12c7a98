"""Alignment of a stack of frames as a whole, on small low-resolution spectra.

Every frame is correlated with the sum of all the others under a Gaussian low-pass filter, moved
to the peak, and again, until the moves are small.

Source: preprocessing.md section 2.4.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from algorithms import fourier

# The maps reach to half the frequency where exp(-2 B k^2) has fallen to this.
_FILTER_FLOOR = 1e-8
# No alignment signal is expected beyond this frequency (cycles per unbinned px) or resolution.
_MAX_FREQUENCY = 0.25
_MAX_RESOLUTION_A = 5.0
# Elements of one batch of correlation maps: bounds memory, and keeps CPU caches warm.
_BATCH_ELEMENTS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Band:
    """The low-resolution sampling an alignment works on.

    Parameters
    ----------
    binning
        Frames are averaged over blocks of this many px before the transform: as good as a full
        transform within the band, and several times cheaper.
    binned, size
        Shape (ny, nx) after averaging and of the correlation maps.
    scale
        Unbinned px per px of the correlation maps, (x, y).
    weight
        `[ny, nx//2+1]` filter exp(-2 B k^2), zero at the origin.
    sharpen
        `[ny, nx//2+1]` inverse of the attenuation by the block average.
    """

    binning: int
    binned: fourier.Shape
    size: fourier.Shape
    scale: tuple[float, float]
    weight: Tensor
    sharpen: Tensor


@dataclass(frozen=True, kw_only=True)
class Track:
    """Shifts `[n, 2]` (x, y) in unbinned px to apply to each frame, zero in the first."""

    shifts_px: np.ndarray
    converged: bool
    iterations: int


def plan_band(
    shape: fourier.Shape, pixel_size_A: float, bfactor_px2: float, device: str = "cpu"
) -> Band:
    """Choose the sampling for frames of `shape` (ny, nx) and make its filter."""
    floor = 0.5 * math.sqrt(-math.log(_FILTER_FLOOR) / (2.0 * bfactor_px2))
    k_max = min(floor, _MAX_FREQUENCY, pixel_size_A / _MAX_RESOLUTION_A)
    wanted = [fourier.fast_size(int(2.0 * k_max * n)) for n in shape]
    binning = max(1, min(n // w for n, w in zip(shape, wanted, strict=True)))
    binned = (shape[0] // binning, shape[1] // binning)
    size = (min(wanted[0], binned[0]), min(wanted[1], binned[1]))
    used = (binned[0] * binning, binned[1] * binning)
    ky, kx = fourier.frequencies(binned, binning, device=device)
    sharpen = fourier.crop_rfft(
        (1.0 / (_block_average(ky, binning) * _block_average(kx, binning))), binned, size
    )
    k2 = fourier.crop_rfft(ky * ky + kx * kx, binned, size)
    weight = torch.exp(-2.0 * bfactor_px2 * k2) * (k2 <= k_max * k_max)
    weight[0, 0] = 0.0
    scale = (used[1] / size[1], used[0] / size[0])
    return Band(
        binning=binning, binned=binned, size=size, scale=scale, weight=weight, sharpen=sharpen
    )


def _block_average(k: Tensor, binning: int) -> Tensor:
    """Transfer of an average over `binning` px at frequency k in cycles per px."""
    return torch.special.sinc(k * binning) / torch.special.sinc(k)


def low_resolution(frame: Tensor, band: Band) -> Tensor:
    """Cropped half spectrum complex64 of one corrected frame `[ny, nx]` float32."""
    rows, columns = band.binned[0] * band.binning, band.binned[1] * band.binning
    small = avg_pool2d(frame[None, :rows, :columns], band.binning)[0]
    spectrum = fourier.crop_rfft(fourier.rfft2(small - small.mean()), band.binned, band.size)
    return spectrum * band.sharpen


def align(
    spectra: Tensor,
    band: Band,
    *,
    tolerance_px: float,
    max_iter: int,
    search_range_px: float,
    fixed_pattern: float = 0.0,
) -> Track:
    """Align low-resolution spectra.

    Parameters
    ----------
    spectra
        complex64 `[n, ny, nx//2+1]` from `low_resolution`.
    band
        The sampling they were made with.
    tolerance_px, max_iter, search_range_px
        See `MotionOptions`.
    fixed_pattern
        Power per Fourier coefficient of the pattern that stays with the detector (unbinned px
        variance over the number of px); its expected correlation is taken off.
    """
    n = len(spectra)
    scale = torch.tensor(band.scale, dtype=torch.float64, device=spectra.device)
    shifts = torch.zeros(n, 2, dtype=torch.float64, device=spectra.device)
    best, best_rmsd, previous, rises = shifts, math.inf, math.inf, 0
    iterations = 0
    while iterations < max_iter and rises < 2:
        iterations += 1
        step = _residual_shifts(spectra, shifts / scale, band, search_range_px, fixed_pattern)
        step = (step - step[:1]) * scale
        shifts = shifts + step
        rmsd = float(step.square().sum(1).mean().sqrt())
        if rmsd < best_rmsd:
            best, best_rmsd = shifts, rmsd
        if rmsd < tolerance_px:
            break
        # One larger move can be a frame that leaves a wrong peak; two in a row is divergence.
        rises = rises + 1 if rmsd > previous else 0
        previous = rmsd
    return Track(
        shifts_px=best.cpu().numpy(), converged=best_rmsd < tolerance_px, iterations=iterations
    )


def _residual_shifts(
    spectra: Tensor, shifts: Tensor, band: Band, search_range_px: float, fixed_pattern: float
) -> Tensor:
    """Peak `[n, 2]` (x, y), in px of the maps, of every frame against the sum of the others."""
    batch = max(1, _BATCH_ELEMENTS // spectra[0].numel())
    radius = _search_radius(band, search_range_px)
    pattern_power = fixed_pattern * band.sharpen.square()
    reference = torch.zeros_like(spectra[0])
    pattern = torch.zeros_like(reference)
    for part in torch.split(torch.arange(len(spectra), device=spectra.device), batch):
        ramp = _ramps(band, shifts[part])
        reference += (spectra[part] * ramp).sum(0)
        pattern += ramp.sum(0)
    peaks = []
    for part in torch.split(torch.arange(len(spectra), device=spectra.device), batch):
        ramp = _ramps(band, shifts[part])
        moved = spectra[part] * ramp
        cross = (reference - moved) * moved.conj()
        if fixed_pattern > 0.0:
            # What is fixed to the detector moves with every shift applied: its correlation with
            # the other frames' copies is known exactly up to the power.
            cross -= pattern_power * (pattern - ramp) * ramp.conj()
        maps = fourier.irfft2(cross * band.weight, band.size)
        peaks.append(find_peaks(maps, radius))
    return torch.cat(peaks)


def _ramps(band: Band, shifts: Tensor) -> Tensor:
    ramp_y, ramp_x = fourier.phase_ramps(band.size, shifts[:, 0], shifts[:, 1])
    return ramp_y * ramp_x


def _search_radius(band: Band, search_range_px: float) -> int:
    radius = int(search_range_px / max(band.scale))
    return max(1, min(radius, min(band.size) // 2 - 1))


def find_peaks(maps: Tensor, radius: int) -> Tensor:
    """Sub-pixel positions float64 `[n, 2]` (x, y) of the maxima within `radius` px of lag zero.

    Maps are `[n, ny, nx]` with lag zero at [0, 0]; a parabola through three points per axis
    refines the maximum.
    """
    ny, nx = maps.shape[-2:]
    lags = torch.arange(-radius, radius + 1, device=maps.device)
    window = maps[:, (lags % ny)[:, None], (lags % nx)[None, :]]
    flat = window.flatten(1).argmax(1)
    y, x = lags[flat // len(lags)], lags[flat % len(lags)]
    frame = torch.arange(len(maps), device=maps.device)

    def at(dy: int, dx: int) -> Tensor:
        return maps[frame, (y + dy) % ny, (x + dx) % nx].double()

    centre = at(0, 0)
    dx = _parabola(at(0, -1), centre, at(0, 1))
    dy = _parabola(at(-1, 0), centre, at(1, 0))
    return torch.stack([x + dx, y + dy], dim=1)


def _parabola(left: Tensor, centre: Tensor, right: Tensor) -> Tensor:
    """Offset of the vertex of a parabola through values at -1, 0, 1; at most half a step."""
    curvature = right + left - 2.0 * centre
    flat = curvature >= 0.0
    offset = -0.5 * (right - left) / torch.where(flat, 1.0, curvature)
    return torch.where(flat, 0.0, offset).clamp(-0.5, 0.5)
