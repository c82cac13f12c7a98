"""Exposure weighting against the formula of Grant and Grigorieff, written out."""

import math

import numpy as np
import pytest
import torch

from algorithms import fourier
from algorithms.motion.dose import DoseWeightedSum, PlainSum, critical_exposure


def literal_weights(
    k: np.ndarray, n: int, dose: float, pre_exposure: float, factor: float
) -> np.ndarray:
    """w_f(k) / sqrt(sum w^2) with every exponential written out, float64 `[n, ...]`."""
    with np.errstate(divide="ignore"):
        critical = 0.245 * k**-1.665 + 2.81
    accumulated = (pre_exposure + dose * np.arange(1, n + 1)) / factor
    weights = np.exp(-accumulated[:, None, None] / (2.0 * critical))
    return weights / np.sqrt((weights**2).sum(0))


def spectra(n: int, shape: tuple[int, int]) -> torch.Tensor:
    frames = torch.randn(n, *shape, generator=torch.Generator().manual_seed(1)) + 4.0
    return fourier.rfft2(frames)


@pytest.mark.parametrize(("kv", "factor"), [(300.0, 1.0), (200.0, 0.8), (100.0, 0.64)])
@pytest.mark.parametrize(("n", "dose", "pre"), [(16, 1.0, 0.0), (50, 1.2, 5.0), (3, 0.3, 1.0)])
def test_running_sum_is_the_weighted_sum(
    kv: float, factor: float, n: int, dose: float, pre: float
) -> None:
    shape = (32, 40)
    k = fourier.radius(shape, 0.9)
    frames = spectra(n, shape)
    total = DoseWeightedSum(k, dose, kv, n)
    for frame in frames:
        total.add(frame)
    weights = literal_weights(k.double().numpy(), n, dose, pre, factor)
    expected = (weights * frames.numpy()).sum(0)
    assert np.abs(total.result().numpy() - expected).max() < 2e-6 * np.abs(expected).max()


def test_mean_grows_with_the_root_of_the_frames() -> None:
    frames = spectra(24, (16, 16))
    total = DoseWeightedSum(fourier.radius((16, 16), 1.0), 1.0, 300.0, 24)
    for frame in frames:
        total.add(frame)
    mean = float(frames[:, 0, 0].real.mean())
    assert float(total.result()[0, 0].real) == pytest.approx(math.sqrt(24) * mean, rel=1e-5)


def test_white_noise_stays_white() -> None:
    shape, n = (256, 256), 24
    k = fourier.radius(shape, 1.0)
    total = DoseWeightedSum(k, 1.0, 300.0, n)
    generator = torch.Generator().manual_seed(2)
    for _ in range(n):
        total.add(fourier.rfft2(torch.randn(*shape, generator=generator)))
    power = total.result().abs().square() * shape[0] * shape[1]
    for low, high in ((0.05, 0.2), (0.2, 0.35), (0.35, 0.5)):
        shell = (k > low) & (k < high)
        shell_size = int(shell.sum())
        assert float(power[shell].mean()) == pytest.approx(1.0, abs=4.0 / math.sqrt(shell_size))


def test_extreme_doses_stay_finite() -> None:
    frames = spectra(5, (16, 16))
    for dose in (0.0, 1e4):
        total = DoseWeightedSum(fourier.radius((16, 16), 0.5), dose, 300.0, 5)
        for frame in frames:
            total.add(frame)
        assert torch.isfinite(total.result().abs()).all()


def test_critical_exposure_between_voltages() -> None:
    k = torch.tensor([0.1])
    at_300 = float(critical_exposure(k, 300.0))
    assert at_300 == pytest.approx(0.245 * 0.1**-1.665 + 2.81, rel=1e-6)
    assert float(critical_exposure(k, 120.0)) == pytest.approx(0.672 * at_300, rel=1e-6)


def test_plain_sum() -> None:
    frames = spectra(4, (8, 10))
    total = PlainSum((8, 10))
    for frame in frames:
        total.add(frame)
    assert torch.allclose(total.result(), frames.sum(0))
