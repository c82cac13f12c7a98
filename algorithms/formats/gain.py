"""Gain references: multiplicative, in the orientation and size of the movie.

Source: preprocessing.md sections 1.2, 1.5 and 1.6.
"""

import os
from pathlib import Path

import numpy as np

from algorithms.formats import dm4, tiff
from algorithms.formats.defectlists import tfs_mask
from algorithms.formats.errors import FormatError
from algorithms.formats.movie import open_movie, structure_of
from algorithms.formats.mrcmovie import MrcMovie
from algorithms.formats.tiffmovie import TiffMovie

_DM = (".dm3", ".dm4")
_GAIN = ".gain"  # TFS's own: a TIFF, and no camera's TIFF movies are turned like it
_DEFECTS_TAG = 65100  # of such a file: XML


def load_gain(
    path: str | os.PathLike[str],
    shape: tuple[int, int],
    rotation: int = 0,
    flip: int = 0,
    *,
    is_eer: bool = False,
) -> np.ndarray:
    """Gain `[ny, nx]`, float32: corrected = raw x gain; 0 marks a defect.

    Parameters
    ----------
    path
        MRC, TIFF, DM3 or DM4. A TIFF and a DM file are turned upside down like TIFF movies are, a
        `.gain` file, which is a TIFF as well, is not: so it fits the events of its camera.
    shape
        (ny, nx) of the movie. A gain that is smaller or larger by a whole factor (the same along
        both axes: counting gain and super-resolution movie or the reverse) is replicated or
        averaged; a block with a defect in it is a defect.
    rotation
        Quarter turns, 0 to 3, before the flip: one turn is out[x, H-1-y] = in[y, x].
    flip
        0 none, 1 upside down, 2 left-right.
    is_eer
        The movie is an EER one. Then every file but `.gain` is taken, as RELION does, for one that
        divides: what multiplies is its mean over it.

    Raises
    ------
    FormatError
        BAD_HEADER: other sizes, several sections, values that are not finite, or all 0.
    ValueError
        `rotation` or `flip` out of range.
    """
    if rotation not in range(4) or flip not in range(3):
        raise ValueError(f"gain rotation {rotation} must be 0 to 3 and flip {flip} 0 to 2")
    gain = np.rot90(read_gain(path), -rotation)
    gain = (gain, gain[::-1], gain[:, ::-1])[flip]
    gain = _fit(gain, shape, path)
    if is_eer and Path(path).suffix.lower() != _GAIN:
        gain = inverted(gain)
    return np.ascontiguousarray(gain)


def gain_factor(path: str | os.PathLike[str], shape: tuple[int, int]) -> float:
    """Return by what a gain's sides are longer than those of frames `(ny, nx)`: 1 where it fits.

    Of its header only; a quarter turn makes no difference.

    Raises
    ------
    FormatError
        As `read_image`.
    """
    if Path(path).suffix.lower() in _DM:
        size = dm4.load(path).shape
    else:
        found = structure_of(path)
        size = (found.ny, found.nx)
    return max(size) / max(shape)


def as_divisor(gain: np.ndarray) -> np.ndarray:
    """Return the MRC file that RELION makes this gain of when it corrects an EER movie."""
    return _divided(1.0, gain)


def read_gain(path: str | os.PathLike[str]) -> np.ndarray:
    """Return a gain `[ny, nx]`, float32, in MRC orientation, as it is in its file.

    The defects that a `.gain` file lists are 0.

    Raises
    ------
    FormatError
        As `read_image`; BAD_HEADER: values that are not finite, or all 0.
    """
    gain = read_image(path)
    if Path(path).suffix.lower() == _GAIN:
        gain[_listed_defects(path, gain.shape)] = 0.0
    if not np.isfinite(gain).all() or not gain.any():
        raise FormatError(path, "BAD_HEADER", "the gain has values that are not finite, or all 0")
    return gain


def _listed_defects(path: str | os.PathLike[str], shape: tuple[int, ...]) -> np.ndarray:
    with open(path, "rb") as file:
        text = tiff.first_text(file, path, _DEFECTS_TAG)
    if not text:
        return np.zeros(shape, bool)
    try:
        return tfs_mask(text, (shape[0], shape[1]))
    except ValueError as error:
        raise FormatError(path, "BAD_HEADER", f"tag {_DEFECTS_TAG}: {error}") from None


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the file's only image `[ny, nx]`, float32, in MRC orientation.

    Raises
    ------
    FormatError
        As `open_movie` and `dm4.read_image`; BAD_HEADER where there are several images.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _DM:
        return dm4.load(path)
    with open_movie(path) as file:
        if not isinstance(file, MrcMovie | TiffMovie) or file.n_frames != 1:
            detail = f"a gain with {file.n_frames} sections, not 1"
            if file.format == "eer":
                detail = "an EER movie is no gain reference"
            raise FormatError(path, "BAD_HEADER", detail)
        if isinstance(file, TiffMovie):
            file.as_stored = suffix == _GAIN
        return next(file.frames())[1].astype(np.float32)


def inverted(gain: np.ndarray) -> np.ndarray:
    """Return mean over value; 0 stays 0. The mean is over all pixels, as RELION takes it."""
    return _divided(float(gain.mean(dtype=np.float64)), gain)


def _divided(by: float, gain: np.ndarray) -> np.ndarray:
    out = np.zeros(gain.shape, np.float32)
    with np.errstate(over="ignore"):
        np.divide(by, gain, out=out, where=gain != 0)
    out[~np.isfinite(out)] = 0.0  # of values next to nothing: defects as well
    return out


def _fit(gain: np.ndarray, shape: tuple[int, int], path: str | os.PathLike[str]) -> np.ndarray:
    """Replicate or average by a whole factor.

    RELION adds up where an EER movie is rendered more coarsely than its gain. For a gain that
    divides that comes to the same, as only its pattern counts; one that multiplies would multiply
    the number of electrons as well.
    """
    (ny, nx), (gy, gx) = shape, gain.shape
    if (gy, gx) == (ny, nx):
        return gain
    factor = ny // gy
    if factor > 1 and (gy * factor, gx * factor) == (ny, nx):
        return gain.repeat(factor, axis=0).repeat(factor, axis=1)
    factor = gy // ny
    if factor > 1 and (ny * factor, nx * factor) == (gy, gx):
        blocks = gain.reshape(ny, factor, nx, factor)
        return np.where(blocks.all(axis=(1, 3)), blocks.mean(axis=(1, 3)), np.float32(0))
    raise FormatError(
        path,
        "BAD_HEADER",
        f"the gain is {gx} x {gy} px after rotation, the movie {nx} x {ny}; "
        "another camera's gain, or a wrong rotation",
    )
