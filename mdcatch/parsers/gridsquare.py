"""GridSquare_*.dm: the foil holes that EPU found in a grid square.

Source: acquisition.md section 2.7.
"""

from typing import Any

from mdcatch.parsers.contract import Contract
from mdcatch.parsers.epuxml import boolean
from mdcatch.parsers.place import base_name
from mdcatch.parsers.record import Record, checked, parsed
from mdcatch.parsers.safexml import Element

_FIRST = 5
_LISTS = ("TargetLocationsEfficient", "TargetLocations")  # the second on lacey grids
_USED = {"Id", "AtlasNodeId", "GridSquareImagePath"}


def parse_grid_square(content: bytes, name: str) -> Record:
    """Return the record of a grid square; `sections` has one entry per foil hole.

    Parameters
    ----------
    content
        Whole file.
    name
        Path of the file; its number is compared with the one inside.

    Raises
    ------
    Refused
        What `Contract` raises; OUT_OF_RANGE.
    """
    document = Contract(content, "GridSquareXml")
    record = Record(format="GridSquareXml", kind="grid_square")
    record.put("software_version", document.version, "xml")
    record.put("grid_square_id", document.text("Id"), "xml")
    record.put("atlas_node_id", document.text("AtlasNodeId"), "xml")
    record.put("image_path", document.text("GridSquareImagePath"), "xml")
    targets = _targets(document)
    if targets is not None:
        record.sections = [_target(document, key, value) for key, value in targets]
        record.put("n_target_locations", len(record.sections), "xml")
        record.put("n_selected", sum(one["selected"] is True for one in record.sections), "xml")
        first = tuple(one["foil_hole_id"] for one in record.sections[:_FIRST])
        record.put("first_target_ids", first, "xml")
    record.unknown = {k: v for k, v in document.scalars().items() if k not in _USED}
    _compare(record, base_name(name))
    return record


def _targets(document: Contract) -> list[tuple[str, Element]] | None:
    """Return the foil holes by number, None when there is no list of either name."""
    paths = [f"TargetLocations/{name}" for name in _LISTS]
    there = [path for path in paths if document.find(path) is not None]
    lists = [list(document.pairs(f"{path}/m_serializationArray")) for path in there]
    return next(filter(None, lists), lists[0] if lists else None)


def _target(document: Contract, key: str, value: Element) -> dict[str, Any]:
    return {
        "foil_hole_id": checked("foil_hole_id", key),
        "selected": boolean(document.text("Selected", value)),
        "center_px": point(document, value, "PixelCenter", "xy"),
        "size_px": point(document, value, "PixelWidthHeight", ("width", "height")),
        "stage_um": point(document, value, "StagePosition", "XYZ", "stage_um", 1e6),
    }


def point(
    document: Contract,
    start: Element,
    path: str,
    axes: str | tuple[str, ...],
    field: str = "center_px",
    scale: float = 1.0,
) -> tuple[float, ...] | None:
    """Return a vector, None unless each of its components is there."""
    element = document.find(path, start)
    texts = [] if element is None else [document.figure(axis, element) for axis in axes]
    if not texts or None in texts:
        return None
    return tuple(parsed(field, text, scale) for text in texts if text)


def _compare(record: Record, name: str) -> None:
    """The number stands in the file and in its name."""
    stem = name.rpartition(".")[0]
    named, stated = stem.rpartition("_")[2], record.get("grid_square_id")
    if named.isdecimal() and stated is not None and named != stated:
        record.flag("id_conflict", f"grid_square_id is {stated}, the name says {named}")
