"""Texture of class averages: entropies, local patterns, co-occurrence, Zernike moments.

RELION writes these numbers into features.star; its network does not look at them. Accidents of its
program that change them are kept. Source: class-ranker.md section 2.5.
"""

import math
from functools import cache

import numpy as np

from algorithms.ranker.masks import Circle

_BINS, _LEVELS = 128, 32
_TINY_RANGE = 1e-20
_EPS = 1e-6
# Neighbours of a pixel as (dy, dx), of bits 7 to 0 of its pattern.
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_PAIRS = ((1, 0), (0, 1), (1, 1), (-1, 1))
_ORDER = 7


def scaled(images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return images `[K, m, m]` between 0 and 1 inside of their masks, and which are flat `[K]`.

    The pixel in the corner of the array counts as one of the mask. Images without a range are 0.
    """
    corner = images[:, :1, :1]
    low = np.minimum(corner, np.where(masks, images, np.inf).min((1, 2), keepdims=True))
    high = np.maximum(corner, np.where(masks, images, -np.inf).max((1, 2), keepdims=True))
    span = high - low
    flat = span < _TINY_RANGE
    return np.where(flat, 0.0, (images - low) / np.where(flat, 1.0, span)), flat[:, 0, 0]


def _binned(unit: np.ndarray, top: int) -> np.ndarray:
    """Return floor(top * value); the largest pixel is in the last bin in spite of rounding."""
    return np.clip(np.floor(top * unit + 1e-9), 0, top).astype(np.int64)


def entropies(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the entropy of the grey values inside of masks, bits `[K]`."""
    unit, flat = scaled(images, masks)
    bins = _binned(unit, _BINS - 1)
    out = np.zeros(len(images))
    for k, mask in enumerate(masks):
        if flat[k]:
            continue
        counts = np.maximum(np.bincount(bins[k][mask], minlength=_BINS), 1)
        p = counts / counts.sum()
        out[k] = -(p * np.log2(p)).sum()
    return out


@cache
def _patterns() -> np.ndarray:
    """Return the class, 0 to 35, of each of the 256 patterns: the same for all its rotations."""
    turned = [min(((code >> s) | (code << (8 - s))) & 255 for s in range(8)) for code in range(256)]
    return np.unique(turned, return_inverse=True)[1]


def patterns(images: np.ndarray) -> np.ndarray:
    """Return the local pattern, 0 to 35, of the interior pixels `[K, m - 2, m - 2]`."""
    size = images.shape[-1]
    centre = images[:, 1:-1, 1:-1]
    code = np.zeros(centre.shape, np.int64)
    for dy, dx in _NEIGHBOURS:
        there = images[:, 1 + dy : size - 1 + dy, 1 + dx : size - 1 + dx]
        code = 2 * code + (there > centre)
    return _patterns()[code]


def histograms(found: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return how often each pattern occurs inside of masks, `[K, 36]`; zero without a pixel."""
    out = np.zeros((len(found), 36))
    for k, mask in enumerate(masks[:, 1:-1, 1:-1]):
        counts = np.bincount(found[k][mask], minlength=36)
        out[k] = counts / max(1, counts.sum())
    return out


def haralick(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return 13 numbers of the co-occurrence of grey levels in masks, mean of four directions.

    Parameters
    ----------
    images, masks
        `[K, m, m]`.

    Returns
    -------
    np.ndarray
        `[K, 13]`; zero where the mask is empty or the image flat.
    """
    unit, flat = scaled(images, masks)
    levels = np.where(masks, _binned(unit, _LEVELS - 1), 0)
    out = np.zeros((len(images), 13))
    for k, mask in enumerate(masks):
        if mask.any() and not flat[k]:
            found = [_co_occurrence(levels[k], mask, dy, dx) for dy, dx in _PAIRS]
            out[k] = np.mean([_numbers(p) for p in found], axis=0)
    return out


def _co_occurrence(levels: np.ndarray, mask: np.ndarray, dy: int, dx: int) -> np.ndarray:
    m = len(levels)
    first = slice(max(0, -dy), m - max(0, dy)), slice(max(0, -dx), m - max(0, dx))
    second = slice(max(0, dy), m + min(0, dy)), slice(max(0, dx), m + min(0, dx))
    pairs = (levels[first] * _LEVELS + levels[second])[mask[first]]
    counts = np.bincount(pairs, minlength=_LEVELS**2).reshape(_LEVELS, _LEVELS)
    both = (counts + counts.T).astype(np.float64)
    return both / max(1.0, both.sum())


def _entropy(p: np.ndarray) -> float:
    return float(-(p * np.log(p + _EPS)).sum())


def _numbers(p: np.ndarray) -> list[float]:
    i, j = np.arange(_LEVELS)[:, None], np.arange(_LEVELS)[None]
    px, py = p.sum(1), p.sum(0)
    # Mean and deviation of the probabilities, not of the levels: RELION's.
    mx, my, sx, sy = px.mean(), py.mean(), px.std(ddof=1), py.std(ddof=1)
    h, hx, hy = _entropy(p), _entropy(px), _entropy(py)
    hxy1 = float(-(p * np.log(px[:, None] * py[None] + _EPS)).sum())
    exponent = -2.0 * (hxy1 - h)
    spread = np.bincount(np.abs(i - j).ravel(), p.ravel(), _LEVELS)
    total = np.bincount((i + j).ravel(), p.ravel(), 2 * _LEVELS - 1)
    n, s = np.arange(_LEVELS), np.arange(2 * _LEVELS - 1)
    spread_entropy, total_entropy = _entropy(spread), _entropy(total)
    return [
        float((p**2).sum()),
        h,
        float(np.trace(p)),
        float((i * j * p - mx * my).sum() / max(sx * sy, 1e-300)),
        (h - hxy1) / max(hx, hy, 1e-300),
        math.sqrt(1.0 - math.exp(exponent)) if exponent < 0.0 else 0.0,
        float(((i - my) * (j - mx) * p).sum()),
        float((n**2 * spread).sum()),
        spread_entropy,
        float(((n - spread_entropy) ** 2 * spread).sum()),
        float((s * total).sum()),
        total_entropy,
        float(((s - total_entropy) ** 2 * total).sum()),
    ]


def zernike(images: np.ndarray, circle: Circle) -> np.ndarray:
    """Return the lengths of the Zernike moments up to order 7, `[K, 20]`."""
    disc = circle.disc
    unit = scaled(images, np.broadcast_to(disc, images.shape))[0][:, disc]
    rho = (np.sqrt(circle.r2) / circle.radius)[disc]
    y, x = np.broadcast_arrays(circle.x.T, circle.x)
    theta = np.arctan2(y, x)[disc]
    rows = []
    for n in range(_ORDER + 1):
        for turns in range(n % 2, n + 1, 2):
            radial = sum(
                (-1) ** s
                * math.factorial(n - s)
                / math.factorial(s)
                / math.factorial((n + turns) // 2 - s)
                / math.factorial((n - turns) // 2 - s)
                * rho ** (n - 2 * s)
                for s in range((n - turns) // 2 + 1)
            )
            rows.append((n + 1) / math.pi * radial * rho * np.exp(-1j * turns * theta))
    return np.abs(unit @ np.array(rows).T)
