"""The proc tasks, carried out by workers: micrograph to coordinates, coordinates to particles.

Source: preprocessing.md sections 4.1, 5, 7.4 and 7.5.
"""

import zlib
from pathlib import Path

import msgspec

from algorithms.picking.log import LogOptions, pick_log
from services.kit.errors import Code, Refused
from services.kit.work import Output
from services.proc.extracting import extract
from services.proc.inputs import read_micrograph
from services.proc.picks import picked
from services.proc.requests import PickRequest

__all__ = ["autopick", "extract"]


def autopick(request: bytes, folder: Path, project: Path) -> Output:
    """Pick particles with the Laplacian of Gaussian."""
    ask = msgspec.msgpack.decode(request, type=PickRequest)
    options = LogOptions(
        diameter_min_A=ask.diameter_min_A,
        diameter_max_A=ask.diameter_max_A,
        max_resolution_A=ask.max_resolution_A,
        adjust_threshold=ask.adjust_threshold,
        upper_threshold=ask.upper_threshold,
        invert=ask.invert,
        max_stddev_noise=ask.max_stddev_noise,
    )
    image = read_micrograph(project, ask.micrograph)
    try:
        picks = pick_log(image, ask.pixel_size_A, options, seed=zlib.crc32(ask.movie.encode()))
    except ValueError as error:
        raise Refused(Code.NOT_FINITE, f"{ask.micrograph}: {error}: make it anew") from error
    return picked(ask, folder, picks.x_px, picks.y_px, picks.fom)
