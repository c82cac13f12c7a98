"""Alignment of patches: what moves differently from place to place.

Patches are cut from the low-resolution frames at the place where the whole frame's alignment puts
them, and aligned like whole frames. Then the model joins in: every patch is moved as the model of
all patches says, the frames' weights come from the whole field, and only the rest is measured
again. A patch with a weak signal is so carried by its neighbours.

Source: preprocessing.md sections 2.5 and 2.6.
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from algorithms import fourier
from algorithms.motion.align import coarse_shifts
from algorithms.motion.band import Band, band_spectra, plan_band
from algorithms.motion.field import Field
from algorithms.motion.memory import large_empty
from algorithms.motion.model import LocalModel, Observations, fit_model
from algorithms.motion.refine import refine
from algorithms.motion.stack import Stack
from algorithms.motion.threads import Threads

_EDGE = 0.05  # of a patch, over which it fades out
_MODEL_ROUNDS = 3
_PEAK_RANGE_PX, _PEAK_ROUNDS = 15.0, 2
_TOLERANCE_PX, _ALONE_ROUNDS = 0.1, 3
LEAST_PATCHES = 3  # along each axis, for a quadratic in space


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Patches `(along x, along y)`, and how many frames are summed before they are aligned."""

    patches: tuple[int, int]
    group_frames: int
    bfactor_px2: float
    k_max: float


def frame_groups(n_frames: int, size: int) -> list[range]:
    """Frames of each group: whole groups, what remains one each to the last ones."""
    count = max(1, n_frames // size)
    longer = min(n_frames - count * size, count - 1)
    sizes = [size + (i >= count - longer) for i in range(count)]
    sizes[-1] += n_frames - sum(sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return [range(int(a), int(b)) for a, b in pairwise(starts)]


def local_motion(
    small: Tensor, binning: int, shifts_px: np.ndarray, grid: Grid, pattern: float, threads: Threads
) -> Field:
    """Measure local motion.

    Parameters
    ----------
    small
        Frames averaged over blocks of `binning` px, float32 `[n, ny, nx]`, means taken off.
    shifts_px
        `[n, 2]` of the whole frames, unbinned px.
    grid
        The patches.
    pattern
        Variance per unbinned px of what stays with the detector.
    """
    groups = frame_groups(len(small), grid.group_frames)
    windows = _windows((small.shape[1], small.shape[2]), binning, grid)
    shape = (windows[0][1].stop - windows[0][1].start, windows[0][0].stop - windows[0][0].start)
    band = plan_band(shape, binning, grid.k_max, grid.bfactor_px2, str(small.device))
    frame = np.array([(g.start + g.stop - 1) / 2 for g in groups])
    centre = np.array([[(w.start + w.stop) / 2 * binning - 0.5 for w in pair] for pair in windows])
    whole = np.array([small.shape[2], small.shape[1]]) * binning
    place = (centre + 0.5) / whole - 0.5

    def alone(window: tuple[slice, slice]) -> _Patch:
        # The whole band of one patch at a time: what remains is narrower.
        return _align_alone(_cut(small, window, shifts_px, groups, band, pattern))

    patches = threads.map(alone, windows)
    tracks = [patch.shifts_px for patch in patches]
    trust = np.array([patch.trust for patch in patches])
    model, used, observed = None, np.zeros(len(patches), bool), np.zeros(0)
    for number in range(_MODEL_ROUNDS):
        observed = torch.stack(tracks).cpu().numpy()
        seen = Observations(
            x=place[:, 0],
            y=place[:, 1],
            z=frame,
            shifts=observed,
            weight=trust / max(trust.mean(), 1e-12),
        )
        model, used = fit_model(seen)
        if model is None or number == _MODEL_ROUNDS - 1:
            break
        tracks = threads.map(
            partial(_with_model, z=frame, model=model), zip(patches, place, strict=True)
        )
    observed = observed - _at_first(frame, observed)
    return Field(model=model, centre_px=centre, frame=frame, observed_px=observed, used=used)


def _windows(shape: tuple[int, int], binning: int, grid: Grid) -> list[tuple[slice, slice]]:
    """(x, y) slices of all patches in the averaged image, row by row; all of one even size."""
    axes = []
    for n, count in zip((shape[1], shape[0]), grid.patches, strict=True):
        step = n / count
        size = int(step) // 2 * 2
        starts = [round(min(max((i + 0.5) * step - size / 2, 0), n - size)) for i in range(count)]
        axes.append([slice(start, start + size) for start in starts])
    return [(x, y) for y in axes[1] for x in axes[0]]


def _fade(size: int, device: torch.device) -> Tensor:
    """Window of a patch along one axis: 1 inside, a cosine down to 0 at both ends."""
    width = max(2, int(_EDGE * size))
    ramp = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(width, device=device) + 0.5) / width)
    out = torch.ones(size, device=device)
    out[:width], out[size - width :] = ramp, ramp.flip(0)
    return out


