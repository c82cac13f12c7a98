"""Exposure weighting.

A frame that ends at dose D has the weight exp(-D / 2 Ne(k)), divided by the root of the sum of
the squared weights of all frames, which keeps the power of white noise. With a constant dose per
frame every weight is the one before times q(k) = exp(-dose / 2 Ne(k)), so the weighted sum is a
geometric series: one multiply-add per frame in Fourier space, exact, and no plane of exponentials
per frame. What came before the first used frame (skipped frames, pre-exposure) is a common factor
and cancels.

Source: preprocessing.md section 2.8 (Grant and Grigorieff 2015).
"""

import numpy as np
import torch
from torch import Tensor

from algorithms.fourier import Shape

# Keeps exp(+exponent) of the running sum inside float32; at 300 kV it is reached at 450 e/A^2.
_MAX_EXPONENT = 80.0


def critical_exposure(frequency: Tensor, voltage_kV: float) -> Tensor:
    """Ne(k) in e/A^2 for spatial frequencies in 1/A; infinite at 0.

    The measured curve is for 300 kV; 200 and 100 kV carry factors of 0.8 and 0.64, and voltages
    in between are interpolated.
    """
    factor = float(np.interp(voltage_kV, [100.0, 200.0, 300.0], [0.64, 0.8, 1.0]))
    return factor * (0.245 * frequency.pow(-1.665) + 2.81)


class DoseWeightedSum:
    """Running sum of aligned half spectra with exposure weights.

    Parameters
    ----------
    frequency
        `[ny, nx//2+1]` in 1/A, float32.
    dose_per_frame
        e/A^2.
    voltage_kV
        Of the microscope.
    n_frames
        How many spectra will be added, first exposed first.
    """

    def __init__(
        self, frequency: Tensor, dose_per_frame: float, voltage_kV: float, n_frames: int
    ) -> None:
        exponent = dose_per_frame / (2.0 * critical_exposure(frequency, voltage_kV))
        self._exponent = exponent.clamp_(max=_MAX_EXPONENT / n_frames)
        # The running sum is kept relative to the weight of the newest frame: S <- S / q + F.
        self._growth = torch.exp(self._exponent).to(torch.complex64)
        self._sum = torch.zeros_like(self._growth)
        self._n = n_frames

    def add(self, spectrum: Tensor) -> None:
        """Add the next frame's spectrum, complex64 `[ny, nx//2+1]`."""
        torch.addcmul(spectrum, self._sum, self._growth, out=self._sum)

    def result(self) -> Tensor:
        """Weighted sum of the `n_frames` spectra; its mean is sqrt(n) times a frame's mean."""
        # sum of q^(2f) = (1 - q^(2n)) / (1 - q^2); expm1 keeps the limit n at q -> 1.
        twice = 2.0 * self._exponent.double()
        power = torch.expm1(-self._n * twice) / torch.expm1(-twice)
        power = torch.where(twice > 0, power, float(self._n))
        last = torch.exp(-(self._n - 1) * self._exponent.double())
        return self._sum * (last / torch.sqrt(power)).to(torch.float32)


class PlainSum:
    """Running sum of aligned half spectra, all with weight 1."""

    def __init__(self, shape: Shape, device: str = "cpu") -> None:
        half = (shape[0], shape[1] // 2 + 1)
        self._sum = torch.zeros(half, dtype=torch.complex64, device=device)

    def add(self, spectrum: Tensor) -> None:
        """Add a frame's spectrum, complex64 `[ny, nx//2+1]`."""
        self._sum.add_(spectrum)

    def result(self) -> Tensor:
        """Plain sum; its mean is the sum of the frames' means."""
        return self._sum
