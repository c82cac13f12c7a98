"""What motion correction takes and gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

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
    dose_weighting, save_nodw
        Which sums to make. Without dose weighting the plain sum is the image.
    dose_per_ps, ps_size, ps_pixel_size_A
        Frames are summed to this dose before amplitudes are taken; box and target pixel.
    hot_pixel_sigma, find_hot_pixels, defect_window_px
        Threshold over the mean of the plain sum; half width of the window of good neighbours.
    early_dose
        e/A^2 that split early from late motion.
    hold_bytes
        Movies up to this size stay in memory in their native type; larger ones are read twice.
    """

    pixel_size_A: float
    voltage_kV: float
    dose_per_frame: float
    pre_exposure: float = 0.0
    first_frame: int = 1
    last_frame: int = -1
    bin_factor: float = 1.0
    bfactor_px2: float | None = None
    tolerance_px: float = 0.1
    max_iter: int = 10
    search_range_px: float = 50.0
    dose_weighting: bool = True
    save_nodw: bool = False
    dose_per_ps: float = 4.0
    ps_size: int = 512
    ps_pixel_size_A: float = 1.4
    find_hot_pixels: bool = True
    hot_pixel_sigma: float = 6.0
    defect_window_px: int = 2
    early_dose: float = 4.0
    hold_bytes: int = 4 << 30

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
    image_nodw
        Plain sum of the aligned frames, or None.
    power_spectrum
        float32 `[ps, ps]` amplitudes for CTF estimation, origin at (ps // 2, ps // 2).
    ps_pixel_size_A, pixel_size_A
        Pixel that the spectrum and the images belong to.
    shifts_px
        float64 `[n_frames, 2]` (x, y), *applied* to every frame: corrected(x) = raw(x - shift).
        Zero in the first used frame, NaN in frames that were not used.
    hot_pixels
        int64 `[k, 2]` (x, y) of the pixels found by their brightness.
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
    power_spectrum: Tensor
    ps_pixel_size_A: float
    pixel_size_A: float
    shifts_px: np.ndarray
    hot_pixels: np.ndarray
    converged: bool
    iterations: int
    motion: MotionStatistics
    movie_shape: tuple[int, int, int]
    first_frame: int
