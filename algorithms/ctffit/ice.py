"""Ice seen in a spectrum: rings of crystals at 3.9, 3.7 and 3.4 A, and their shares.

Source: preprocessing.md section 3.7.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.ctffit.plane import plane

# Bands in 1/A of RELION's density.
_DENSITY = (0.25, 0.28)
# Bands in A: iciness, what it is compared with, the rings, and the background beside them.
_ICY_A, _WHOLE_A = (3.9, 3.5), (30.0, 6.0)
_RINGS_A = (3.95, 3.3)
_BESIDE_A = ((4.6, 4.0), (3.25, 2.9))


@dataclass(frozen=True, kw_only=True)
class Ice:
    """Measures of ice; None where the spectrum does not reach so far.

    Parameters
    ----------
    density
        Sum of the rotational average from 0.25 to 0.28 1/A, without sign
        (`rlnCtfIceRingDensity`). It grows with the box.
    iciness
        Squared mean amplitude at 3.9 to 3.5 A over that at 30 to 6 A: good below 1, bad above
        1.5.
    peak_sigma
        Highest ring from 3.95 to 3.3 A above the background beside it, in standard errors of a
        ring. Does not depend on the box.
    """

    density: float | None
    iciness: float | None
    peak_sigma: float | None


def ice_of(spectrum: Tensor, pixel_size_A: float, s: np.ndarray, rotational: np.ndarray) -> Ice:
    """Measure the ice of an amplitude spectrum `[n, n]`.

    Parameters
    ----------
    spectrum, pixel_size_A
        As `fit_ctf` takes them.
    s, rotational
        Frequencies in 1/A and rotational average of the profile.
    """
    size = spectrum.shape[-1]
    ring = plane(size, spectrum.device).r.round().long().flatten().clamp(max=size // 2 + 1)
    values = spectrum.flatten().double()
    count = torch.bincount(ring, minlength=size // 2 + 2).clamp(min=1)
    mean = torch.bincount(ring, values, minlength=size // 2 + 2) / count
    square = torch.bincount(ring, values * values, minlength=size // 2 + 2) / count
    # Both halves of the plane hold the same numbers.
    error = ((square - mean * mean).clamp(min=0.0) / (0.5 * count)).sqrt()
    means, errors = mean[: size // 2].cpu().numpy(), error[: size // 2].cpu().numpy()
    frequency = np.arange(size // 2) / (size * pixel_size_A)
    nyquist = 0.5 / pixel_size_A
    density = None
    if nyquist >= _DENSITY[1]:
        inside = (s >= _DENSITY[0]) & (s <= _DENSITY[1])
        density = float(np.abs(rotational[inside]).sum())
    iciness = None
    if nyquist >= 1.0 / _ICY_A[1]:
        icy, whole = (means[_band(frequency, limits)].mean() for limits in (_ICY_A, _WHOLE_A))
        iciness = float(icy**2 / whole**2) if whole > 0.0 else None
    return Ice(density=density, iciness=iciness, peak_sigma=_peak(frequency, means, errors))


def _band(frequency: np.ndarray, limits_A: tuple[float, float]) -> np.ndarray:
    return (frequency >= 1.0 / limits_A[0]) & (frequency <= 1.0 / limits_A[1])


def _peak(frequency: np.ndarray, means: np.ndarray, errors: np.ndarray) -> float | None:
    """Height of the rings over a straight line through what lies on both sides of them."""
    rings = _band(frequency, _RINGS_A)
    sides = [_band(frequency, limits) for limits in _BESIDE_A]
    if frequency[-1] < 1.0 / _RINGS_A[1] or min(side.sum() for side in sides) < 3:
        return None
    beside = sides[0] | sides[1]
    centre = frequency[beside].mean()
    line = np.polynomial.Polynomial.fit(frequency[beside] - centre, means[beside], 1)
    scatter = float(np.std(means[beside] - line(frequency[beside] - centre)))
    excess = means[rings] - line(frequency[rings] - centre)
    # Thon rings are no ice: what they move the sides by counts as error.
    error = np.sqrt(errors[rings] ** 2 + scatter**2)
    return float((excess / np.maximum(error, 1e-30)).max())
