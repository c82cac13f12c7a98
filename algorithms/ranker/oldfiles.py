"""Particles' tables from before RELION 3.1, in the present layout. Source: class-ranker.md 1."""

import numpy as np

from algorithms.formats.star import Table
from algorithms.ranker.types import RankerError

# What was a column of every particle, and its column among the optics groups.
_OPTICS = {
    "rlnAmplitudeContrast": 0.1,
    "rlnSphericalAberration": 2.7,
    "rlnVoltage": 300.0,
}
_GONE = (*_OPTICS, "rlnDetectorPixelSize", "rlnMagnification", "rlnOriginX", "rlnOriginY")


def modern(blocks: dict[str, Table], pixel_A: float) -> dict[str, Table]:
    """Return blocks `optics` and `particles`; those that are there already pass unchanged.

    Parameters
    ----------
    blocks
        Of a particles' file.
    pixel_A
        Of the class averages; for tables that do not tell their own.

    Raises
    ------
    RankerError
        There are no particles, or particles of several optics.
    """
    if "optics" in blocks and "particles" in blocks:
        return blocks
    old = next((blocks[name] for name in ("images", "particles", "") if name in blocks), None)
    if old is None or not len(old):
        raise RankerError("the particles' file has neither data_particles nor data_images")
    pixel = _pixel(old, pixel_A)
    optics: dict[str, list] = {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["opticsGroup1"]}
    for label, default in _OPTICS.items():
        values = old.floats(label) if label in old.columns else np.array([default])
        if np.ptp(values) > 0.0:
            raise RankerError(
                f"column {label} of a table without optics groups has several values: "
                "convert it with relion_convert_star"
            )
        optics[label] = [float(values[0])]
    optics["rlnImagePixelSize"] = [pixel]
    kept = {label: values for label, values in old.columns.items() if label not in _GONE}
    more: dict[str, object] = {"rlnOpticsGroup": [1] * len(old)}
    for axis in "XY":
        if f"rlnOrigin{axis}" in old.columns:
            more[f"rlnOrigin{axis}Angst"] = old.floats(f"rlnOrigin{axis}") * pixel
    return {"optics": Table.of(optics), "particles": Table(kept | Table.of(more).columns)}


def _pixel(old: Table, default_A: float) -> float:
    """Return the pixel size: detector pixel (um) over magnification."""
    if not {"rlnDetectorPixelSize", "rlnMagnification"} <= set(old.columns):
        return default_A
    detector, magnification = (
        float(old.floats(label)[0]) for label in ("rlnDetectorPixelSize", "rlnMagnification")
    )
    return 1e4 * detector / magnification if magnification > 0.0 else default_A
