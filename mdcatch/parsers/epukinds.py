"""What a file of EPU or its atlas program is, before any parsing.

Source: acquisition.md sections 1.13 (5), 2.1 to 2.3.
"""

import re
from enum import StrEnum

from mdcatch.parsers.place import base_name


class Kind(StrEnum):
    """What an EPU file is; only EXPOSURE may lead to a movie."""

    EXPOSURE = "exposure"
    FOIL_HOLE_IMAGE = "foil_hole_image"
    GRID_SQUARE_IMAGE = "grid_square_image"
    ATLAS_TILE = "atlas_tile"
    ATLAS_MOSAIC = "atlas_mosaic"
    FRACTION_TABLE = "fraction_table"
    SESSION = "epu_session"
    GRID_SQUARE = "grid_square"
    ATLAS = "atlas"
    SAMPLE = "SampleXml"
    SCREENING = "ScreeningSessionXml"
    OTHER = "other"


# What an image XML may be by its name.
IMAGES = {
    Kind.EXPOSURE,
    Kind.FOIL_HOLE_IMAGE,
    Kind.GRID_SQUARE_IMAGE,
    Kind.ATLAS_TILE,
    Kind.ATLAS_MOSAIC,
}

_KINDS: tuple[tuple[re.Pattern[str], Kind, bytes], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.ASCII), kind, root)
    for pattern, kind, root in (
        (r"FoilHole_\d+_Data_.*_Fractions\.xml", Kind.FRACTION_TABLE, b"<Acquisition"),
        (r"FoilHole_\d+_Data_.*\.xml", Kind.EXPOSURE, b"<MicroscopeImage"),
        (r"FoilHole_.*\.xml", Kind.FOIL_HOLE_IMAGE, b"<MicroscopeImage"),
        (r"GridSquare_.*\.xml", Kind.GRID_SQUARE_IMAGE, b"<MicroscopeImage"),
        (r"Tile_.*\.xml", Kind.ATLAS_TILE, b"<MicroscopeImage"),
        (r"Atlas_.*\.xml", Kind.ATLAS_MOSAIC, b"<MicroscopeImage"),
        (r"EpuSession\.dm", Kind.SESSION, b"<EpuSessionXml"),
        (r"GridSquare_.*\.dm", Kind.GRID_SQUARE, b"<GridSquareXml"),
        (r"Atlas\.dm", Kind.ATLAS, b"<AtlasSessionXml"),
        (r"Sample\.dm", Kind.SAMPLE, b"<SampleXml"),
        (r"ScreeningSession\.dm", Kind.SCREENING, b"<ScreeningSessionXml"),
    )
)


def classify(path: str, head: bytes) -> Kind:
    """Tell what an EPU file is by its name and root element, before any parsing.

    Parameters
    ----------
    path
        File path; only the last component counts.
    head
        First bytes of the file, enough to hold the root's opening tag; empty to go by name alone.
    """
    name = base_name(path)
    for pattern, kind, root in _KINDS:
        if pattern.fullmatch(name):
            return kind if not head or root in head else Kind.OTHER
    return Kind.OTHER
