"""Numbers that follow from others: pixel, binning, doses, grouping, EER fractions, boxes. Pure.

Every function takes what is known and returns None where something it needs is not: nothing is
invented. Pixels: *movie* is that of the file, *sensor* that of the unbinned sensor without
super-resolution, *processing* that of the micrograph after motion correction.

Source: acquisition.md sections 1.9 (rules), 1.13 (their faults), 2.5, 3.3 and 6.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from schemer.relionit_rules import Boxes, mdcatch_boxes, mdcatch_helix_boxes

# Frames with less dose than this are too faint to be aligned one by one.
FAINT_E_A2 = 0.8
MOST_GROUPED = 3
# RELION's motion correction refuses movies with fewer frames.
FEWEST_FRAMES = 3
# Widths and heights of sensors in pixels, without super-resolution: K3, K2, all Falcons.
SENSORS_PX = ((5760, 4092), (3838, 3710), (4096, 4096))
# Electrons counted per electron sent. Ice, filter and coincidence take up to three quarters in
# thick specimens; a camera that counts more than it gets has a dose in other units.
COUNTED_LOW, COUNTED_HIGH = 0.25, 1.25


class Sampling(NamedTuple):
    """How the movie's pixels lie on the sensor's."""

    super_resolution: int  # movie pixels per sensor pixel along one axis, before binning
    binning: int  # sensor pixels per image pixel

    @property
    def per_sensor_pixel(self) -> float:
        """Movie pixels per sensor pixel along one axis: 2 super-resolution, 0.5 binned by two."""
        return self.super_resolution / self.binning


def sampling(
    factor: int | None,
    binning: float | None,
    counting: bool | None = None,
    super_resolution: bool | None = None,
) -> Sampling | None:
    """Return the sampling that metadata states, None where it is silent.

    Parameters
    ----------
    factor
        EPU's SuperResolutionFactor; it counts only where electrons are counted.
    binning
        Of the camera; 0.5 is SerialEM's way to say super-resolution.
    counting, super_resolution
        What else is stated.
    """
    if binning is not None and binning < 1:
        return Sampling(round(1 / binning), 1)
    if factor is None and super_resolution is None and binning is None:
        return None
    times = (factor or 1) if counting is not False else 1
    if super_resolution and times == 1:
        times = 2
    return Sampling(times, round(binning or 1))


def sampling_of_size(size_px: Sequence[int]) -> float | None:
    """Return movie pixels per sensor pixel, told by the size alone; None for unknown cameras.

    Parameters
    ----------
    size_px
        Width and height of the movie, in either order: K2 files can be transposed.
    """
    width, height = max(size_px), min(size_px)
    for long, short in SENSORS_PX:
        for per_pixel in (0.5, 1.0, 2.0):
            if (width, height) == (int(long * per_pixel), int(short * per_pixel)):
                return per_pixel
    return None


def movie_pixel(sensor_pixel_A: float, sampled: Sampling) -> float:
    """Return the movie's pixel in A from a calibrated pixel of the sensor."""
    return sensor_pixel_A / sampled.per_sensor_pixel


def correction_binning(per_sensor_pixel: float | None) -> int:
    """Return by how much motion correction bins: back to the sensor's pixel, never below 1."""
    return 1 if per_sensor_pixel is None else max(1, round(per_sensor_pixel))


# ---- doses


def dose_per_frame(dose_e_A2: float | None, n_frames: int | None) -> float | None:
    """Return e/A^2 per frame; None when dose or frames are unknown (a stated 0 is unknown)."""
    return dose_e_A2 / n_frames if dose_e_A2 and n_frames else None


def dose_of_pixels(dose_e_px: float | None, pixel_A: float | None) -> float | None:
    """Return e/A^2 from electrons per pixel; EPU's TotalDose and EER headers count per pixel."""
    return dose_e_px / pixel_A**2 if dose_e_px and pixel_A else None


