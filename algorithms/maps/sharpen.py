"""Sharpening: detector, weight by correlation, Guinier fit, B-factor, low-pass.

Source: refinement.md section 7, item 6; Rosenthal and Henderson (2003) J. Mol. Biol. 333, 721.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.maps import shells

LEAST_FSC = 1e-4  # beyond the first shell below this, the map is 0
FILTER_EDGE = 2.0  # shells
NOTHING = -99.0  # ln of no amplitude


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Modulation transfer function of a detector.

    Parameters
    ----------
    frequency
        Increasing, in cycles per physical pixel: `[n]`.
    value
        `[n]`, above 0.
    pixel_A
        Of the movies, as far as that is where the function was at work.
    """

    frequency: np.ndarray
    value: np.ndarray
    pixel_A: float

    def at(self, resolution_inverse_A: np.ndarray) -> np.ndarray:
        """Return the function at frequencies in 1/A; beyond the table its ends."""
        return np.interp(resolution_inverse_A * self.pixel_A, self.frequency, self.value)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be done to a map.

    Parameters
    ----------
    auto_bfactor
        Find the B-factor by a straight line through the Guinier plot.
    fit_from_A, fit_to_A
        Lowest and highest resolution of that line; 0: up to Nyquist.
    bfactor_A2
        B-factor to apply where it is not found; negative sharpens.
    weight
        Multiply by sqrt(2 FSC / (1 + FSC)).
    low_pass_A
        0: none.
    detector
        Divide by its transfer function.
    """

    auto_bfactor: bool = True
    fit_from_A: float = 10.0
    fit_to_A: float = 0.0
    bfactor_A2: float = 0.0
    weight: bool = True
    low_pass_A: float = 0.0
    detector: Detector | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """Straight line through the Guinier plot: ln F = slope / d^2 + intercept.

    `correlation` is the squared correlation of the fit, as RELION gives it.
    """

    slope_A2: float
    intercept: float
    correlation: float


@dataclass(frozen=True, kw_only=True)
class Guinier:
    """ln of the mean amplitude by shell, `[N/2+1]` each, at each step; None where left out."""

    resolution_squared: np.ndarray
    original: np.ndarray
    corrected: np.ndarray | None
    weighted: np.ndarray | None
    sharpened: np.ndarray
    line: Line | None


def sharpened(
    volume: Tensor, pixel_A: float, fsc: Tensor, wish: Wish
) -> tuple[Tensor, float, Guinier]:
    """Sharpen a map.

    Parameters
    ----------
    volume
        `[N, N, N]`: mean of the half-maps.
    pixel_A
        Edge of a voxel.
    fsc
        Correlation by shell `[N/2+1]`.
    wish
        What to do.

    Returns
    -------
    tuple
        The map, the B-factor that was applied (A^2) and the Guinier plot.

    Raises
    ------
    ValueError
        Fewer than two shells are there to fit a line through.
    """
    box = volume.shape[-1]
    spectrum = shells.to_fourier(volume)
    inverse_A = shells.radii(box).to(volume) / (box * pixel_A)
    at = np.arange(box // 2 + 1) / (box * pixel_A)
    original = _amplitudes(spectrum, box)
    corrected = weighted = line = None
    if wish.detector is not None:
        gain = torch.from_numpy(1.0 / wish.detector.at(at)).to(volume)
        spectrum = spectrum * shells.curve_on(gain, box)
        corrected = _amplitudes(spectrum, box)
    if wish.weight:
        spectrum = spectrum * shells.curve_on(_weights(fsc).to(volume), box)
        weighted = _amplitudes(spectrum, box)
    bfactor = wish.bfactor_A2
    if wish.auto_bfactor:
        latest = next(c for c in (weighted, corrected, original) if c is not None)
        line = fitted_line(at**2, latest, wish.fit_from_A, wish.fit_to_A)
        bfactor = 4.0 * line.slope_A2
    spectrum = spectrum * torch.exp(-bfactor / 4.0 * inverse_A**2)
    spectrum = spectrum * (shells.radii(box) <= box / 2).to(volume)
    final = _amplitudes(spectrum, box)
    if wish.low_pass_A > 0.0:
        edge = shells.raised_cosine(box, round(box * pixel_A / wish.low_pass_A), FILTER_EDGE)
        spectrum = spectrum * edge.to(volume)
    guinier = Guinier(
        resolution_squared=at**2,
        original=original,
        corrected=corrected,
        weighted=weighted,
        sharpened=final,
        line=line,
    )
    return shells.from_fourier(spectrum, box), bfactor, guinier


def fitted_line(squared: np.ndarray, logs: np.ndarray, from_A: float, to_A: float) -> Line:
    """Fit the Guinier plot by least squares.

    Parameters
    ----------
    squared
        1/d^2 of each shell, 1/A^2.
    logs
        ln of the mean amplitude; -99 where there is none.
    from_A, to_A
        Lowest and highest resolution; 0: up to the end.

    Raises
    ------
    ValueError
        Fewer than two shells.
    """
    chosen = (squared >= 1.0 / from_A**2) & (logs > NOTHING)
    if to_A > 0.0:
        chosen &= squared <= 1.0 / to_A**2
    if chosen.sum() < 2:
        raise ValueError(
            f"there are fewer than two shells with signal beyond {from_A:g} A to fit a B-factor: "
            "give a lower resolution to begin with (autob_lowres), or a B-factor"
        )
    x, y = squared[chosen], logs[chosen]
    dx, dy = x - x.mean(), y - y.mean()
    slope = float((dx * dy).sum() / (dx**2).sum())
    spread = float(np.sqrt((dx**2).sum() * (dy**2).sum()))
    correlation = float((dx * dy).sum()) / spread if spread > 0.0 else 0.0
    return Line(
        slope_A2=slope,
        intercept=float(y.mean() - slope * x.mean()),
        correlation=correlation**2,
    )


def _weights(fsc: Tensor) -> Tensor:
    """Return sqrt(2F / (1+F)), 0 from the first shell on where F is nothing."""
    gone = torch.cummax((fsc < LEAST_FSC).long(), 0).values.bool()
    safe = torch.where(gone, torch.ones_like(fsc), fsc)
    return torch.where(gone, torch.zeros_like(fsc), torch.sqrt(2.0 * safe / (1.0 + safe)))


def _amplitudes(spectrum: Tensor, box: int) -> np.ndarray:
    mean = shells.means(spectrum.abs(), box).cpu().numpy()
    return np.where(mean > 0.0, np.log(np.maximum(mean, 1e-300)), NOTHING)
