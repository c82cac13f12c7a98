"""To where the rings follow the model, and to where the box resolves them.

Source: preprocessing.md section 3.6 (Rohou and Grigorieff 2015); the cross-validated resolution is
our own.
"""

import math
from itertools import pairwise

import numpy as np
from scipy.optimize import isotonic_regression
from torch import Tensor

from algorithms.ctffit.polar import PolarSpectrum
from algorithms.ctffit.search import Optimum, astigmatism_width_A, climb, free_parameters
from algorithms.ctffit.thon import Fade, Matcher, Thon
from algorithms.ctffit.types import CtfFitOptions

WORST_RESOLUTION_A = 25.0
# Maxima of the rings nearer than this are not resolved.
ALIASED_BINS = 4
# Correlation in the sectors left out of the fit where the cross-validated resolution ends.
CROSS_VALIDATED = 0.15
# The sliding correlation down to which rings are followed, and how far chance moves it.
_FOLLOWED, _UNSURE = 0.5, 0.15
_RANKED_EXTREMA = 7
_LEAST_HALF_WINDOW = 5


def _intervals(extrema: np.ndarray) -> list[tuple[int, int]]:
    """Half-open ranges of bins between consecutive maxima of |CTF|."""
    edges = [0, *(np.flatnonzero(np.diff(extrema)) + 1), len(extrema)]
    return [(int(a), int(b)) for a, b in pairwise(edges)]


def rescale(epa: np.ndarray, model: np.ndarray, extrema: np.ndarray) -> np.ndarray:
    """Curve with every interval between maxima brought to 0 .. 1, by rank where rings are wide."""
    out = epa.copy()
    for start, stop in _intervals(extrema):
        part = epa[start:stop]
        if extrema[start] < _RANKED_EXTREMA:
            zero = int(np.argmin(model[start:stop]))
            falling, rising = part[:zero], part[zero:]
            rank, n = _ranks(falling), len(falling)
            out[start : start + zero] = np.sin(0.5 * math.pi * rank / max(n - 1, 1))
            rank, n = _ranks(rising), len(rising)
            out[start + zero : stop] = np.sin(0.5 * math.pi * (rank + 1) / (n + 1))
        else:
            span = part.max() - part.min()
            out[start:stop] = (part - part.min()) / span if span > 0 else 0.0
    return out


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)


def sliding_correlation(
    curve: np.ndarray, model: np.ndarray, extrema: np.ndarray, first_bin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pearson correlation in a window that grows with the interval and the number of rings."""
    bins = len(curve)
    length = np.zeros(bins)
    for start, stop in _intervals(extrema):
        length[start:stop] = stop - start
    half = np.maximum(bins // 40, ((1.0 + 0.1 * extrema) * (length + 1.0)).astype(int))
    half = np.minimum(half, bins // 2 - 1)
    start = np.clip(np.arange(bins) - half, 0, bins - 2 * half - 1)
    count = 2.0 * half + 1.0

    def mean(values: np.ndarray) -> np.ndarray:
        running = np.concatenate([[0.0], np.cumsum(values)])
        return (running[start + 2 * half + 1] - running[start]) / count

    product = mean(curve * model) - mean(curve) * mean(model)
    squares = [np.maximum(mean(v * v) - mean(v) ** 2, 0.0) for v in (curve, model)]
    norm = np.sqrt(squares[0] * squares[1])
    # A flat stretch leaves only rounding errors: no correlation.
    frc = np.where(norm > 1e-9, product / np.maximum(norm, 1e-9), 0.0)
    frc[:first_bin] = 1.0
    return frc, 2.0 / np.sqrt(count)


def fit_resolution_bin(frc: np.ndarray, first_bin: int) -> float:
    """Bin (with a fraction) to where the rings follow the model: where `frc` falls below 0.5.

    CTFFIND takes the first bin below 0.5. A spectrum dips (proteins scatter little near 6 A) and
    comes back, and chance decides there on which side of 0.5 the correlation is. Here it is made
    to fall first, by least squares: a dip and what comes back behind it become their mean. What
    is left of chance is shared out: the bin is the mean of those below 0.35 to 0.65. Where the
    correlation falls straight and once, that is CTFFIND's bin.
    """
    if len(frc) <= first_bin:
        return float(first_bin)
    falling = -isotonic_regression(-frc[first_bin:]).x
    share = (falling - (_FOLLOWED - _UNSURE)) / (2.0 * _UNSURE)
    return first_bin + float(np.clip(share, 0.0, 1.0).sum())


def aliasing_bin(extrema: np.ndarray) -> int | None:
    """Bin of the last maximum before two of them come nearer than 4 bins; None if none do."""
    places = np.flatnonzero(np.diff(extrema)) + 1
    near = np.flatnonzero(np.diff(places) < ALIASED_BINS)
    return int(places[near[0]]) if len(near) else None


def cross_validated_A(
    band: PolarSpectrum, whole: PolarSpectrum, found: Optimum, options: CtfFitOptions
) -> float:
    """Resolution in A to where a fit to every second sector describes the other sectors.

    Parameters
    ----------
    band, whole
        The spectrum in the bins of the fitted band, and up to Nyquist.
    found
        The fit to all of it.
    options
        Of the fit.

    The correlation is that of the bins of the sectors left out, in windows of a period of the
    rings or more; 25 A where it is below 0.15 from the start.
    """
    thon = Thon.of(options)
    matcher = Matcher(band.sectors(0, 2), thon, found.fade)
    x, _ = climb(matcher, found.x, free_parameters(options), astigmatism_width_A(options))
    other = whole.sectors(1, 2)
    # The flat envelope: every window is compared for itself.
    model = Matcher(other, thon, Fade(0.0)).model(x)
    weight = other.grid.root.double().square().numpy()
    filled = weight.sum(0) > 0.0  # at both ends a ring may have lost its last pixel
    rings = [(a * b).sum(0).double().numpy()[filled] for a, b in _pairs(other.data, model)]
    s2 = (other.grid.s2.double().numpy() * weight).sum(0)[filled] / weight.sum(0)[filled]
    s = np.sqrt(s2)
    spacing = float(np.median(np.diff(s)))
    period = 1.0 / np.maximum(2.0 * thon.a / math.pi * abs(found.dm_A) * s * spacing, 1e-6)
    half = np.maximum(_LEAST_HALF_WINDOW, np.minimum(period, len(s) // 4)).astype(int)
    product, data, rings_squared = (_windows(r, half) for r in rings)
    correlation = product / np.sqrt(np.maximum(data * rings_squared, 1e-30))
    below = np.flatnonzero(correlation < CROSS_VALIDATED)
    last = int(below[0]) - 1 if len(below) else len(s) - 1
    return min(1.0 / float(s[last]), WORST_RESOLUTION_A) if last >= 0 else WORST_RESOLUTION_A


def _pairs(data: Tensor, model: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    return (data, model), (data, data), (model, model)


def _windows(values: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Sums over `half` bins to both sides, as far as there are bins."""
    running = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    stop = np.minimum(places + half + 1, len(values))
    return running[stop] - running[np.maximum(places - half, 0)]
