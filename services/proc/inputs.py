"""What proc's tasks read: micrographs, and coordinates in the forms that pickers write."""

from pathlib import Path

import numpy as np

from algorithms.formats import mrc, star
from algorithms.formats.errors import FormatError
from algorithms.picking.cbox import read_cbox
from services.kit.errors import Code, Refused

# What RELION writes for a particle that was picked by hand.
UNKNOWN_FOM = -999.0


def read_micrograph(project: Path, name: str) -> np.ndarray:
    """Return a micrograph `[ny, nx]`.

    Raises
    ------
    Refused
        The file is damaged or holds no image.
    """
    try:
        image = mrc.read(project / name)
    except FileNotFoundError as error:
        raise Refused(Code.READ_ERROR, f"{name} does not exist: make it anew") from error
    except FormatError as error:
        raise Refused(Code(error.code), str(error)) from error
    if image.ndim != 2:
        raise Refused(Code.BAD_HEADER, f"{name} holds {image.shape[0]} images, not one micrograph")
    return image


def read_coordinates(
    path: Path, minimum: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y and figure of merit of the picks in a file that are above a minimum.

    Raises
    ------
    Refused
        The file holds no coordinates, or some that are no numbers.
    """
    try:
        return coordinates(read_picks(path), minimum)
    except star.StarError as error:
        raise Refused(Code.READ_ERROR, f"{path} holds no coordinates: {error}") from error


def read_picks(path: Path) -> star.Table:
    """Return coordinates: STAR, `.cbox`, `.box` (corner and size), or x and y in lines of text.

    Raises
    ------
    Refused
        It is none of these.
    """
    try:
        if path.suffix == ".star":
            blocks = star.load(path)
            return blocks.get("") or next(iter(blocks.values()), star.Table.of({}))
        if path.suffix == ".cbox":
            return read_cbox(path)
        lines = [line.split()[:4] for line in path.read_text().splitlines() if line.strip()]
        rows = [[float(word) for word in words] for words in lines]
        if path.suffix == ".box":
            rows = [[x + width / 2, y + height / 2] for x, y, width, height in rows]
        x, y = ([row[axis] for row in rows] for axis in (0, 1))
        return star.Table.of({"rlnCoordinateX": x, "rlnCoordinateY": y})
    except FileNotFoundError as error:
        raise Refused(Code.READ_ERROR, f"{path} does not exist: pick again") from error
    except (ValueError, IndexError) as error:
        raise Refused(Code.READ_ERROR, f"{path} holds no coordinates: {error}") from error


def coordinates(
    picks: star.Table, minimum: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y and figure of merit of picks above a minimum; a picker may give none."""
    if not len(picks):
        empty = np.zeros(0)
        return empty, empty, empty
    x, y = picks.floats("rlnCoordinateX"), picks.floats("rlnCoordinateY")
    if "rlnAutopickFigureOfMerit" not in picks.columns:
        return x, y, np.full(len(x), UNKNOWN_FOM)
    fom = picks.floats("rlnAutopickFigureOfMerit")
    keep = np.ones(len(x), bool) if minimum is None else fom > minimum
    return x[keep], y[keep], fom[keep]
