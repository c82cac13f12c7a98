"""Bad pixels of a camera, from a list of rectangles or a map.

Source: preprocessing.md section 1.7.
"""

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from algorithms.formats.defectlists import TurnedList, serialem_mask
from algorithms.formats.errors import FormatError
from algorithms.formats.gain import read_image

MAX_TEXT_BYTES = 2**20
_SERIALEM = re.compile(r"CameraSize|RotationAndFlip|K2Type|Bad")


def load_defects(path: str | os.PathLike[str], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Bad pixels `[ny, nx]` of a file.

    Parameters
    ----------
    path
        A `.txt` list (see `defect_mask`) or one of SerialEM's (`serialem_mask`), or a map in MRC or
        TIFF: what is not 0 is bad. A TIFF is turned upside down as TIFF movies are.
    shape
        (ny, nx) of the movie; a map has the same.

    Raises
    ------
    FormatError
        BAD_HEADER: a list that is none, a list or map of another size, or everything bad;
        UNSUPPORTED: a list that may be turned against the frames; TOO_LARGE; or as `open_movie`.
    """
    if Path(path).suffix.lower() == ".txt":
        mask = _of_text(path, shape)
    else:
        image = read_image(path)
        if image.shape != shape:
            raise FormatError(
                path,
                "BAD_HEADER",
                f"the map of defects is {image.shape[1]} x {image.shape[0]} px, the movie "
                f"{shape[1]} x {shape[0]}",
            )
        mask = image != 0
    if mask.all():
        raise FormatError(path, "BAD_HEADER", "every pixel is a defect: is it a map of good ones?")
    return mask


def _of_text(path: str | os.PathLike[str], shape: tuple[int, int]) -> NDArray[np.bool_]:
    size = os.stat(path).st_size
    if size > MAX_TEXT_BYTES:
        raise FormatError(path, "TOO_LARGE", f"{size} bytes, the limit is {MAX_TEXT_BYTES}")
    text = Path(path).read_bytes().decode("latin-1")
    try:
        if _SERIALEM.search(text):
            return serialem_mask(text, shape)
        return defect_mask(text, shape)
    except TurnedList as error:
        raise FormatError(path, "UNSUPPORTED", str(error)) from None
    except ValueError as error:
        raise FormatError(path, "BAD_HEADER", str(error)) from None


def defect_mask(text: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Bad pixels of a UCSF defect text as an array of `shape` (ny, nx).

    Each line is `x y w h` in px of the movie as read; rectangles are clipped to the image.

    Raises
    ------
    ValueError
        A line is not four whole numbers.
    """
    mask = np.zeros(shape, dtype=bool)
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 4 or not all(re.fullmatch(r"-?\d{1,9}", field) for field in fields):
            raise ValueError(f"line {number}: {line[:80]!r} is not `x y width height` in whole px")
        x, y, width, height = (int(field) for field in fields)
        mask[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = True
    return mask
