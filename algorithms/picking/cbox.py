"""crYOLO's own boxes: corner, size and confidence, a STAR file since version 1.8.

Source: preprocessing.md section 4.3.
"""

import os

import numpy as np

from algorithms.formats import star

BLOCK = "cryolo"


def read_cbox(path: str | os.PathLike[str], least: float = 0.0) -> star.Table:
    """Return centres, the most confident first, with the confidence as figure of merit.

    Parameters
    ----------
    path
        CBOX file; it also lists boxes that crYOLO itself has not chosen.
    least
        Confidence from which on a box counts; crYOLO's threshold.

    Raises
    ------
    StarError
        It is no such file, or lacks a column.
    """
    blocks = star.load(path)
    table = blocks.get(BLOCK)
    if table is None:
        raise star.StarError(
            f"{os.fspath(path)}: no block data_{BLOCK}; crYOLO 1.8 or later has it"
        )
    if not len(table):
        x = y = confidence = np.zeros(0)
    else:
        x = table.floats("CoordinateX") + table.floats("Width") / 2
        y = table.floats("CoordinateY") + table.floats("Height") / 2
        confidence = table.floats("Confidence")
    order = np.argsort(-confidence, kind="stable")
    order = order[confidence[order] >= least]
    return star.Table.of(
        {
            "rlnCoordinateX": x[order],
            "rlnCoordinateY": y[order],
            "rlnAutopickFigureOfMerit": confidence[order],
            "rlnClassNumber": np.zeros(len(order), dtype=int),
            "rlnAnglePsi": np.zeros(len(order)),
        }
    )
