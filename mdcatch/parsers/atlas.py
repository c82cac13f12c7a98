"""Atlas.dm: the grid squares that EPU found on a grid.

Source: acquisition.md section 2.7.
"""

from typing import Any

from mdcatch.parsers.contract import Contract
from mdcatch.parsers.gridsquare import point
from mdcatch.parsers.record import Record, checked
from mdcatch.parsers.safexml import Element

_FIRST = 5
_TILES = "Atlas/TilesEfficient/_items"


def parse_atlas(content: bytes, name: str) -> Record:
    """Return the record of an atlas; `sections` has one entry per grid square, in file order.

    Parameters
    ----------
    content
        Whole file.
    name
        Path of the file; not used, the file says it all.

    Raises
    ------
    Refused
        What `Contract` raises; OUT_OF_RANGE.
    """
    document = Contract(content, "AtlasSessionXml")
    record = Record(format="AtlasSessionXml", kind="atlas")
    record.put("software_version", document.version, "xml")
    tiles = document.items(_TILES)
    nodes = [pair for tile in tiles for pair in document.pairs("Nodes/KeyValuePairs", tile)]
    record.sections = [_node(document, key, value) for key, value in nodes]
    record.put("n_tiles", len(tiles), "xml")
    record.put("n_grid_square_nodes", len(nodes), "xml")
    record.put("n_unique_nodes", len({key for key, _ in nodes}), "xml")
    record.put("first_node_ids", tuple(key for key, _ in nodes[:_FIRST]), "xml")
    record.unknown = document.scalars()
    return record


def _node(document: Contract, key: str, value: Element) -> dict[str, Any]:
    """Return one grid square: where it lies on the atlas image and on the stage."""
    return {
        "grid_square_id": checked("grid_square_id", key),
        "center_px": point(document, value, "PositionOnTheAtlas/Center", "xy"),
        "size_px": point(document, value, "PositionOnTheAtlas/Size", ("width", "height")),
        "stage_um": point(document, value, "StagePosition", "XYZ", "stage_um", 1e6),
    }
