"""What motion correction takes and gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from algorithms.motion.field import Field

_BFACTOR_A2 = 100.0


class MotionError(ValueError):
    """A movie that cannot be corrected.

    Parameters
    ----------
    code
        `TOO_FEW_FRAMES` or `NOT_FINITE`.
    detail
        One sentence with the value found and the remedy.
    """

    def __init__(self, code: str, detail: str):
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class MovieLike(Protocol):
    """What is asked of a movie: its size and its frames in MRC orientation, native type."""

    @property
    def nx(self) -> int: ...  # noqa: D102
    @property
    def ny(self) -> int: ...  # noqa: D102
    @property
    def n_frames(self) -> int: ...  # noqa: D102

    def frames(self, first: int, last: int) -> Iterator[tuple[int, np.ndarray]]:
        """Give (0-based index, `[ny, nx]` array) of frames first .. last - 1, at every call."""
        ...


@dataclass(frozen=True, kw_only=True)
class MotionOptions:
    """How to correct a movie; px are unbinned px of the movie as read.

    Parameters
    ----------
    pixel_size_A, voltage_kV, dose_per_frame
        Of the movie; dose in e/A^2 at the specimen.
    frame_doses
        Dose in e/A^2 of each frame of the movie where they differ; None where they do not. Only
        the weights know of it.
    pre_exposure
        Dose in e/A^2 before the first frame of the movie.
    first_frame, last_frame
        1-based and inclusive; -1 is the last. Frames outside are not used at all.
    bin_factor
        Fourier cropping of the result; the binned size is made even.
    bfactor_px2
        Width of the low-pass filter of the alignment; None takes 100 A^2, which is RELION's
        150 px^2 at 0.82 A and, measured, keeps twice the accuracy of it at 2 A.
    tolerance_px, max_iter, search_range_px
        Of the alignment: stop when a round moves the frames less than this r.m.s.
    patches, group_frames
        Patches along (x, y) for the local motion, which needs at least three along both; frames
        summed before patches are aligned.
    dose_weighting, save_nodw, even_odd, save_ps
        Which sums to make. Without dose weighting the plain sum is the image; the sums of the
        even and of the odd frames are not weighted.
    dose_per_ps, ps_size, ps_pixel_size_A
        Frames are summed to this dose before amplitudes are taken; box and target pixel.
    hot_pixel_sigma, find_hot_pixels, hot_pixel_rule, defect_window_px
        Threshold in deviations of the plain sum; "robust" finds hot, cold and dead pixels by
        median and neighbours, "relion" hot ones by mean and deviation; half width of the window
        of good neighbours.
    skip_defects
        Leave bad pixels as they are, those of the gain and the map too.
    early_dose
        e/A^2 that split early from late motion.
    hold_bytes
        Movies of integers up to this size stay in memory in their native type; larger ones, and
        those in floating point, are read twice.
    """

    pixel_size_A: float
    voltage_kV: float
    dose_per_frame: float
    frame_doses: tuple[float, ...] | None = None
    pre_exposure: float = 0.0
    first_frame: int = 1
    last_frame: int = -1
    bin_factor: float = 1.0
    bfactor_px2: float | None = None
    tolerance_px: float = 0.1
    max_iter: int = 10
    search_range_px: float = 50.0
    patches: tuple[int, int] = (1, 1)
    group_frames: int = 1
    dose_weighting: bool = True
    save_nodw: bool = False
    even_odd: bool = False
    save_ps: bool = True
    dose_per_ps: float = 4.0
    ps_size: int = 512
    ps_pixel_size_A: float = 1.4
    find_hot_pixels: bool = True
    hot_pixel_sigma: float = 6.0
    hot_pixel_rule: str = "robust"
    skip_defects: bool = False
    defect_window_px: int = 2
    early_dose: float = 4.0
    hold_bytes: int = 5 << 28

    @property
    def alignment_bfactor_px2(self) -> float:
        """B of the alignment filter in unbinned px^2, the default filled in."""
        if self.bfactor_px2 is not None:
            return self.bfactor_px2
        return _BFACTOR_A2 / self.pixel_size_A**2


@dataclass(frozen=True, kw_only=True)
class MotionStatistics:
    """Length of the global track in unbinned px: whole, before and after `early_dose`."""

    total_px: float
    early_px: float
    late_px: float


@dataclass(frozen=True, kw_only=True)
class CorrectedMovie:
    """A corrected movie.

    Parameters
    ----------
    image
        float32 `[ny, nx]`, dose-weighted if that was asked for.
    image_nodw, image_even, image_odd
        Plain sum of the aligned frames, of the even ones (the first is even), of the odd; or None.
    power_spectrum
        float32 `[ps, ps]` amplitudes for CTF estimation, origin at (ps // 2, ps // 2); or None.
    ps_pixel_size_A, pixel_size_A
        Pixel that the spectrum and the images belong to.
    shifts_px
        float64 `[n_frames, 2]` (x, y), *applied* to every frame: corrected(x) = raw(x - shift).
        Zero in the first used frame, NaN in frames that were not used.
    field
        What the patches showed, None where none were aligned.
    hot_pixels
        int64 `[k, 2]` (x, y) of the pixels found by their brightness, cold ones too.
    converged, iterations
        Of the alignment.
    motion
        Length of the track.
    movie_shape
        (n_frames, ny, nx) as read.
    first_frame
        1-based.
    """

    image: Tensor
    image_nodw: Tensor | None
    image_even: Tensor | None
    image_odd: Tensor | None
    power_spectrum: Tensor | None
    ps_pixel_size_A: float
    pixel_size_A: float
    shifts_px: np.ndarray
    field: Field | None
    hot_pixels: np.ndarray
    converged: bool
    iterations: int
    motion: MotionStatistics
    movie_shape: tuple[int, int, int]
    first_frame: int

    @property
    def local_rmsd_px(self) -> float | None:
        """Distance (r.m.s.) of what the patches showed from the model; None without a model."""
        if self.field is None or self.field.model is None:
            return None
        return float(np.hypot(*self.field.model.rmsd_px))
