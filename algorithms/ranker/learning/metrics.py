"""Figures of merit of scores, and their uncertainty over jobs. Source: class-ranker.md section 9.6.

Rates of particles are the paper's: divided by the particles that the reference selects, so that the
rate of false positives may exceed 1.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

BINS = 10
_RESAMPLINGS = 2000


def particle_rates(
    selected: np.ndarray, reference: np.ndarray, sizes: np.ndarray
) -> tuple[float, float]:
    """Return rates of false positives and false negatives, in particles; NaN without a reference.

    Parameters
    ----------
    selected, reference
        Which classes are taken `[n]`.
    sizes
        Particles in each class `[n]`.
    """
    whole = float(sizes[reference].sum())
    if whole <= 0.0:
        return np.nan, np.nan
    wrong, lost = sizes[selected & ~reference].sum(), sizes[reference & ~selected].sum()
    return float(wrong) / whole, float(lost) / whole


def best_threshold(scores: np.ndarray, reference: np.ndarray, sizes: np.ndarray) -> float:
    """Return the threshold of the smallest larger rate, among ties of the smallest sum.

    It looks at the answer: only an upper bound of what a threshold can do for one job.
    """
    ordered = np.unique(scores)
    middles = (ordered[1:] + ordered[:-1]) / 2.0
    candidates = np.concatenate([[ordered[0] - 1e-3], middles, [ordered[-1] + 1e-3]])

    def cost(threshold: float) -> tuple[float, float]:
        rates = particle_rates(scores >= threshold, reference, sizes)
        return max(rates), sum(rates)

    return float(min(candidates.tolist(), key=cost))


def rank_correlation(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return Spearman's rho; NaN where one of the two does not vary."""
    if len(truth) < 3 or np.ptp(truth) == 0.0 or np.ptp(scores) == 0.0:
        return np.nan
    return float(np.corrcoef(rankdata(truth), rankdata(scores))[0, 1])


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return how often a positive scores above a negative; NaN when one of the two is empty."""
    if not (len(positive) and len(negative)):
        return np.nan
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    n, m = len(positive), len(negative)
    return float((ranks.sum() - n * (n + 1) / 2.0) / (n * m))


def bootstrap(
    rows: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 12
) -> dict[str, float]:
    """Return a statistic and its 95 % interval when jobs are drawn again.

    Parameters
    ----------
    rows
        Sums that each job contributes `[jobs, m]`.
    statistic
        Function of the sums over jobs `[..., m]`.
    seed
        Of the draws.
    """
    if not len(rows):
        return {"value": np.nan, "low": np.nan, "high": np.nan}
    drawn = np.random.default_rng(seed).integers(len(rows), size=(_RESAMPLINGS, len(rows)))
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = statistic(rows[drawn].sum(1))
        low, high = np.nanquantile(spread, [0.025, 0.975]) if len(rows) > 1 else (np.nan, np.nan)
        return {
            "value": float(statistic(rows.sum(0))),
            "low": float(low),
            "high": float(high),
        }


def ratio(sums: np.ndarray) -> np.ndarray:
    """Return the first sum over the second: a mean, for `bootstrap`."""
    return sums[..., 0] / sums[..., 1]


def determination(sums: np.ndarray) -> np.ndarray:
    """Return R2 from sums of squared errors, 1, y and y squared, for `bootstrap`."""
    wrong, n, total, square = np.moveaxis(sums, -1, 0)
    return 1.0 - wrong / (square - total**2 / n)


def calibration(truth: np.ndarray, scores: np.ndarray) -> list[dict[str, float]]:
    """Return mean score and mean truth in ten bins of the score, from 0 to 1; empty ones not."""
    place = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    return [
        {
            "from": b / BINS,
            "score": float(scores[place == b].mean()),
            "truth": float(truth[place == b].mean()),
            "spread": float(truth[place == b].std()),
            "classes": int((place == b).sum()),
        }
        for b in range(BINS)
        if (place == b).any()
    ]


def confusion(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return how often each pair of places occurs, divided by the sum of its row `[r, c]`."""
    counts = np.zeros(shape)
    np.add.at(counts, (rows, columns), 1.0)
    return counts / np.maximum(1.0, counts.sum(1, keepdims=True))