def _piece(image: Tensor, corner: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """Rectangle of an image at `corner` (y, x); beyond the image its edge repeats."""
    ny, nx = image.shape
    (top, left), (rows, columns) = corner, shape
    if 0 <= top <= ny - rows and 0 <= left <= nx - columns:
        return image[top : top + rows, left : left + columns]
    y = torch.arange(top, top + rows, device=image.device).clamp_(0, ny - 1)
    x = torch.arange(left, left + columns, device=image.device).clamp_(0, nx - 1)
    return image[y][:, x]


def _cut(
    small: Tensor,
    window: tuple[slice, slice],
    shifts_px: np.ndarray,
    groups: list[range],
    band: Band,
    pattern: float,
) -> Stack:
    """Spectra of one patch in every group of frames, the whole frame's shifts applied."""
    across, down = window
    n, device = len(small), small.device
    step = np.round(shifts_px / band.binning).astype(int)
    rest = shifts_px / band.binning - step
    patches = large_empty((n, *band.binned), torch.float32, device)
    for f in range(n):
        top, left = down.start - int(step[f, 1]), across.start - int(step[f, 0])
        patches[f] = _piece(small[f], (top, left), band.binned)
    fade = _fade(band.binned[0], device)[:, None] * _fade(band.binned[1], device)
    patches -= patches.mean((1, 2), keepdim=True)
    spectra = band_spectra(patches.mul_(fade), band, Threads(1, None))
    per_map = band.binning / torch.tensor(band.scale, dtype=torch.float64, device=device)
    turn = torch.from_numpy(rest).to(device) * per_map
    ramp_y, ramp_x = fourier.phase_ramps(band.size, turn[:, 0], turn[:, 1])
    spectra.mul_(ramp_y).mul_(ramp_x)
    if len(groups) < n:
        spectra = torch.stack([spectra[g.start : g.stop].sum(0) for g in groups])
    total = torch.from_numpy(shifts_px).to(device) / torch.tensor(band.scale, device=device)
    moved = torch.stack([total[g.start : g.stop].mean(0) for g in groups])
    # The window keeps this share of the power of white noise; groups add up.
    share = float(fade.square().mean()) * (n / len(groups)) ** 2
    power = pattern * share / (math.prod(band.binned) * band.binning**2)
    return Stack(spectra=spectra, band=band, pattern=power, moved=moved)


@dataclass(frozen=True, kw_only=True)
class _Patch:
    """One patch: its stack, as narrow as its signal allows, and what it showed by itself.

    Shifts `[g, 2]` in unbinned px; `trust` is the information about a shift, 0 for none.
    """

    stack: Stack
    shifts_px: Tensor
    trust: float


def _align_alone(stack: Stack) -> _Patch:
    threads = Threads(1, None)
    shifts_px, _, _ = coarse_shifts(stack, _PEAK_ROUNDS, _PEAK_RANGE_PX, threads)
    refined = refine(
        stack, shifts_px, tolerance_px=_TOLERANCE_PX, max_iter=_ALONE_ROUNDS, threads=threads
    )
    trust = 0.0
    if refined.variance_px2 is not None:
        trust = 1.0 / float(refined.variance_px2.mean())
    return _Patch(stack=refined.stack, shifts_px=refined.shifts_px, trust=trust)


def _with_model(where: tuple[_Patch, np.ndarray], z: np.ndarray, model: LocalModel) -> Tensor:
    """Shifts `[g, 2]` in unbinned px of a patch at a place: the model's, and one step more."""
    patch, (x, y) = where
    threads = Threads(1, None)
    start = torch.from_numpy(model.shift(z, np.full_like(z, x), np.full_like(z, y)))
    start = start.to(patch.shifts_px.device)
    return refine(
        patch.stack, start, tolerance_px=_TOLERANCE_PX, max_iter=1, threads=threads
    ).shifts_px


def _at_first(frame: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """Value `[p, 1, 2]` of every track at the first frame, on the line through its ends there."""
    if len(frame) < 2:
        return tracks[:, :1]
    slope = (tracks[:, 1] - tracks[:, 0]) / (frame[1] - frame[0])
    return (tracks[:, 0] - slope * frame[0])[:, None]
