"""Lists of defects as cameras' own software writes them: SerialEM's text, TFS's XML.

Both count pixels from 0 and give the last one of a range, not its length. SerialEM counts rows from
the top of the image as it is shown, TFS in the order in which its gain reference is stored.

Source: preprocessing.md sections 1.6 and 1.7; the keys that SerialEM and IMOD write.
"""

import re

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
_SIZES = ("CameraSizeX", "CameraSizeY")
# key -> numbers that it takes at once
_LISTS = {"BadColumns": 1, "BadRows": 1, "BadPixels": 2, "PartialBadColumn": 4, "PartialBadRow": 4}
_NUMBERS = {"RotationAndFlip", "WasScaled", "K2Type", "FalconType", "NumToAvgSuperRes", *_SIZES}
_TFS = re.compile(r"<(row|col|area|point|nonmaskingpoint)\b[^>]*>([^<]*)</\1\s*>")
_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


class TurnedList(ValueError):
    """A list whose places are of a camera that may lie otherwise than the frames."""


def serialem_mask(text: str, shape: tuple[int, int]) -> Mask:
    """Bad pixels `[ny, nx]`, in MRC orientation, of a list that SerialEM wrote beside frames.

    Parameters
    ----------
    text
        Lines of a key and whole numbers.
    shape
        (ny, nx) of the movie: of the camera's size, or larger or smaller by a whole factor.

    Raises
    ------
    ValueError
        A line or size that does not fit, or a camera that is turned against the frames.
    """
    numbers, lists = _serialem_lines(text)
    if numbers.get("RotationAndFlip", 0) != 0:
        raise TurnedList(
            f"RotationAndFlip is {numbers['RotationAndFlip']}: the list may be turned against the "
            "frames; make a map with IMOD's `clip defectmap -D LIST MOVIE MAP`"
        )
    nx, ny = (numbers.get(name, 0) for name in _SIZES)
    finer, coarser = _factors((ny, nx), shape)  # before anything is allocated
    mask = np.zeros((ny, nx), bool)
    # A pixel of a list that was made finer stands for all that came of it.
    edge = {0: 1, 1: 2, 2: 4}.get(max(0, numbers.get("WasScaled", 0)), 1)
    for x, y in lists["BadPixels"]:
        mask[y : y + edge, x : x + edge] = True
    for (x,) in lists["BadColumns"]:
        mask[:, x] = True
    for (y,) in lists["BadRows"]:
        mask[y] = True
    for x, width, first, last in lists["PartialBadColumn"]:
        mask[first : last + 1, x : x + width] = True
    for y, height, first, last in lists["PartialBadRow"]:
        mask[y : y + height, first : last + 1] = True
    if (area := lists["UsableArea"]) and any(area[0]):
        top, left, bottom, right = area[0]
        usable = np.zeros_like(mask)
        usable[top : (bottom or ny) + 1, left : (right or nx) + 1] = True
        mask |= ~usable
    if coarser > 1:  # a pixel with a defect in it is one
        blocks = mask[::-1].reshape(shape[0], coarser, shape[1], coarser)
        return np.asarray(blocks.any((1, 3)))
    return mask[::-1].repeat(finer, 0).repeat(finer, 1)


def _serialem_lines(text: str) -> tuple[dict[str, int], dict[str, list[list[int]]]]:
    numbers: dict[str, int] = {}
    lists: dict[str, list[list[int]]] = {name: [] for name in (*_LISTS, "UsableArea")}
    for number, line in enumerate(text.splitlines(), 1):
        key, *fields = line.replace(",", " ").split() or ["#"]
        if key.startswith("#"):
            continue
        if not all(re.fullmatch(r"-?\d{1,6}", field) for field in fields):
            raise ValueError(f"line {number}: {line[:80]!r} is not a key and whole numbers")
        values = [int(field) for field in fields]
        size = 4 if key == "UsableArea" else _LISTS.get(key, 1)
        if key in lists and values and len(values) % size == 0 and min(values) >= 0:
            lists[key] += [values[i : i + size] for i in range(0, len(values), size)]
        elif key in _NUMBERS and len(values) == 1:
            numbers[key] = values[0]
        else:
            raise ValueError(f"line {number}: {line[:80]!r} is not of a list of SerialEM's")
    nx, ny = (numbers.get(name, 0) for name in _SIZES)
    for name, axis, end in (("BadColumns", 0, nx), ("BadRows", 0, ny), ("BadPixels", 0, nx)):
        far = [row[axis] for row in lists[name] if row[axis] >= end]
        if far:
            raise ValueError(f"{name} has {far[0]}, the camera {end} px along that axis")
    return numbers, lists


def _factors(camera: tuple[int, int], movie: tuple[int, int]) -> tuple[int, int]:
    """Return by how much a movie is sampled finer and coarser than its camera."""
    (cy, cx), (ny, nx) = camera, movie
    if cx > 0 and cy > 0:
        finer, coarser = max(1, ny // cy), max(1, cy // ny)
        if (ny * coarser, nx * coarser) == (cy * finer, cx * finer):
            return finer, coarser
    raise ValueError(f"CameraSizeX and CameraSizeY are {cx} and {cy}, the movie is {nx} x {ny} px")


def tfs_mask(text: str, shape: tuple[int, int]) -> Mask:
    """Bad pixels `[ny, nx]` of the XML in a `.gain` file, in the order in which that is stored.

    Rows and columns are numbers and ranges (`12-14`), areas `x1,y1,x2,y2`, points `x,y`.

    Raises
    ------
    ValueError
        Not such XML, or places outside the image.
    """
    if "<defects" not in text:
        raise ValueError(f"the defects are no XML of defects: {text[:60]!r}")
    mask = np.zeros(shape, bool)
    for kind, value in _TFS.findall(text):
        parts = [_RANGE.fullmatch(part.strip()) for part in value.split(",")]
        spans = [(int(p[1]), int(p[2] or p[1])) for p in parts if p is not None]
        expected = {"area": 4, "point": 2, "nonmaskingpoint": 2}.get(kind, len(parts))
        if not len(spans) == len(parts) == expected:
            raise ValueError(f"the defects have a {kind} {value[:40]!r}")
        _mark(mask, kind, spans)
    return mask


def _mark(mask: Mask, kind: str, spans: list[tuple[int, int]]) -> None:
    ny, nx = mask.shape
    boxes = []
    if kind == "row":
        boxes = [(0, first, nx - 1, last) for first, last in spans]
    elif kind == "col":
        boxes = [(first, 0, last, ny - 1) for first, last in spans]
    else:
        place = [first for first, _ in spans]
        boxes = [(*place[:2], *place[-2:])]
    for x1, y1, x2, y2 in boxes:
        if not (0 <= x1 <= x2 < nx and 0 <= y1 <= y2 < ny):
            raise ValueError(f"the defects have {kind} {x1},{y1} to {x2},{y2} of {nx} x {ny} px")
        mask[y1 : y2 + 1, x1 : x2 + 1] = True
