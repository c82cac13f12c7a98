"""Peaks of a response map: thresholds, the greedy walk, and positions between pixels.

Source: preprocessing.md section 4.1, steps 7 to 9.
"""

import math

import numpy as np
import torch
from torch import Tensor


def thresholded(
    fom: Tensor, wanted: Tensor, inner: Tensor, adjust: float, upper: float
) -> tuple[Tensor, float]:
    """Pixels that may be particles, and the upper limit of their figure of merit.

    Parameters
    ----------
    fom
        Response `[work, work]`.
    wanted
        True where the best-fitting size is a particle's.
    inner
        True inside the border.
    adjust, upper
        Limits in standard deviations above the mean.
    """
    if not wanted.any():
        return wanted, math.inf
    # As the reference does, the border takes part in the statistics, with zeros.
    sigma, mean = torch.std_mean(torch.where(inner, fom, 0.0)[wanted].double(), correction=0)
    return wanted & inner & (fom >= mean + adjust * sigma), float(mean + upper * sigma)


def greedy(fom: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take the highest pixel, clear the disc of its radius, repeat; returns rows and columns.

    Parameters
    ----------
    fom
        Figure of merit `[ny, nx]`; candidates are above 0.
    radii
        `[ny, nx]`: what is nearer than this to a peak is cleared, px.

    All candidates are walked in falling order, not only local maxima: what remains of a flank
    outside a cleared disc counts, as in the reference.
    """
    ny, nx = fom.shape
    flat = fom.ravel()
    candidates = np.flatnonzero(flat > 0)
    order = candidates[np.argsort(-flat[candidates], kind="stable")]
    free = np.zeros((ny, nx), dtype=bool)
    free.ravel()[candidates] = True
    flat_free = free.ravel()
    discs: dict[int, np.ndarray] = {}
    chosen: list[int] = []
    while len(order):
        index = int(order[0])
        chosen.append(index)
        y, x = divmod(index, nx)
        reach = int(radii[y, x])
        if reach not in discs:
            axis = np.arange(-reach, reach + 1)
            discs[reach] = axis[:, None] ** 2 + axis[None, :] ** 2 >= reach**2
        top, left = max(0, y - reach), max(0, x - reach)
        bottom, right = min(ny, y + reach + 1), min(nx, x + reach + 1)
        keep = discs[reach][
            top - y + reach : bottom - y + reach, left - x + reach : right - x + reach
        ]
        free[top:bottom, left:right] &= keep
        flat_free[index] = False
        order = _next_free(order, flat_free)
    return np.divmod(np.array(chosen, dtype=np.intp), nx)


def _next_free(order: np.ndarray, free: np.ndarray, step: int = 256) -> np.ndarray:
    """Return the candidates from the next free one on; short runs are looked at together."""
    first = 0
    while first < len(order):
        found = free[order[first : first + step]].argmax()
        if free[order[first + found]]:
            return order[first + found :]
        first += step
        step *= 2
    return order[:0]


def summit(fom: np.ndarray, y: np.ndarray, x: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Offset in px, at most half, of the summit of the parabola through a peak and neighbours.

    Parameters
    ----------
    fom
        Response `[ny, nx]`.
    y, x
        Peaks `[n]`.
    dy, dx
        Step to the neighbour, along one axis.
    """
    ny, nx = fom.shape
    before = fom[(y - dy).clip(0), (x - dx).clip(0)]
    after = fom[(y + dy).clip(max=ny - 1), (x + dx).clip(max=nx - 1)]
    curvature = before - 2 * fom[y, x] + after
    is_summit = (fom[y, x] >= before) & (fom[y, x] >= after) & (curvature < 0)
    offset = 0.5 * (before - after) / np.where(is_summit, curvature, 1)
    return np.where(is_summit, offset, 0).clip(-0.5, 0.5)
