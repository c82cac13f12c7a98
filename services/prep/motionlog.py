"""What was done to a movie, in words: `<root>.log` beside the micrograph.

Source: preprocessing.md section 2.11.
"""

from collections.abc import Iterator
from pathlib import Path

from algorithms.motion import CorrectedMovie, MotionOptions
from services.prep.requests import MotionRequest


def write_log(
    path: Path, ask: MotionRequest, options: MotionOptions, corrected: CorrectedMovie, note: str
) -> None:
    """Write the log of one movie."""
    path.write_text("\n".join(_lines(ask, options, corrected, note)) + "\n")


def _lines(
    ask: MotionRequest, options: MotionOptions, corrected: CorrectedMovie, note: str
) -> Iterator[str]:
    frames, height, width = corrected.movie_shape
    last = options.last_frame if options.last_frame > 0 else frames
    yield f"Movie: {ask.movie_path}, {width} x {height} px, {frames} frames"
    yield f"Frames used: {corrected.first_frame} to {min(last, frames)}"
    yield f"Gain: {ask.gain_name or 'none'}; defects: {ask.defect_path or 'none'}"
    if note:
        yield f"Note: {note}"
    yield (
        f"Pixel: {options.pixel_size_A:g} A, binned to {corrected.pixel_size_A:g} A; "
        f"{options.voltage_kV:g} kV; {options.dose_per_frame:g} e/A^2 a frame after "
        f"{options.pre_exposure:g} e/A^2"
    )
    yield f"Bad pixels replaced, besides those known: {len(corrected.hot_pixels)}"
    ended = "converged" if corrected.converged else "did not converge"
    yield f"Alignment of whole frames {ended} after {corrected.iterations} rounds"
    motion = corrected.motion
    yield (
        f"Motion: {motion.total_px:.3f} px in all, {motion.early_px:.3f} px up to "
        f"{options.early_dose:g} e/A^2, {motion.late_px:.3f} px after it"
    )
    if corrected.field is None:
        yield "Local motion: not looked for"
    elif corrected.local_rmsd_px is None:
        yield "Local motion: no model could be fitted to the patches"
    else:
        yield f"Local motion: model fits the patches to {corrected.local_rmsd_px:.3f} px r.m.s."
    yield "Frame, shift x, shift y (px of the movie):"
    for number, (x, y) in enumerate(corrected.shifts_px, 1):
        yield f"{number:5d} {x:10.3f} {y:10.3f}"
