"""Where the particle ends in a low-passed map, when nobody is there to look at it."""

import numpy as np

ABOVE_NOISE = 4.0  # times the spread of the solvent
DENSE = 0.15  # of the densest voxels
TOP = 1000  # so many-th part of the voxels is called the densest
SPECK = 0.02  # of the largest piece: a smaller one is noise


def limit(density: np.ndarray) -> tuple[float, float]:
    """Return the value that parts particle from solvent, and that of the solvent.

    It lies four robust standard deviations of the solvent above it, and at a seventh of the way to
    the densest voxels where that is higher. Most of the box has to be solvent.

    Parameters
    ----------
    density
        `[N, N, N]`, low-passed to 15 A or so.
    """
    solvent = float(np.median(density))
    spread = 1.4826 * float(np.median(np.abs(density - solvent)))
    rank = max(1, density.size // TOP)
    top = float(np.partition(density, -rank, axis=None)[-rank])
    found = max(solvent + ABOVE_NOISE * spread, solvent + DENSE * (top - solvent))
    return min(found, top), solvent


def automatic(density: np.ndarray) -> tuple[float, np.ndarray]:
    """Return a threshold, and the map with small pieces above it pressed down to the solvent.

    Parameters
    ----------
    density
        `[N, N, N]`, low-passed to 15 A or so.

    Raises
    ------
    ValueError
        The map is flat.
    """
    from scipy.ndimage import label  # slow to load

    threshold, solvent = limit(density)
    if not threshold > solvent:
        raise ValueError("the map is flat: it has no particle")
    pieces = np.zeros(density.shape, dtype=np.int32)
    label(density >= threshold, output=pieces)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    specks = (sizes < SPECK * sizes.max())[pieces] & (pieces > 0)
    return threshold, np.where(specks, solvent, density)
