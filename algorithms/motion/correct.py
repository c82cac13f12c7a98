"""From a movie to an aligned, weighted micrograph.

Frames are read once in their native type. A first pass averages them over small blocks, which is
all that the alignment sees; a second one moves them, as the whole frame's shifts and the local
model say, into the sums. The movie is never held in floating point, and no frame is transformed
at full size.

Source: preprocessing.md sections 1.5, 1.7, 2 and 8.4.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.motion.align import Track, align
from algorithms.motion.band import band_spectra, block_size, highest_frequency, plan_band
from algorithms.motion.defects import (
    Repair,
    find_hot_pixels,
    find_outliers,
    mean_deviation,
    plan_repair,
)
from algorithms.motion.field import Field
from algorithms.motion.fixedpattern import centre, checkerboard_variance, pattern_variance
from algorithms.motion.frames import FrameSource
from algorithms.motion.memory import large_empty
from algorithms.motion.model import frame_planes
from algorithms.motion.passes import add_blocks
from algorithms.motion.patches import LEAST_PATCHES, Grid, local_motion
from algorithms.motion.spectrum import power_spectrum, spectrum_pixel_size
from algorithms.motion.stack import Stack
from algorithms.motion.sums import Sums, add_up
from algorithms.motion.threads import Threads, working
from algorithms.motion.types import (
    CorrectedMovie,
    MotionError,
    MotionOptions,
    MotionStatistics,
    MovieLike,
)

MIN_FRAMES = 3
_READ_FRAMES = 8  # at a time in the first pass
# A frame that left by more than this share of its size has nothing in common with the others.
_FURTHEST = 0.45


def correct_movie(
    movie: MovieLike,
    gain: np.ndarray | None,
    options: MotionOptions,
    *,
    seed: int,
    defects: np.ndarray | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> CorrectedMovie:
    """Correct the motion of one movie.

    Parameters
    ----------
    movie
        Frames `[ny, nx]` in MRC orientation.
    gain
        float32 `[ny, nx]`, multiplied with every frame; 0 marks a defect. None for none.
    options
        What to do.
    seed
        Of the values that replace bad pixels; derive it from the movie's name.
    defects
        bool `[ny, nx]`, True where a pixel is bad. None for none.
    device
        `cpu` or `cuda[:n]`.
    threads
        To work with; None takes as many as torch has. The result does not depend on it.

    Raises
    ------
    MotionError
        Fewer than three frames to use, or values that are not finite.
    ValueError
        The gain, defects or doses of the frames do not have the size of the movie.
    """
    first, last = _used_range(movie.n_frames, options)
    if options.frame_doses is not None and len(options.frame_doses) != movie.n_frames:
        raise ValueError(f"{len(options.frame_doses)} doses for {movie.n_frames} frames")
    shape = (movie.ny, movie.nx)
    for name, plane in (("gain reference", gain), ("defect map", defects)):
        if plane is not None and plane.shape != shape:
            raise ValueError(f"the {name} is {plane.shape}, the movie {shape} (ny, nx)")
    frames = FrameSource(movie, first, last, options.hold_bytes, device)
    scale = _plane(gain, shape).to(frames.device)
    with working(threads) as workers:
        seen = _first_pass(frames, scale, defects, options, seed, workers)
        track, field = _align(seen, options, workers)
        seen.small = torch.empty(0)  # room for the sums
        model = None if field is None else field.model
        planes = frame_planes(model, track.shifts_px)
        sums = add_up(frames, scale, seen.repair, planes, options, workers)
    return _result(frames, seen, track, field, sums, options)


def _plane(gain: np.ndarray | None, shape: tuple[int, int]) -> Tensor:
    if gain is None:
        return torch.ones(shape)
    return torch.from_numpy(np.require(gain, np.float32, ["C", "W"]))


def _used_range(n_frames: int, options: MotionOptions) -> tuple[int, int]:
    """0-based half-open range of the frames to use."""
    first = options.first_frame - 1
    last = n_frames if options.last_frame == -1 else min(options.last_frame, n_frames)
    used = max(0, last - first)
    if first < 0 or used // max(1, options.group_frames) < MIN_FRAMES:
        of_groups = f" in groups of {options.group_frames}" if options.group_frames > 1 else ""
        raise MotionError(
            "TOO_FEW_FRAMES",
            f"{used} of {n_frames} frames are in the range {options.first_frame}.."
            f"{options.last_frame}{of_groups}; at least {MIN_FRAMES} are needed",
        )
    return first, last


@dataclass(kw_only=True)
class _Seen:
    """What the first pass gave: averages over blocks (without their mean), bad pixels, pattern."""

    small: Tensor
    binning: int
    shape: tuple[int, int]
    repair: Repair
    hot: Tensor
    pattern: float


def _first_pass(
    frames: FrameSource,
    gain: Tensor,
    defects: np.ndarray | None,
    options: MotionOptions,
    seed: int,
    threads: Threads,
) -> _Seen:
    k_max = highest_frequency(options.pixel_size_A, options.alignment_bfactor_px2)
    binning = block_size(frames.shape, k_max)
    # Even numbers of blocks: a half spectrum does not tell an odd width.
    blocks = [n // binning // 2 * 2 for n in frames.shape]
    small = large_empty((frames.n, *blocks), torch.float32, frames.device)
    total = torch.zeros(frames.shape, device=frames.device)
    middle = []
    for start, raw in frames.chunks(_READ_FRAMES):
        add_blocks(raw, gain, binning, small[start : start + len(raw)], total, threads)
        middle.extend(centre(raw).clone())
        del raw  # or it keeps the frames in memory
    total.mul_(gain)
    if not bool(torch.isfinite(total).all()):
        raise MotionError(
            "NOT_FINITE", "the frames or the gain reference hold values that are not finite"
        )
    repair, hot = _find_defects(total, gain, defects, options, seed, frames.n)
    _mend_blocks(small, binning, frames, gain, repair)
    small.mul_(1.0 / binning**2)
    small.sub_(small.mean((1, 2), keepdim=True))
    pattern = _pattern(middle, gain, repair, total)
    return _Seen(
        small=small, binning=binning, shape=frames.shape, repair=repair, hot=hot, pattern=pattern
    )


def _find_defects(
    total: Tensor,
    gain: Tensor,
    defects: np.ndarray | None,
    options: MotionOptions,
    seed: int,
    n: int,
) -> tuple[Repair, Tensor]:
    """Bad pixels in the sum of the frames, and the plan to fill them."""
    bad = torch.zeros_like(total, dtype=torch.bool)
    hot = torch.zeros(0, 2, dtype=torch.int64, device=total.device)
    if not options.skip_defects:
        bad |= gain == 0.0
        if defects is not None:
            bad |= torch.from_numpy(np.array(defects, bool)).to(total.device)
        if options.find_hot_pixels:
            find = find_hot_pixels if options.hot_pixel_rule == "relion" else find_outliers
            hot = find(total, bad, options.hot_pixel_sigma)
            bad[hot[:, 1], hot[:, 0]] = True
    mean, deviation = mean_deviation(total)
    repair = plan_repair(
        bad.cpu().numpy(),
        options.defect_window_px,
        mean=mean / n,
        deviation=deviation / n,
        seed=seed,
    )
    return repair, hot


def _mend_blocks(
    small: Tensor, binning: int, frames: FrameSource, gain: Tensor, repair: Repair
) -> None:
    """Take what bad pixels added to the sums over blocks out, and put their stand-ins in."""
    if not len(repair.bad):
        return
    for start, raw in frames.chunks(_READ_FRAMES):
        found = repair.pixels(raw, gain, frames.first + start)
        y, x = torch.from_numpy(found.y), torch.from_numpy(found.x)
        inside = (y < small.shape[1] * binning) & (x < small.shape[2] * binning)
        y, x = y[inside].to(small.device), x[inside].to(small.device)
        block = y // binning * small.shape[2] + x // binning
        for f in range(len(raw)):
            new = torch.from_numpy(found.values[f])[inside].to(small.device)
            old = raw[f, y, x].to(torch.float32) * gain[y, x]
            # One after the other, in order: no two runs differ.
            plane = small[start + f].view(-1)
            plane.index_add_(0, block, new - old)


def _pattern(middle: list[Tensor], gain: Tensor, repair: Repair, total: Tensor) -> float:
    """Variance per px of what stays with the detector, from the middle of the frames."""
    bad = torch.zeros(total.numel(), dtype=torch.bool, device=total.device)
    bad[torch.from_numpy(repair.bad).to(total.device)] = True
    bad, scale = centre(bad.view(total.shape)), centre(gain)
    summed = torch.zeros_like(scale)
    of_frames = 0.0
    for frame in middle:
        plane = torch.where(bad, repair.mean, frame.to(torch.float32) * scale)
        summed.add_(plane)
        of_frames += checkerboard_variance(plane)
    return pattern_variance(checkerboard_variance(summed), of_frames, len(middle), total.numel())


def _align(seen: _Seen, options: MotionOptions, threads: Threads) -> tuple[Track, Field | None]:
    """Shifts of the whole frames, and what patches of them do beyond that."""
    bfactor = options.alignment_bfactor_px2
    k_max = highest_frequency(options.pixel_size_A, bfactor)
    binned = (int(seen.small.shape[1]), int(seen.small.shape[2]))
    band = plan_band(binned, seen.binning, k_max, bfactor, str(seen.small.device))
    spectra = band_spectra(seen.small, band, threads)
    # Per coefficient: the variance over the number of px.
    power = seen.pattern / (seen.shape[0] * seen.shape[1])
    track = align(
        Stack(spectra=spectra, band=band, pattern=power),
        tolerance_px=options.tolerance_px,
        max_iter=options.max_iter,
        search_range_px=options.search_range_px,
        threads=threads,
    )
    del spectra  # room for the patches
    if min(options.patches) < LEAST_PATCHES:
        return track, None
    grid = Grid(
        patches=options.patches,
        group_frames=options.group_frames,
        bfactor_px2=bfactor,
        k_max=k_max,
    )
    return track, local_motion(
        seen.small, seen.binning, track.shifts_px, grid, seen.pattern, threads
    )


def _result(
    frames: FrameSource,
    seen: _Seen,
    track: Track,
    field: Field | None,
    sums: Sums,
    options: MotionOptions,
) -> CorrectedMovie:
    pixel = options.pixel_size_A * options.bin_factor
    power_pixel = spectrum_pixel_size(sums.image_shape, pixel, options.ps_pixel_size_A)
    power = None
    if sums.amplitudes is not None:
        power = power_spectrum(sums.amplitudes, sums.shape, pixel, options.ps_size, power_pixel)
    shifts_px = np.full((frames.movie_shape[0], 2), np.nan)
    shifts_px[frames.first : frames.last] = track.shifts_px
    image = sums.weighted if sums.weighted is not None else sums.plain
    assert image is not None  # noqa: S101
    return CorrectedMovie(
        image=image,
        image_nodw=sums.plain if options.save_nodw else None,
        image_even=sums.even,
        image_odd=sums.odd,
        power_spectrum=power,
        ps_pixel_size_A=power_pixel,
        pixel_size_A=pixel,
        shifts_px=shifts_px,
        field=field,
        hot_pixels=seen.hot.cpu().numpy(),
        converged=track.converged,
        iterations=track.iterations,
        motion=motion_statistics(shifts_px, options),
        movie_shape=frames.movie_shape,
        first_frame=frames.first + 1,
    )


def motion_statistics(shifts_px: np.ndarray, options: MotionOptions) -> MotionStatistics:
    """Path lengths of a track `[n, 2]` in unbinned px; NaN rows are skipped.

    A move into frame f (1-based) is early if f <= (early dose - pre-exposure) / dose per frame.
    """
    used = np.flatnonzero(np.isfinite(shifts_px[:, 0]))
    moves = np.linalg.norm(np.diff(shifts_px[used], axis=0), axis=1)
    early = np.zeros(len(moves), bool)
    if options.dose_per_frame > 0.0:
        limit = (options.early_dose - options.pre_exposure) / options.dose_per_frame
        early = used[1:] + 1 <= limit
    return MotionStatistics(
        total_px=float(moves.sum()),
        early_px=float(moves[early].sum()),
        late_px=float(moves[~early].sum()),
    )
