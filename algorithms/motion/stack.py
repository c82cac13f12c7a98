"""A stack of low-resolution spectra: its aligned sum, its correlation maps, and their slopes.

Whole frames and patches are aligned with the same pieces. Shifts are `[n, 2]` (x, y) in px of the
maps, applied to the spectra on the way; nothing of the size of the stack is copied.

Source: preprocessing.md section 2.4.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from algorithms import fourier
from algorithms.motion.band import Band
from algorithms.motion.memory import large_empty
from algorithms.motion.threads import Threads

_LEAST_SIDE = 48  # of maps
# Coefficients of a stack that is added up in one go, and of frames that are done together.
_SMALL, _AT_ONCE = 1 << 20, 1 << 16
_ROWS = 64  # of the sum at a time: a slice of every frame stays in the cache


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Frames to align.

    Parameters
    ----------
    spectra
        complex64 `[n, ny, nx//2+1]`.
    band
        Their sampling.
    pattern
        Power per coefficient of what stays with the detector, in each frame; 0 for none.
    moved
        Shifts `[n, 2]` in map px that the spectra carry already, by which the pattern moved too.
    """

    spectra: Tensor
    band: Band
    pattern: float = 0.0
    moved: Tensor | None = None

    def batches(self, elements: int) -> list[slice]:
        """Frames to do together, of about so many coefficients; never a matter of the threads."""
        n, size = len(self.spectra), max(1, elements // self.spectra[0].numel())
        return [slice(start, min(start + size, n)) for start in range(0, n, size)]

    def pattern_ramps(self, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of the pattern of each frame under the shifts."""
        total = shifts if self.moved is None else shifts + self.moved
        return fourier.phase_ramps(self.band.size, total[:, 0], total[:, 1])

    def pattern_power(self) -> Tensor:
        """Power of the pattern at each coefficient of one frame."""
        return self.pattern * self.band.sharpen.square()


def narrowed(stack: Stack, k_max: float) -> Stack:
    """The same stack up to a lower frequency (cycles per unbinned px), with coarser maps.

    Shifts in map px are others then: the scale of the band tells.
    """
    band = stack.band
    used = (band.binned[0] * band.binning, band.binned[1] * band.binning)
    wanted = [fourier.fast_size(math.ceil(2.0 * k_max * n)) for n in used]
    size = (min(wanted[0], band.size[0]), min(wanted[1], band.size[1]))
    if math.prod(size) > 0.8 * math.prod(band.size) or min(size) < _LEAST_SIDE:
        return stack

    def cut(plane: Tensor) -> Tensor:
        return fourier.crop_rfft(plane, band.size, size)

    k = cut(band.k)
    inside = cut(band.inside) * (k <= k_max)
    scale = (used[1] / size[1], used[0] / size[0])
    coarser = replace(
        band,
        size=size,
        scale=scale,
        k=k,
        inside=inside,
        weight=cut(band.weight) * inside,
        sharpen=cut(band.sharpen) * inside,
    )
    moved = stack.moved
    if moved is not None:
        moved = moved * moved.new_tensor(band.scale) / moved.new_tensor(scale)
    shape = (len(stack.spectra), size[0], size[1] // 2 + 1)
    spectra = large_empty(shape, torch.complex64, stack.spectra.device)
    for whole, part in zip(stack.spectra, spectra, strict=True):
        part.copy_(cut(whole))
    return replace(stack, spectra=spectra, band=coarser, moved=moved)


def aligned_sum(stack: Stack, shifts: Tensor, threads: Threads) -> Tensor:
    """Sum of the moved frames, `[ny, nx//2+1]`."""
    ramp_y, ramp_x = fourier.phase_ramps(stack.band.size, shifts[:, 0], shifts[:, 1])
    if stack.spectra.numel() <= _SMALL:
        return (stack.spectra * ramp_y * ramp_x).sum(0)
    out = torch.zeros_like(stack.spectra[0])

    def rows(start: int) -> None:
        part = out[start : start + _ROWS]
        for i, spectrum in enumerate(stack.spectra):
            part.add_(
                spectrum[start : start + _ROWS] * ramp_y[i, start : start + _ROWS] * ramp_x[i]
            )

    threads.map(rows, range(0, len(out), _ROWS))
    return out


def pattern_sum(stack: Stack, shifts: Tensor) -> Tensor:
    """Sum of the ramps that move the pattern, `[ny, nx//2+1]`."""
    ramp_y, ramp_x = stack.pattern_ramps(shifts)
    return torch.einsum("fy,fx->yx", ramp_y[:, :, 0], ramp_x[:, 0])


def correlation_maps(
    stack: Stack, shifts: Tensor, weight: Tensor, batch: slice, reference: Tensor
) -> Tensor:
    """Maps `[m, ny, nx]` of a batch of m frames with the sum of the others, lag zero at [0, 0]."""
    ramp_y, ramp_x = fourier.phase_ramps(stack.band.size, shifts[batch, 0], shifts[batch, 1])
    frames = stack.spectra[batch] * ramp_y * ramp_x
    cross = (reference - frames) * frames.conj()
    if stack.pattern > 0.0:
        # What is fixed to the detector moves with every shift applied: its correlation with the
        # other frames' copies is known exactly up to the power.
        own_y, own_x = stack.pattern_ramps(shifts)
        own = own_y[batch] * own_x[batch]
        cross -= stack.pattern_power() * (pattern_sum(stack, shifts) - own) * own.conj()
    return fourier.irfft2(cross.mul_(weight), stack.band.size)


def slopes(
    stack: Stack, shifts: Tensor, weight: Tensor, reference: Tensor, threads: Threads
) -> Tensor:
    """Derivative float64 `[n, 2]` (x, y), per map px, of each frame's correlation at lag zero.

    `weight` counts columns that stand for two coefficients twice. A frame's own part of the
    reference has no slope and need not be left out.
    """
    size, device = stack.band.size, weight.device
    ky, kx = fourier.frequencies(size, device=device, dtype=torch.float64)
    ramp_y, ramp_x = fourier.phase_ramps(size, shifts[:, 0], shifts[:, 1])
    weighted = reference * weight
    real, imaginary = weighted.real.contiguous(), weighted.imag.contiguous()
    own_y, own_x = stack.pattern_ramps(shifts) if stack.pattern > 0.0 else (ramp_y, ramp_x)
    fixed = pattern_sum(stack, shifts) * stack.pattern_power() * weight if stack.pattern else None

    def some(i: slice) -> Tensor:
        frames = stack.spectra[i] * ramp_y[i] * ramp_x[i]
        part = (imaginary * frames.real).addcmul_(real, frames.imag, value=-1.0)
        if fixed is not None:
            part -= (fixed * (own_y[i] * own_x[i]).conj()).imag
        along_x = part.sum(1).double() @ kx[0]
        along_y = part.sum(2).double() @ ky[:, 0]
        return -2.0 * math.pi * torch.stack([along_x, along_y], dim=1)

    return torch.cat(threads.map(some, stack.batches(_AT_ONCE)))


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
