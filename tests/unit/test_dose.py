"""Exposure weighting against the formula of Grant and Grigorieff, written out."""

import math

import numpy as np
import pytest
import torch

from algorithms.motion.dose import critical_exposure, frame_weights, low_rank


def literal_weights(
    k: np.ndarray, n: int, dose: float, pre_exposure: float, factor: float
) -> np.ndarray:
    """w_f(k) / sqrt(sum w^2) with every exponential written out, float64 `[n, ...]`."""
    with np.errstate(divide="ignore"):
        critical = 0.245 * k**-1.665 + 2.81
    accumulated = (pre_exposure + dose * np.arange(1, n + 1)) / factor
    weights = np.exp(-accumulated[:, None] / (2.0 * critical))
    return weights / np.sqrt((weights**2).sum(0))


@pytest.mark.parametrize(("kv", "factor"), [(300.0, 1.0), (200.0, 0.8), (100.0, 0.64)])
@pytest.mark.parametrize(("n", "dose", "pre"), [(16, 1.0, 0.0), (50, 1.2, 5.0), (3, 0.3, 1.0)])
def test_weights_are_those_of_the_formula(
    kv: float, factor: float, n: int, dose: float, pre: float
) -> None:
    k = np.linspace(0.0, 0.7, 200)
    found = frame_weights(torch.from_numpy(k), dose, kv, n).numpy()
    assert np.abs(found - literal_weights(k, n, dose, pre, factor)).max() < 1e-6
    np.testing.assert_allclose(np.square(found).sum(0), 1.0)
    np.testing.assert_allclose(found[:, 0], 1.0 / math.sqrt(n))  # nothing is lost at the origin


@pytest.mark.parametrize(
    ("n", "dose", "highest"), [(24, 1.0, 0.7), (50, 1.0, 0.6), (60, 1.5, 1.4), (3, 1.0, 0.7)]
)
def test_few_factors_are_enough(n: int, dose: float, highest: float) -> None:
    found = low_rank(n, dose, 300.0, highest)
    assert len(found.frames) <= 8
    k = torch.arange(found.tables.shape[1], dtype=torch.float64) * found.step
    exact = frame_weights(k, dose, 300.0, n).numpy()
    error = np.abs(found.frames.T @ found.tables - exact)
    assert error.max() / exact.max() == pytest.approx(found.error, rel=1e-6, abs=1e-12)
    assert found.error < 5e-4
    assert float(k[-2]) >= highest * (1 - 1e-9)
    # The plain sum is the first of them, and the mean is exact.
    assert (found.frames[0] == 1.0).all()
    assert error[:, 0].max() < 1e-4 / math.sqrt(n)


def test_without_dose_there_is_one_factor() -> None:
    found = low_rank(10, 0.0, 300.0, 0.5)
    assert found.frames.shape == (1, 10)
    np.testing.assert_allclose(found.tables, 1.0 / math.sqrt(10))


def test_extreme_doses_stay_finite() -> None:
    found = low_rank(5, 1e4, 300.0, 1.0)
    assert np.isfinite(found.tables).all() and np.isfinite(found.frames).all()


def test_critical_exposure_between_voltages() -> None:
    k = torch.tensor([0.1])
    at_300 = float(critical_exposure(k, 300.0))
    assert at_300 == pytest.approx(0.245 * 0.1**-1.665 + 2.81, rel=1e-6)
    assert float(critical_exposure(k, 120.0)) == pytest.approx(0.672 * at_300, rel=1e-6)


def test_frames_of_different_doses() -> None:
    k = torch.linspace(0.0, 0.7, 100, dtype=torch.float64)
    doses = [0.5, 0.5, 2.0, 1.0]
    found = frame_weights(k, doses, 300.0, 4).numpy()
    with np.errstate(divide="ignore"):
        critical = 0.245 * k.numpy() ** -1.665 + 2.81
    weights = np.exp(-np.cumsum(doses)[:, None] / (2.0 * critical))
    np.testing.assert_allclose(found, weights / np.sqrt((weights**2).sum(0)), atol=1e-12)
    few = low_rank(4, doses, 300.0, 0.7)
    assert few.error < 3e-4 and not np.allclose(few.tables, low_rank(4, 1.0, 300.0, 0.7).tables)
