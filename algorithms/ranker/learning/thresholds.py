"""Thresholds of a model, chosen on validation jobs. Source: class-ranker.md 6, 9.4, 9.6."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from algorithms.ranker.learning.data import good
from algorithms.ranker.learning.metrics import particle_rates
from algorithms.ranker.trainingset.records import UNKNOWN_LABEL, ClassRecords
from algorithms.ranker.types import RankerError

# Scores of the classes of a job.
Scorer = Callable[[ClassRecords], np.ndarray]

CANDIDATES = np.arange(0.02, 0.90, 0.005)
# What may be lost below the classes that a person is asked about, mean over jobs.
LEAST_ERROR = 0.05
_PLATEAU = 1.02


@dataclass(frozen=True)
class Thresholds:
    """Where classes are kept.

    Parameters
    ----------
    default
        Classes are kept from here on.
    drop
        A person is asked about classes from `drop` up to `default`, where asking is on.
    """

    default: float
    drop: float


def choose(scorer: Scorer, jobs: Sequence[ClassRecords]) -> Thresholds:
    """Return thresholds for a model.

    The default has the smallest mean square of both rates over jobs, so that single bad jobs weigh;
    of a plateau the middle. Below `drop` lies at most LEAST_ERROR of the particles that the
    reference selects, mean over jobs.

    Parameters
    ----------
    scorer
        The model.
    jobs
        Validation jobs; never those of a test.
    """
    if not jobs:
        raise RankerError("the set has no validation jobs: thresholds cannot be chosen")
    pairs = [(scorer(job), job) for job in jobs]
    rates = np.array([[_rates(s, job, t) for t in CANDIDATES] for s, job in pairs])
    wrong, lost = np.moveaxis(rates, -1, 0)
    cost = (np.minimum(wrong, 1.0) ** 2).mean(0) + _mean(lost**2)
    flat = np.flatnonzero(cost <= cost.min() * _PLATEAU + 1e-9)
    default = float(CANDIDATES[flat[len(flat) // 2]])
    safe = (_mean(lost) <= LEAST_ERROR) & (CANDIDATES <= default)
    return Thresholds(
        default=round(default, 3),
        drop=round(float(CANDIDATES[safe].max(initial=CANDIDATES[0])), 3),
    )


def _rates(scores: np.ndarray, job: ClassRecords, threshold: float) -> tuple[float, float]:
    """Return both rates; of a job without any good class the share of particles that are kept."""
    reference, selected = good(job), scores >= threshold
    size = known_size(job)
    if reference.any():
        return particle_rates(selected, reference, size)
    return float(size[selected].sum() / max(1.0, size.sum())), np.nan


def known_size(job: ClassRecords) -> np.ndarray:
    """Return the particles of each class, 0 where nobody knows its label: it counts for nothing."""
    return np.where(job.label == UNKNOWN_LABEL, 0.0, job.size)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over jobs that have a value; 0 where none has."""
    known = np.isfinite(values)
    return np.where(known, values, 0.0).sum(0) / np.maximum(1, known.sum(0))
