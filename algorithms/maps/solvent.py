"""A soft solvent mask from a map: threshold, extend, soften.

Source: refinement.md section 7; the order and the rules are those of `relion_mask_create`,
found by running version 3.1.3.
"""

import numpy as np
from torch import Tensor

from algorithms.maps import shells

FILTER_EDGE = 2.0


def low_passed(volume: Tensor, pixel_A: float, resolution_A: float) -> Tensor:
    """Return a map `[N, N, N]` without what lies beyond a resolution."""
    box = volume.shape[-1]
    edge = shells.raised_cosine(box, round(box * pixel_A / resolution_A), FILTER_EDGE).to(volume)
    return shells.from_fourier(shells.to_fourier(volume) * edge, box)


def soft_mask(volume: np.ndarray, threshold: float, extend_px: float, edge_px: float) -> np.ndarray:
    """Return a mask: 1 in and around the particle, 0 far from it, a cosine between.

    Parameters
    ----------
    volume
        `[N, N, N]`.
    threshold
        Voxels of at least this density are the particle.
    extend_px
        The particle grows by what is nearer than this; negative: it shrinks by that.
    edge_px
        Width of the cosine.

    Raises
    ------
    ValueError
        No voxel, or every voxel, is above the threshold.
    """
    inside = volume >= threshold
    if not inside.any() or inside.all():
        which = "no voxel is" if not inside.any() else "all voxels are"
        raise ValueError(
            f"{which} above the threshold {threshold:g}: the densities of the map go from "
            f"{volume.min():.4g} to {volume.max():.4g}"
        )
    if extend_px > 0:
        inside = _distances(~inside) < extend_px
    elif extend_px < 0:
        inside = _distances(inside) >= -extend_px
    if edge_px <= 0:
        return inside.astype(np.float32)
    far = np.clip(_distances(~inside) / edge_px, 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * far)).astype(np.float32)


def _distances(inside: np.ndarray) -> np.ndarray:
    """Return how far each voxel that is set is from the next one that is not, px."""
    from scipy.ndimage import distance_transform_edt  # slow to load

    return np.asarray(distance_transform_edt(inside))
