"""Coordinates as RELION's pickers write them. Source: preprocessing.md section 7.4."""

from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from algorithms.formats import star
from algorithms.picking.chart import nearest_neighbour
from services.kit.work import Output
from services.proc.requests import PickResult


class Asked(Protocol):
    """What the requests of all pickers have."""

    @property
    def coordinates(self) -> str: ...  # noqa: D102
    @property
    def pixel_size_A(self) -> float: ...  # noqa: D102


def picked(ask: Asked, folder: Path, x_px: np.ndarray, y_px: np.ndarray, fom: np.ndarray) -> Output:
    """Write the coordinates of a micrograph `[n]` into the private folder."""
    count = len(x_px)
    table = star.Table.of(
        {
            "rlnCoordinateX": x_px,
            "rlnCoordinateY": y_px,
            "rlnAutopickFigureOfMerit": fom,
            "rlnClassNumber": np.zeros(count, dtype=int),
            "rlnAnglePsi": np.zeros(count),
        }
    )
    (folder / "p.star").write_bytes(star.dumps({"": table}).encode())
    nearest = nearest_neighbour(x_px.tolist(), y_px.tolist())
    result = PickResult(
        n_particles=count,
        mean_figure_of_merit=float(np.mean(fom)) if count else 0.0,
        nearest_neighbour_A=None if nearest is None else nearest * ask.pixel_size_A,
    )
    return Output(msgspec.msgpack.encode(result), {"p.star": ask.coordinates})
