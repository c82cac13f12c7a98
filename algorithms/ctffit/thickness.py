"""Thickness of the ice from the contrast of the Thon rings.

The rings of a slab fade and come back with the other sign where lambda s^2 t is an integer. The
height of the rings by radius, sign included, is fitted with a smooth positive envelope times the
contrast of a slab: an envelope can take rings away, but it cannot turn their sign.

Source: preprocessing.md section 3.8 (CTFFIND5; Elferich et al. 2024).
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from algorithms.ctf import wavelength_A
from algorithms.ctffit.bank import Bank
from algorithms.ctffit.polar import PolarSpectrum
from algorithms.ctffit.search import Optimum, astigmatism_width_A, climb, free_parameters
from algorithms.ctffit.thon import DM, THICKNESS, Fade, Matcher, P, Q, Thon, modulation
from algorithms.ctffit.types import CtfFitOptions

# The band in which the first node of slabs from 500 A on lies.
BAND_A = (30.0, 3.0)
_TRIED_A = (400.0, 4000.0, 20.0)
_LIMITS_A = (400.0, 50000.0)
_DEFOCUS_REACH_A, _DEFOCUS_STEP_A = 1000.0, 25.0
_FADES = (Fade(0.0), Fade(50.0), Fade(150.0), Fade(50.0, 20.0), Fade(150.0, 30.0))
_STARTS, _SEPARATION_A = 3, 200.0
# Height and defocus depend on each other: each is fitted given the other, some times over.
_ROUNDS = 3
# Log of the odds that make a slab a better explanation than a thin specimen.
_LOG_ODDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Slab:
    """A fit with thickness; `log_odds` over an envelope alone."""

    found: Optimum
    thickness_A: float
    log_odds: float


@dataclass(frozen=True)
class _Height:
    """Height of the rings by radius: squared frequencies, values, their weights, `[rings]`."""

    s2: np.ndarray
    values: np.ndarray
    weights: np.ndarray

    def contrast(self, thickness_A: float, wave_A: float) -> np.ndarray:
        """Contrast of the rings of a slab."""
        return np.sinc(wave_A * thickness_A * self.s2)


@dataclass(frozen=True)
class _Decay:
    """A fitted decay: thickness (0: none was allowed), envelope, sum of squared residuals."""

    thickness_A: float
    fade: Fade
    cost: float


def fit_thickness(
    polar: PolarSpectrum, thin: Optimum, reach_A: float, options: CtfFitOptions
) -> Slab | None:
    """Fit a slab to a spectrum; None where the rings do not tell its thickness.

    Parameters
    ----------
    polar
        The spectrum in polar bins over `BAND_A`.
    thin
        The fit without thickness.
    reach_A
        High-resolution end of the bins: the first node has to lie before it.
    options
        Of the fit.
    """
    thon, wave = Thon.of(options), wavelength_A(options.voltage_kV)
    least = max(_LIMITS_A[0], reach_A**2 / wave)
    best, decay = thin, None
    for x in _scan(polar, thin, thon):
        found, settled = _settle(polar, x, options)
        better = decay is None or settled.cost < decay.cost
        if least < settled.thickness_A < _LIMITS_A[1] and better:
            best, decay = found, settled
    if decay is None:
        return None
    without = min(_decay(_height(polar, f.x, thon), 0.0, wave).cost for f in (thin, best))
    log_odds = 0.5 * (without - decay.cost)
    if log_odds < _LOG_ODDS:
        return None
    return Slab(found=best, thickness_A=decay.thickness_A, log_odds=log_odds)


def _settle(polar: PolarSpectrum, x: Tensor, options: CtfFitOptions) -> tuple[Optimum, _Decay]:
    """Fit height and defocus in turns from parameters `[7]`."""
    thon, wave = Thon.of(options), wavelength_A(options.voltage_kV)
    free, correlation = free_parameters(options), -1.0
    decay = _decay(_height(polar, x, thon), float(x[THICKNESS]), wave)
    for _ in range(_ROUNDS):
        x = x.clone()
        x[THICKNESS] = decay.thickness_A
        matcher = Matcher(polar, thon, decay.fade)
        x, correlation = climb(matcher, x, free, astigmatism_width_A(options))
        decay = _decay(_height(polar, x, thon), decay.thickness_A, wave)
    return Optimum(x=x, fade=decay.fade, correlation=correlation), decay


def _height(polar: PolarSpectrum, x: Tensor, thon: Thon) -> _Height:
    """Height of the rings of parameters `[7]`, whatever thickness they hold."""
    grid = polar.grid
    x = x.clone()
    x[THICKNESS] = 0.0
    model = Matcher(polar, thon, Fade(0.0)).model(x)
    weight = grid.root.double().square()
    filled = weight.sum(0) > 0.0  # at both ends a ring may have lost its last pixel
    product = (polar.data * model).sum(0).double()[filled].numpy()
    square = model.square().sum(0).double()[filled].numpy().clip(1e-12)
    s2 = ((grid.s2.double() * weight).sum(0)[filled] / weight.sum(0)[filled]).numpy()
    noise = float(polar.data.double().square().sum()) / grid.n_bins
    return _Height(s2, product / square, np.sqrt(square / max(noise, 1e-30)))


def _decay(height: _Height, thickness_A: float, wave_A: float) -> _Decay:
    """Fit envelope and thickness to heights; without thickness from a start of 0."""
    s = np.sqrt(height.s2)
    u = s / s[-1]
    powers = u[:, None] ** np.arange(4)
    slab = thickness_A > 0.0

    def residuals(free: np.ndarray) -> np.ndarray:
        envelope = np.exp(np.clip(powers @ free[:4], -40.0, 40.0))
        contrast = height.contrast(1000.0 * free[4], wave_A) if slab else 1.0
        return height.weights * (height.values - envelope * contrast)

    first = max(float(np.average(height.values[: len(u) // 6])), 1e-3)
    start = [np.log(first), -2.0, 0.0, 0.0, *([thickness_A / 1000.0] if slab else [])]
    # The last three coefficients are held by a wide prior: all-noise rings leave them open.
    found = least_squares(
        lambda free: np.concatenate([residuals(free), free[1:4] / 20.0]), start, method="lm"
    )
    c = found.x[1:4] / s[-1] ** np.arange(1, 4)
    fade = Fade(-4.0 * float(c[1]), -float(c[0]), -float(c[2]))
    cost = float(np.square(residuals(found.x)).sum())
    return _Decay(1000.0 * float(found.x[4]) if slab else 0.0, fade, cost)


def _scan(polar: PolarSpectrum, thin: Optimum, thon: Thon) -> list[Tensor]:
    """Parameters `[7]` of the best thicknesses, well separated."""
    steps = round(_DEFOCUS_REACH_A / _DEFOCUS_STEP_A)
    defocus = thin.dm_A + _DEFOCUS_STEP_A * torch.arange(-steps, steps + 1)
    bank = Bank(polar.grid, thon, defocus)
    turned = bank.turned(polar.data[None], thin.x[None, [P, Q]].float())
    shift = thin.x[3:4].float()
    rated = []
    for thickness in torch.arange(_TRIED_A[0], _TRIED_A[1] + 1.0, _TRIED_A[2]).tolist():
        contrast, _ = modulation(bank.s2, thickness, thon)
        for fade in _FADES:
            score, place = bank.scores(turned, contrast * fade.at(bank.s2), shift)[0, 0].max(0)
            rated.append((float(score), thickness, float(defocus[place])))
    starts: list[Tensor] = []
    for _, thickness, dm in sorted(rated, reverse=True):
        near = (abs(thickness - float(x[THICKNESS])) < _SEPARATION_A for x in starts)
        if len(starts) < _STARTS and not any(near):
            x = thin.x.clone()
            x[DM], x[THICKNESS] = dm, thickness
            starts.append(x)
    return starts
