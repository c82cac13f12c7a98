"""Where refined particles are in their micrographs, and where a point of the reference is.

RELION's conventions: origins are A, the shift that brings the particle to the centre of its image;
Euler angles are rot, tilt, psi about Z, Y, Z. Source: preprocessing.md section 5.2 and RELION 3.1.3
(relion_preprocess --reextract_data_star), found by running it.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Centres:
    """Particles by whole px of the micrograph, and what that leaves, in A: arrays `[n]`."""

    x_px: np.ndarray
    y_px: np.ndarray
    origin_x_A: np.ndarray
    origin_y_A: np.ndarray


def projected(angles_deg: np.ndarray, point: tuple[float, float, float]) -> np.ndarray:
    """Return x and y `[n, 2]` of a point of the reference in the views of particles.

    Parameters
    ----------
    angles_deg
        rot, tilt, psi `[n, 3]`.
    point
        (x, y, z) from the centre of the reference, any unit.
    """
    rot, tilt, psi = np.radians(np.asarray(angles_deg, dtype=np.float64)).T
    x, y, z = point
    # Turned by rot about Z, by tilt about Y, by psi about Z.
    x, y = np.cos(rot) * x + np.sin(rot) * y, np.cos(rot) * y - np.sin(rot) * x
    x = np.cos(tilt) * x - np.sin(tilt) * z
    return np.stack([np.cos(psi) * x + np.sin(psi) * y, np.cos(psi) * y - np.sin(psi) * x], axis=1)


def recentred(
    coordinates_px: np.ndarray,
    origins_A: np.ndarray,
    pixel_size_A: float,
    moved_A: np.ndarray | None = None,
) -> Centres:
    """Return coordinates moved by the origins, so that the particles are in the middle.

    Parameters
    ----------
    coordinates_px
        x, y `[n, 2]`, px of the micrograph.
    origins_A
        rlnOriginXAngst and rlnOriginYAngst `[n, 2]`.
    pixel_size_A
        Of the micrograph.
    moved_A
        Where the new centre is in each view `[n, 2]`, from the old one; None: the same.
    """
    origins = np.asarray(origins_A, dtype=np.float64)
    if moved_A is not None:
        origins = origins - moved_A
    exact = np.asarray(coordinates_px, dtype=np.float64) - origins / pixel_size_A
    whole = np.floor(exact + 0.5)
    left = (whole - exact) * pixel_size_A + 0.0
    return Centres(x_px=whole[:, 0], y_px=whole[:, 1], origin_x_A=left[:, 0], origin_y_A=left[:, 1])
