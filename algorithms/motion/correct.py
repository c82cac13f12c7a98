"""From a movie to an aligned, weighted micrograph.

Frames are read once in their native type; the alignment sees small low-resolution spectra; then
every frame is transformed once at full size, moved by its phase, and added to the sums in Fourier
space. The movie is never held in floating point.

Source: preprocessing.md sections 1.5, 1.7 and 2.
"""

import numpy as np
import torch
from torch import Tensor

from algorithms import fourier
from algorithms.motion.align import Track, align, low_resolution, plan_band
from algorithms.motion.defects import Repair, find_hot_pixels, mean_deviation, plan_repair
from algorithms.motion.dose import DoseWeightedSum, PlainSum
from algorithms.motion.fixedpattern import checkerboard_variance, pattern_variance
from algorithms.motion.frames import FrameSource
from algorithms.motion.spectrum import GroupedAmplitudes, frames_per_group
from algorithms.motion.types import (
    CorrectedMovie,
    MotionError,
    MotionOptions,
    MotionStatistics,
    MovieLike,
)

MIN_FRAMES = 3


def correct_movie(
    movie: MovieLike,
    gain: np.ndarray | None,
    options: MotionOptions,
    *,
    seed: int,
    defects: np.ndarray | None = None,
    device: str = "cpu",
) -> CorrectedMovie:
    """Correct the whole-frame motion of one movie.

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

    Raises
    ------
    MotionError
        Fewer than three frames to use, or values that are not finite.
    ValueError
        The gain or defects do not have the size of the movie.
    """
    first, last = _used_range(movie.n_frames, options)
    shape = (movie.ny, movie.nx)
    for name, plane in (("gain reference", gain), ("defect map", defects)):
        if plane is not None and plane.shape != shape:
            raise ValueError(f"the {name} is {plane.shape}, the movie {shape} (ny, nx)")
    frames = FrameSource(movie, first, last, options.hold_bytes, device)
    scale = None if gain is None else torch.from_numpy(np.array(gain, np.float32)).to(device)
    repair, hot = _find_defects(frames, scale, defects, options, seed)
    frames.prepare(scale, repair)
    track = _align(frames, options)
    return _sum(frames, track, hot, options)


def _used_range(n_frames: int, options: MotionOptions) -> tuple[int, int]:
    """0-based half-open range of the frames to use."""
    first = options.first_frame - 1
    last = n_frames if options.last_frame == -1 else min(options.last_frame, n_frames)
    if first < 0 or last - first < MIN_FRAMES:
        raise MotionError(
            "TOO_FEW_FRAMES",
            f"{max(0, last - first)} of {n_frames} frames are in the range "
            f"{options.first_frame}..{options.last_frame}; at least {MIN_FRAMES} are needed",
        )
    return first, last


def _find_defects(
    frames: FrameSource,
    gain: Tensor | None,
    defects: np.ndarray | None,
    options: MotionOptions,
    seed: int,
) -> tuple[Repair, Tensor]:
    """First pass: the plain sum, the bad pixels it shows, and the plan to fill them."""
    total = torch.zeros(frames.shape, device=frames.device)
    for frame in frames.raw():
        total.add_(frame)
    bad = torch.zeros_like(total, dtype=torch.bool)
    if gain is not None:
        total.mul_(gain)
        bad = gain == 0.0
    if not bool(torch.isfinite(total).all()):
        raise MotionError(
            "NOT_FINITE", "the frames or the gain reference hold values that are not finite"
        )
    if defects is not None:
        bad |= torch.from_numpy(np.array(defects, bool)).to(frames.device)
    hot = torch.zeros(0, 2, dtype=torch.int64, device=frames.device)
    if options.find_hot_pixels:
        hot = find_hot_pixels(total, bad, options.hot_pixel_sigma)
        bad[hot[:, 1], hot[:, 0]] = True
    mean, deviation = mean_deviation(total)
    return (
        plan_repair(
            bad.cpu().numpy(),
            options.defect_window_px,
            mean=mean / frames.n,
            deviation=deviation / frames.n,
            seed=seed,
            device=frames.device,
        ),
        hot,
    )


