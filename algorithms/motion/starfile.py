"""The per-movie STAR file that RELION's polishing and plots read.

Source: preprocessing.md section 2.12.
"""

import numpy as np

from algorithms.formats.star import Table
from algorithms.motion.types import CorrectedMovie, MotionOptions

# What RELION writes for the shift of a frame it did not use.
UNUSED = -9999.0


def motion_star(
    corrected: CorrectedMovie,
    options: MotionOptions,
    *,
    movie_name: str,
    version: str,
    gain_name: str | None = None,
    defect_name: str | None = None,
) -> dict[str, Table]:
    """Blocks of `<root>.star` for a whole-frame correction (motion model version 0).

    Parameters
    ----------
    corrected, options
        The result and what it was made with.
    movie_name, gain_name, defect_name
        As the project names them.
    version
        Of coldstream; tells own files, whose coefficients are in unbinned px, from RELION's.
    """
    n_frames, ny, nx = corrected.movie_shape
    general: dict[str, list[str]] = {
        "rlnImageSizeX": [str(nx)],
        "rlnImageSizeY": [str(ny)],
        "rlnImageSizeZ": [str(n_frames)],
        "rlnMicrographMovieName": [movie_name],
    }
    if gain_name is not None:
        general["rlnMicrographGainName"] = [gain_name]
    if defect_name is not None:
        general["rlnMicrographDefectFile"] = [defect_name]
    general |= {
        "rlnMicrographBinning": [f"{options.bin_factor:.6f}"],
        "rlnMicrographOriginalPixelSize": [f"{options.pixel_size_A:.6f}"],
        "rlnMicrographDoseRate": [f"{options.dose_per_frame:.6f}"],
        "rlnMicrographPreExposure": [f"{options.pre_exposure:.6f}"],
        "rlnVoltage": [f"{options.voltage_kV:.6f}"],
        "rlnMicrographStartFrame": [str(corrected.first_frame)],
        "rlnMotionModelVersion": ["0"],
        "rlnColdstreamVersion": [version],
    }
    shifts = np.where(np.isfinite(corrected.shifts_px), corrected.shifts_px, UNUSED)
    blocks = {
        "general": Table.of(general, loop=False),
        "global_shift": Table.of(
            {
                "rlnMicrographFrameNumber": np.arange(1, n_frames + 1),
                "rlnMicrographShiftX": shifts[:, 0],
                "rlnMicrographShiftY": shifts[:, 1],
            }
        ),
    }
    if len(corrected.hot_pixels):
        blocks["hot_pixels"] = Table.of(
            {
                "rlnCoordinateX": corrected.hot_pixels[:, 0].astype(np.float64),
                "rlnCoordinateY": corrected.hot_pixels[:, 1].astype(np.float64),
            }
        )
    return blocks