def dose_of_rate(
    rate_e_px_s: float | None, exposure_s: float | None, sensor_pixel_A: float | None
) -> float | None:
    """Return e/A^2 from the rate at the camera: a lower bound, for what the specimen took lacks."""
    return dose_of_pixels((rate_e_px_s or 0.0) * (exposure_s or 0.0), sensor_pixel_A)


def uneven_doses(dose_e_A2: float, raw_frames: Sequence[int]) -> tuple[tuple[float, int], ...]:
    """Return (dose of a fraction, how many such follow), for fractions of different length.

    Parameters
    ----------
    dose_e_A2
        Of the whole exposure.
    raw_frames
        Camera frames in each fraction.
    """
    each = dose_e_A2 / sum(raw_frames)
    runs: list[tuple[float, int]] = []
    for frames in raw_frames:
        dose = each * frames
        if runs and math.isclose(runs[-1][0], dose):
            runs[-1] = dose, runs[-1][1] + 1
        else:
            runs.append((dose, 1))
    return tuple(runs)


def counted_share(
    counts_px_frame: float, dose_frame_e_A2: float, movie_pixel_A: float
) -> tuple[float, bool]:
    """Return counted electrons per electron sent, and whether that is believable.

    Parameters
    ----------
    counts_px_frame
        Mean of the raw counts of a counting camera, per movie pixel and frame.
    dose_frame_e_A2
        Dose of a frame as derived.
    movie_pixel_A
        Of the file.
    """
    share = counts_px_frame / (dose_frame_e_A2 * movie_pixel_A**2)
    return share, COUNTED_LOW <= share <= COUNTED_HIGH


def conflicting(values: Iterable[float | None], tolerance: float) -> bool:
    """Tell whether the known values differ by more than a share of the largest."""
    known = [value for value in values if value]
    return bool(known) and max(known) - min(known) > tolerance * max(known)


# ---- frames


def frame_groups(dose_frame_e_A2: float | None) -> int:
    """Return how many frames are aligned as one: 1, or 2 or 3 of faint ones."""
    if dose_frame_e_A2 is None or dose_frame_e_A2 >= FAINT_E_A2:
        return 1
    return 2 if 2 * dose_frame_e_A2 >= FAINT_E_A2 else MOST_GROUPED


class EerPlan(NamedTuple):
    """How the raw frames of an EER movie become fractions."""

    group: int  # raw frames per fraction
    fractions: int
    leftover: int  # raw frames at the end that RELION drops
    dose_per_fraction_e_A2: float
    dose_used_e_A2: float  # of all fractions


def eer_plan(
    n_frames: int,
    dose_e_A2: float | None,
    target_e_A2: float = 1.0,
    fewest: int = FEWEST_FRAMES,
) -> EerPlan | None:
    """Return the grouping whose fractions are nearest to a dose; None when the dose is unknown.

    Parameters
    ----------
    n_frames
        Raw frames, counted in the file.
    dose_e_A2
        Of all raw frames.
    target_e_A2
        Dose wanted per fraction.
    fewest
        Fractions that must come out, as far as there are frames.
    """
    raw = dose_per_frame(dose_e_A2, n_frames)
    if raw is None:
        return None
    group = max(1, min(round(target_e_A2 / raw), n_frames // fewest))
    fractions, leftover = divmod(n_frames, group)
    return EerPlan(group, fractions, leftover, group * raw, fractions * group * raw)


# ---- boxes


class Suggestion(NamedTuple):
    """Sizes that follow from the particle; px of the micrograph at the processing pixel."""

    boxes: Boxes
    distance_px: int | None = None  # between boxes along a helix


def boxes(diameter_A: float, processing_pixel_A: float, *, is_helix: bool = False) -> Suggestion:
    """Return mask, box and downscaled box for a particle's diameter or a filament's width."""
    if not is_helix:
        return Suggestion(mdcatch_boxes(diameter_A, processing_pixel_A))
    found = mdcatch_helix_boxes(diameter_A, processing_pixel_A)
    return Suggestion(found, round(0.1 * found.box_px))