def _align(frames: FrameSource, options: MotionOptions) -> Track:
    """Second pass: low-resolution spectra and the fixed pattern, then the alignment."""
    band = plan_band(
        frames.shape, options.pixel_size_A, options.alignment_bfactor_px2, frames.device
    )
    total = torch.zeros(frames.shape, device=frames.device)
    of_frames = 0.0
    spectra = []
    for frame in frames.corrected():
        spectra.append(low_resolution(frame, band))
        total.add_(frame)
        of_frames += checkerboard_variance(frame)
    pattern = pattern_variance(checkerboard_variance(total), of_frames, frames.n, total.numel())
    return align(
        torch.stack(spectra),
        band,
        tolerance_px=options.tolerance_px,
        max_iter=options.max_iter,
        search_range_px=options.search_range_px,
        fixed_pattern=pattern / total.numel(),
    )


def _sum(frames: FrameSource, track: Track, hot: Tensor, options: MotionOptions) -> CorrectedMovie:
    """Third pass: one transform per frame, cropped, moved and added to every sum."""
    shape = binned_shape(frames.shape, options.bin_factor)
    pixel = options.pixel_size_A * options.bin_factor
    zoom = torch.tensor([shape[1] / frames.shape[1], shape[0] / frames.shape[0]])
    shifts = torch.from_numpy(track.shifts_px).to(frames.device) * zoom.to(frames.device)
    ramps_y, ramps_x = fourier.phase_ramps(shape, shifts[:, 0], shifts[:, 1])
    totals: list[DoseWeightedSum | PlainSum] = []
    if options.dose_weighting:
        k = fourier.radius(shape, pixel, device=frames.device)
        totals.append(DoseWeightedSum(k, options.dose_per_frame, options.voltage_kV, frames.n))
    if options.save_nodw or not options.dose_weighting:
        totals.append(PlainSum(shape, frames.device))
    group = frames_per_group(options.dose_per_frame, options.dose_per_ps)
    amplitudes = GroupedAmplitudes(shape, group, frames.device)
    for frame, ramp_y, ramp_x in zip(frames.corrected(), ramps_y, ramps_x, strict=True):
        spectrum = fourier.crop_rfft(fourier.rfft2(frame), frames.shape, shape)
        spectrum.mul_(ramp_y * ramp_x)
        amplitudes.add(spectrum)
        for total in totals:
            total.add(spectrum)
    images = [fourier.irfft2(total.result(), shape) for total in totals]
    power, power_pixel = amplitudes.result(pixel, options.ps_size, options.ps_pixel_size_A)
    shifts_px = np.full((frames.movie_shape[0], 2), np.nan)
    shifts_px[frames.first : frames.last] = track.shifts_px
    return CorrectedMovie(
        image=images[0],
        image_nodw=images[-1] if options.save_nodw else None,
        power_spectrum=power,
        ps_pixel_size_A=power_pixel,
        pixel_size_A=pixel,
        shifts_px=shifts_px,
        hot_pixels=hot.cpu().numpy(),
        converged=track.converged,
        iterations=track.iterations,
        motion=motion_statistics(shifts_px, options),
        movie_shape=frames.movie_shape,
        first_frame=frames.first + 1,
    )


def binned_shape(shape: fourier.Shape, bin_factor: float) -> fourier.Shape:
    """Shape (ny, nx) after binning, each the even number nearest to n / `bin_factor`.

    Raises
    ------
    ValueError
        The factor is below 1.
    """
    if bin_factor < 1.0:
        raise ValueError(f"bin_factor is {bin_factor}; it must be 1 or more")
    if bin_factor == 1.0:
        return shape
    return (
        2 * round(shape[0] / bin_factor / 2.0),
        2 * round(shape[1] / bin_factor / 2.0),
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
