"""The task of extracting refined particles again: in another size, or centred as refined.

All columns of the refined particles are kept; names of images, coordinates and origins change.
Source: preprocessing.md section 5, schemes.md section 15.
"""

from pathlib import Path

import msgspec
import numpy as np

from algorithms.formats import star
from algorithms.recentre import projected, recentred
from services.kit.errors import Code, Refused
from services.kit.work import Output
from services.proc.extracting import cut, image_names, published
from services.proc.requests import ReextractRequest

ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
COORDINATES = ("rlnCoordinateX", "rlnCoordinateY")


def reextract(request: bytes, folder: Path, project: Path) -> Output:
    """Cut out, scale and normalise the refined particles of one micrograph."""
    ask = msgspec.msgpack.decode(request, type=ReextractRequest)
    try:
        table = star.load(project / ask.extract.coordinates)["particles"]
        table = _placed(table, ask)
        x, y = (table.floats(label) for label in COORDINATES)
    except (star.StarError, KeyError) as error:
        raise Refused(Code.READ_ERROR, f"{ask.extract.coordinates}: {error}") from error
    cutting = cut(ask.extract, project, x, y)
    table.columns["rlnImageName"] = image_names(ask.extract.root, len(cutting))
    return published(ask.extract, folder, cutting, table)


def _placed(table: star.Table, ask: ReextractRequest) -> star.Table:
    """Return the particles with their new coordinates and origins."""
    columns = dict(table.columns)
    count = len(table)
    if ask.reset_offsets:
        columns |= dict.fromkeys(ORIGINS, [star.format_float(0.0)] * count)
    if not ask.recenter:
        return star.Table(columns)
    origins = np.stack(
        [table.floats(name) if name in columns else np.zeros(count) for name in ORIGINS], axis=1
    )
    moved_A = None
    if any(ask.center_px):
        angles = np.stack([table.floats(label) for label in ANGLES], axis=1)
        moved_A = projected(angles, ask.center_px) * ask.reference_pixel_A
    coordinates = np.stack([table.floats(label) for label in COORDINATES], axis=1)
    centres = recentred(coordinates, origins, ask.extract.pixel_size_A, moved_A)
    found = star.Table.of(
        {
            COORDINATES[0]: centres.x_px,
            COORDINATES[1]: centres.y_px,
            ORIGINS[0]: centres.origin_x_A,
            ORIGINS[1]: centres.origin_y_A,
        }
    )
    return star.Table(columns | found.columns)
