"""Gain references: multiplicative, in the orientation and size of the movie.

Source: preprocessing.md section 1.5.
"""

import os

import numpy as np

from algorithms.formats.errors import FormatError
from algorithms.formats.movie import open_movie


def load_gain(
    path: str | os.PathLike[str], shape: tuple[int, int], rotation: int = 0, flip: int = 0
) -> np.ndarray:
    """Gain `[ny, nx]`, float32: corrected = raw x gain; 0 marks a defect.

    Parameters
    ----------
    path
        MRC or TIFF; a TIFF is turned upside down like TIFF movies are.
    shape
        (ny, nx) of the movie. A gain that is smaller or larger by a whole factor (the same along
        both axes: counting gain and super-resolution movie or the reverse) is replicated or
        averaged; a block with a defect in it is a defect.
    rotation
        Quarter turns, 0 to 3, before the flip: one turn is out[x, H-1-y] = in[y, x].
    flip
        0 none, 1 upside down, 2 left-right.

    Raises
    ------
    FormatError
        BAD_HEADER: other sizes, several sections, values that are not finite, or all 0.
    ValueError
        `rotation` or `flip` out of range.
    """
    if rotation not in range(4) or flip not in range(3):
        raise ValueError(f"gain rotation {rotation} must be 0 to 3 and flip {flip} 0 to 2")
    with open_movie(path) as file:
        if file.n_frames != 1:
            raise FormatError(path, "BAD_HEADER", f"a gain with {file.n_frames} sections, not 1")
        gain = next(file.frames())[1].astype(np.float32)
    if not np.isfinite(gain).all() or not gain.any():
        raise FormatError(path, "BAD_HEADER", "the gain has values that are not finite, or all 0")
    gain = np.rot90(gain, -rotation)
    gain = (gain, gain[::-1], gain[:, ::-1])[flip]
    return np.ascontiguousarray(_fit(gain, shape, path))


def _fit(gain: np.ndarray, shape: tuple[int, int], path: str | os.PathLike[str]) -> np.ndarray:
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
