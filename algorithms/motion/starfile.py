"""The per-movie STAR file that RELION's polishing and plots read.

Source: preprocessing.md section 2.12.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from algorithms.formats.star import Table
from algorithms.motion.field import Field
from algorithms.motion.model import COEFFICIENTS, LocalModel
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
    eer: tuple[int, int] | None = None,
) -> dict[str, Table]:
    """Blocks of `<root>.star`.

    Parameters
    ----------
    corrected, options
        The result and what it was made with.
    movie_name, gain_name, defect_name
        As the project names them.
    version
        Of coldstream; tells own files, whose coefficients are in unbinned px, from RELION's.
    eer
        (upsampling, raw frames per fraction) of an EER movie.
    """
    names = {
        "rlnMicrographMovieName": movie_name,
        "rlnMicrographGainName": gain_name,
        "rlnMicrographDefectFile": defect_name,
    }
    field = corrected.field
    model = None if field is None else field.model
    general = _general(corrected, options, names, version)
    if eer is not None:
        general |= _of_eer(*eer)
    blocks = {
        "general": Table.of(general, loop=False),
        "global_shift": _global_shift(corrected.shifts_px),
    }
    if model is not None:
        blocks["local_motion_model"] = Table.of(
            {
                "rlnMotionModelCoeffsIdx": np.arange(2 * COEFFICIENTS),
                "rlnMotionModelCoeff": [f"{c:.9g}" for c in model.coefficients.ravel()],
            }
        )
    if len(corrected.hot_pixels):
        blocks["hot_pixels"] = Table.of(
            {
                "rlnCoordinateX": corrected.hot_pixels[:, 0].astype(np.float64),
                "rlnCoordinateY": corrected.hot_pixels[:, 1].astype(np.float64),
            }
        )
    if field is not None and model is not None:
        blocks["local_shift"] = _local_shift(field, corrected.first_frame)
    return blocks


def _global_shift(shifts_px: np.ndarray) -> Table:
    shifts = np.where(np.isfinite(shifts_px), shifts_px, UNUSED)
    return Table.of(
        {
            "rlnMicrographFrameNumber": np.arange(1, len(shifts) + 1),
            "rlnMicrographShiftX": shifts[:, 0],
            "rlnMicrographShiftY": shifts[:, 1],
        }
    )


def _general(
    corrected: CorrectedMovie, options: MotionOptions, names: dict[str, str | None], version: str
) -> dict[str, list[str]]:
    n_frames, ny, nx = corrected.movie_shape
    has_model = corrected.field is not None and corrected.field.model is not None
    sizes = {"rlnImageSizeX": nx, "rlnImageSizeY": ny, "rlnImageSizeZ": n_frames}
    numbers = {
        "rlnMicrographBinning": options.bin_factor,
        "rlnMicrographOriginalPixelSize": options.pixel_size_A,
        "rlnMicrographDoseRate": options.dose_per_frame,
        "rlnMicrographPreExposure": options.pre_exposure,
        "rlnVoltage": options.voltage_kV,
    }
    return {
        **{label: [str(size)] for label, size in sizes.items()},
        **{label: [name] for label, name in names.items() if name is not None},
        **{label: [f"{number:.6f}"] for label, number in numbers.items()},
        "rlnMicrographStartFrame": [str(corrected.first_frame)],
        "rlnMotionModelVersion": ["1" if has_model else "0"],
        "rlnColdstreamVersion": [version],
    }


def _local_shift(field: Field, first_frame: int) -> Table:
    """What the patches showed, group by group."""
    groups, patches = len(field.frame), len(field.centre_px)
    # The whole frame nearest to the middle of a group, 1-based.
    frame = np.floor(field.frame + first_frame).astype(int)
    observed = field.observed_px.transpose(1, 0, 2).reshape(-1, 2)
    return Table.of(
        {
            "rlnMicrographFrameNumber": np.repeat(frame, patches),
            "rlnCoordinateX": np.tile(field.centre_px[:, 0], groups),
            "rlnCoordinateY": np.tile(field.centre_px[:, 1], groups),
            "rlnMicrographShiftX": observed[:, 0],
            "rlnMicrographShiftY": observed[:, 1],
        }
    )


def _of_eer(upsampling: int, grouping: int) -> dict[str, list[str]]:
    return {"rlnEERUpsampling": [str(upsampling)], "rlnEERGrouping": [str(grouping)]}


@dataclass(frozen=True, kw_only=True)
class SavedMotion:
    """The motion of a movie, from its STAR file.

    Parameters
    ----------
    shape
        (n_frames, ny, nx) of the movie as read.
    shifts_px
        `[n_frames, 2]` (x, y) of the whole frames, unbinned px; frames that were not used have
        that of the nearest earlier used one, else 0.
    model
        Local motion in unbinned px, or None.
    first_frame
        1-based.
    binning, pixel_size_A
        Of the micrograph, and of the movie.
    movie_name, gain_name
        As the project names them.
    hot_pixels
        int64 `[k, 2]` (x, y).
    """

    shape: tuple[int, int, int]
    shifts_px: np.ndarray
    model: LocalModel | None
    first_frame: int
    binning: float
    pixel_size_A: float
    movie_name: str
    gain_name: str | None
    hot_pixels: np.ndarray

    def shift_px(self, frame: int, x_px: ArrayLike, y_px: ArrayLike) -> np.ndarray:
        """Shift `[..., 2]` (x, y) applied to a frame (0-based) at px of the unbinned micrograph."""
        _, ny, nx = self.shape
        x, y = np.broadcast_arrays(np.asarray(x_px) / nx - 0.5, np.asarray(y_px) / ny - 0.5)
        shift = np.broadcast_to(self.shifts_px[frame], (*x.shape, 2))
        if self.model is None:
            return shift.copy()
        z = np.full(x.shape, float(frame - self.first_frame + 1))
        return shift + self.model.shift(z, x, y)


def read_motion(tables: Mapping[str, Table]) -> SavedMotion:
    """Motion from the blocks of a per-movie STAR file, ours or RELION's.

    RELION writes the coefficients of the local model in px of the binned micrograph, and the
    shifts of whole frames in px of the movie; ours are all in px of the movie.

    Raises
    ------
    ValueError
        A block, column or value is missing.
    """
    general = tables["general"].row(0) if "general" in tables else {}
    for label in ("rlnImageSizeX", "rlnImageSizeY", "rlnImageSizeZ", "rlnMicrographMovieName"):
        if label not in general:
            raise ValueError(f"the block general of a movie's STAR file has no {label}")
    binning = float(general.get("rlnMicrographBinning", 1.0))
    shape = tuple(int(general[f"rlnImageSize{axis}"]) for axis in "ZYX")
    hot = tables.get("hot_pixels")
    gain = general.get("rlnMicrographGainName")
    return SavedMotion(
        shape=(shape[0], shape[1], shape[2]),
        shifts_px=_global_shifts(tables, shape[0]),
        model=_model(tables, 1.0 if "rlnColdstreamVersion" in general else binning),
        first_frame=int(general.get("rlnMicrographStartFrame", 1)),
        binning=binning,
        pixel_size_A=float(general.get("rlnMicrographOriginalPixelSize", 1.0)),
        movie_name=general["rlnMicrographMovieName"],
        gain_name=None if gain in (None, "", "None") else gain,
        hot_pixels=np.zeros((0, 2), np.int64) if hot is None else _places(hot),
    )


def _places(hot: Table) -> np.ndarray:
    columns = [hot.floats("rlnCoordinateX"), hot.floats("rlnCoordinateY")]
    return np.column_stack(columns).round().astype(np.int64)


def _global_shifts(tables: Mapping[str, Table], n_frames: int) -> np.ndarray:
    if "global_shift" not in tables:
        raise ValueError("a movie's STAR file has no block global_shift")
    table = tables["global_shift"]
    shifts = np.full((n_frames, 2), np.nan)
    rows = table.ints("rlnMicrographFrameNumber") - 1
    if len(rows) and not 0 <= rows.min() <= rows.max() < n_frames:
        raise ValueError(f"global_shift has frame {rows.max() + 1} of {n_frames}")
    found = [table.floats("rlnMicrographShiftX"), table.floats("rlnMicrographShiftY")]
    shifts[rows] = np.column_stack(found)
    shifts[(shifts <= UNUSED + 1).any(1)] = np.nan
    last = np.zeros(2)
    for row in shifts:
        if np.isnan(row).any():
            row[:] = last
        last = row
    return shifts


def _model(tables: Mapping[str, Table], scale: float) -> LocalModel | None:
    table = tables.get("local_motion_model")
    general = tables["general"].row(0)
    if table is None or general.get("rlnMotionModelVersion", "0") != "1":
        return None
    coefficients = np.full(2 * COEFFICIENTS, np.nan)
    coefficients[table.ints("rlnMotionModelCoeffsIdx")] = table.floats("rlnMotionModelCoeff")
    if not np.isfinite(coefficients).all():
        raise ValueError(f"local_motion_model must have {2 * COEFFICIENTS} coefficients")
    return LocalModel(
        coefficients=coefficients.reshape(2, COEFFICIENTS) * scale, rmsd_px=np.full(2, np.nan)
    )
