"""What a model must beat: simple rules, fitted on training jobs. Source: class-ranker.md 9.4."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import isotonic_regression

from algorithms.ranker.constants import Constants, network_input
from algorithms.ranker.learning.thresholds import Scorer
from algorithms.ranker.trainingset.records import ClassRecords

_PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)

Jobs = Sequence[ClassRecords]


def constant(train: Jobs) -> Scorer:
    """Return the mean target, whatever the class."""
    mean = float(np.nanmean(np.concatenate([job.y for job in train])))
    return lambda job: np.full(len(job), mean)


def class_size(train: Jobs) -> Scorer:
    """Return the target that classes of the same size have."""
    return _rising(train, lambda job: job.size)


def distribution_over_resolution(train: Jobs) -> Scorer:
    """Return the target by class distribution in percent over estimated resolution."""
    return _rising(train, lambda job: 100.0 * job.fraction / job.resolution_A)


def ridge(train: Jobs, validation: Jobs, constants: Constants) -> Scorer:
    """Return linear regression on the normalised features, penalty chosen on validation jobs."""
    x, y = _table(train, constants)
    held_x, held_y = _table(validation, constants) if validation else (x, y)
    fits = [_ridge(x, y, penalty) for penalty in _PENALTIES]
    errors = [float(((held_x @ fit - held_y) ** 2).mean()) for fit in fits]
    best = fits[int(np.argmin(errors))]
    return lambda job: _features(job, constants) @ best


def _rising(train: Jobs, value: Scorer) -> Scorer:
    """Return the best rule by which the target never falls while a value rises."""
    x = np.concatenate([value(job)[np.isfinite(job.y)] for job in train])
    y = np.concatenate([job.y[np.isfinite(job.y)] for job in train])
    order = np.argsort(x, kind="stable")
    fitted = isotonic_regression(y[order]).x
    return lambda job: np.interp(value(job), x[order], fitted)


def _features(job: ClassRecords, constants: Constants) -> np.ndarray:
    z = network_input(job.features, constants)[1].astype(np.float64)
    return np.concatenate([z, np.ones((len(z), 1))], axis=1)


def _table(jobs: Jobs, constants: Constants) -> tuple[np.ndarray, np.ndarray]:
    x = np.concatenate([_features(job, constants) for job in jobs])
    y = np.concatenate([job.y for job in jobs])
    known = np.isfinite(y)
    return x[known], y[known]


def _ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    square = x.T @ x
    free = np.arange(len(square)) == len(square) - 1  # the constant is not held back
    return np.linalg.solve(square + np.diag(np.where(free, 1e-9, penalty)), x.T @ y)
