"""Granulometry: what is left of images after openings with growing discs.

A disc is a stack of horizontal runs, so a minimum over it is a minimum of shifted running minima.
Source: class-ranker.md section 2.4.
"""

import math

import numpy as np

RADII = (1, 2, 3, 4, 5, 6)


def granulometry(images: np.ndarray) -> np.ndarray:
    """Return the sums of the grey-scale openings of images with discs of 1 to 6 px.

    Parameters
    ----------
    images
        `[K, m, m]`; beyond their edges nothing is looked at.

    Returns
    -------
    np.ndarray
        `[K, 6]`.
    """
    # An image at a time stays in the processor's cache.
    return np.array([[_opened(image, r).sum() for r in RADII] for image in images]).reshape(-1, 6)


def _opened(image: np.ndarray, radius: int) -> np.ndarray:
    # The greatest is the smallest of the negative.
    return -_eroded(-_eroded(image, radius), radius)


def _eroded(image: np.ndarray, radius: int) -> np.ndarray:
    reach = [math.isqrt(radius**2 - dy**2) for dy in range(radius + 1)]
    runs = [image]
    for width in range(1, radius + 1):
        run = runs[-1].copy()
        np.minimum(run[:, width:], image[:, :-width], out=run[:, width:])
        np.minimum(run[:, :-width], image[:, width:], out=run[:, :-width])
        runs.append(run)
    out = runs[reach[0]].copy()
    for dy in range(1, radius + 1):
        run = runs[reach[dy]]
        np.minimum(out[dy:], run[:-dy], out=out[dy:])
        np.minimum(out[:-dy], run[dy:], out=out[:-dy])
    return out
