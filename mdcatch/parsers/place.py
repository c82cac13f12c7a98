"""Where in an EPU session a file belongs, by its path alone.

Source: acquisition.md sections 2.1, 2.2.
"""

import re
from datetime import datetime

from mdcatch.parsers.record import Record

_FLAGS = re.IGNORECASE | re.ASCII
_EXPOSURE = re.compile(
    r"FoilHole_(?P<hole>\d{1,20})_Data_(?P<area>\d{1,20})_(?P<seq>\d{1,20})(?:[_-].*|\..*)?", _FLAGS
)
_HOLE = re.compile(r"FoilHole_(\d{1,20})_.*", _FLAGS)
_SQUARE_FOLDER = re.compile(r"GridSquare_(\d{1,20})", _FLAGS)
_TIME = re.compile(r"_(\d{8})_(\d{4})(\d{2})?(?=[-_.]|$)", _FLAGS)


def split(path: str) -> list[str]:
    """Return the components of a path of either kind of slash."""
    return [part for part in path.replace("\\", "/").split("/") if part]


def base_name(path: str) -> str:
    """Return the last component of a path of either kind of slash, "" of an empty one."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def put_place(record: Record, path: str) -> None:
    """Add grid square, foil hole, acquisition area and running number, where the path has them.

    Parameters
    ----------
    record
        Is added to.
    path
        Of the file, with its folders.
    """
    *folders, name = split(path) or [""]
    square = next(filter(None, map(_SQUARE_FOLDER.fullmatch, reversed(folders))), None)
    if square:
        record.put("grid_square_id", square[1], "name")
    if exposure := _EXPOSURE.fullmatch(name):
        record.put("foil_hole_id", exposure["hole"], "name")
        record.put("acquisition_area_id", exposure["area"], "name")
        record.put("acquisition_seq_id", exposure["seq"], "name")
    elif hole := _HOLE.fullmatch(name):
        record.put("foil_hole_id", hole[1], "name")


def time_in(path: str) -> datetime | None:
    """Return the local time that EPU wrote into a name, without a zone; None if there is none."""
    times = list(_TIME.finditer(base_name(path)))
    if not times:
        return None
    found = times[-1]
    try:
        return datetime.strptime(f"{found[1]}{found[2]}{found[3] or '00'}", "%Y%m%d%H%M%S")
    except ValueError:
        return None
