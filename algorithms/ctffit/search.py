"""The search for defocus, astigmatism and phase shift.

An exhaustive scan over mean defocus, astigmatism and envelope (and phase shift) is followed by a
climb in the smooth parameters (dm, p, q[, phase shift]) from its best maxima. The scan turns the
phase of every polar bin by the astigmatism first; what is left depends on the radius only, so that
one product of matrices compares all of them.

Source: preprocessing.md section 3.5 (native algorithm).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.ctffit.bank import Bank
from algorithms.ctffit.polar import PolarSpectrum
from algorithms.ctffit.thon import DM, SHIFT, Fade, Matcher, P, Q, Thon
from algorithms.ctffit.types import CtfFitOptions

# Envelopes of the scan: from sharp rings to rings that fade at 10 A.
FADES = tuple(Fade(b_A2) for b_A2 in (0.0, 50.0, 150.0, 400.0, 1000.0))
# Those that a fit is finished with: the form of the specimen's spectrum counts as well.
FINE_FADES = tuple(
    Fade(b_A2, k_A)
    for k_A in (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0)
    for b_A2 in (0.0, 30.0, 60.0, 100.0, 150.0, 250.0, 400.0, 1000.0)
)
# Units of the parameters in a climb: steps of all are of the same order.
SCALES = (1000.0, 1000.0, 1000.0, 1.0, 1000.0, 1.0, 1.0)
_CANDIDATES = 3
_SEPARATION_A = 600.0
# Half astigmatism tried, and by the exhaustive search; grid points at this distance.
_HALF_ASTIGMATISM_A, _SLOW_HALF_ASTIGMATISM_A, _GRID_A = 1400.0, 5000.0, 350.0
_CLIMB_STEPS = 30
_TOLERANCE_A = 0.3
_CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """A fit: the parameters `x` of `thon`, float64 `[7]`, its envelope and correlation."""

    x: Tensor
    fade: Fade
    correlation: float
    at_edge: bool = False

    @property
    def dm_A(self) -> float:
        """Mean defocus."""
        return float(self.x[DM])


def search(polar: PolarSpectrum, options: CtfFitOptions, low_A: float, high_A: float) -> Optimum:
    """Best fit with a mean defocus between `low_A` and `high_A`."""
    thon = Thon.of(options)
    candidates, fade = _scan(polar, options, thon, low_A, high_A)
    free = free_parameters(options)
    matcher = Matcher(polar, thon, fade)
    climbed = (climb(matcher, x, free, astigmatism_width_A(options)) for x in candidates)
    best = max(climbed, key=lambda found: found[1])[0]
    found = polish(polar, best, thon, free, options)
    margin = 2.0 * options.defocus_step_A
    at_edge = not low_A + margin < float(found.x[DM]) < high_A - margin
    return Optimum(x=found.x, fade=found.fade, correlation=found.correlation, at_edge=at_edge)


def polish(
    polar: PolarSpectrum, x: Tensor, thon: Thon, free: list[int], options: CtfFitOptions
) -> Optimum:
    """Climb from parameters `[7]` under the envelope that suits them best."""
    fade = best_fade(polar, x, thon)
    x, correlation = climb(Matcher(polar, thon, fade), x, free, astigmatism_width_A(options))
    return Optimum(x=x, fade=fade, correlation=correlation)


def best_fade(polar: PolarSpectrum, x: Tensor, thon: Thon) -> Fade:
    """Envelope under which the rings of parameters `[7]` match best."""
    grid = polar.grid
    model = Matcher(polar, thon, Fade(0.0)).model(x)
    weight = grid.root.square().sum(0).clamp(min=1.0)
    s2 = (grid.s2 * grid.root.square()).sum(0) / weight
    product, square = (polar.data * model).sum(0), model.square().sum(0)
    envelopes = torch.stack([fade.at(s2) for fade in FINE_FADES])
    match = (envelopes @ product) / (envelopes.square() @ square).clamp(min=1e-30).sqrt()
    return FINE_FADES[int(match.argmax())]


def free_parameters(options: CtfFitOptions) -> list[int]:
    """Places of the parameters that a fit may change."""
    return [DM, P, Q, SHIFT] if options.find_phase_shift else [DM, P, Q]


def astigmatism_width_A(options: CtfFitOptions) -> float:
    """Half width of the preference for no astigmatism, of half the astigmatism; inf for none."""
    return 0.5 * options.astigmatism_tolerance_A or math.inf


def overfocus_correlation(polar: PolarSpectrum, found: Optimum, options: CtfFitOptions) -> float:
    """Correlation of the best fit near `found` if the image were taken overfocus.

    Rings alone do not tell the sign of the defocus; spherical aberration and amplitude contrast
    do, because with the defocus turned round they act the other way.
    """
    matcher = Matcher(polar, Thon.of(options).turned(), found.fade)
    return climb(matcher, found.x, free_parameters(options), astigmatism_width_A(options))[1]


def climb(matcher: Matcher, start: Tensor, free: list[int], width_A: float) -> tuple[Tensor, float]:
    """Climb to the nearest maximum by damped Gauss-Newton steps.

    What grows is the likelihood, n r^2 / 2 for a correlation r in n bins, times a Cauchy density of
    the astigmatism: one that is smaller than its error is pulled to none, one that is not stays.

    Parameters
    ----------
    matcher
        Of the spectrum.
    start
        Parameters `[7]`.
    free
        Places of those that may change.
    width_A
        Of the Cauchy density of (p, q).

    Returns the parameters (float64) and the correlation there.
    """
    x = start.double().clone()
    scale = torch.tensor([SCALES[which] for which in free], dtype=torch.float64)
    astigmatic = torch.tensor([which in (P, Q) for which in free], dtype=torch.float64)

    def judged(x: Tensor) -> tuple[float, Tensor, Tensor, float]:
        match = matcher.match(x, free)
        sharpness = matcher.n_bins * max(abs(match.value), 1e-3)
        squared = float(x[P] ** 2 + x[Q] ** 2)
        pull = 3.0 * astigmatic / (width_A**2 + squared)
        value = 0.5 * sharpness * match.value - 1.5 * math.log1p(squared / width_A**2)
        gradient = sharpness * match.gradient - pull * x[free]
        hessian = sharpness * match.hessian + torch.diag(pull)
        return value, gradient * scale, hessian * scale[:, None] * scale[None, :], match.value

    value, gradient, hessian, correlation = judged(x)
    damping = 0.1
    for _ in range(_CLIMB_STEPS):
        diagonal = torch.diag(hessian.diagonal() * damping + 1e-9)
        step = torch.linalg.solve(hessian + diagonal, gradient)
        trial = x.clone()
        trial[free] += step * scale
        found = judged(trial)
        small = float(step.abs().max()) * SCALES[DM] < _TOLERANCE_A
        if found[0] > value:
            x, (value, gradient, hessian, correlation) = trial, found
            damping *= 0.2
        else:
            damping = max(damping * 6.0, 1e-2)
        if small or damping > 1e6:
            break
    return x, correlation


def astigmatism_grid(options: CtfFitOptions) -> Tensor:
    """Pairs (p, q) in A `[n, 2]`, the first one without astigmatism."""
    reach = _SLOW_HALF_ASTIGMATISM_A if options.exhaustive_astigmatism else _HALF_ASTIGMATISM_A
    pairs = [(0.0, 0.0)]
    for ring in range(1, int(reach / _GRID_A) + 1):
        count = 6 * ring
        for k in range(count):
            angle = 2.0 * math.pi * k / count
            pairs.append((ring * _GRID_A * math.cos(angle), ring * _GRID_A * math.sin(angle)))
    return torch.tensor(pairs)


def _scan(
    polar: PolarSpectrum, options: CtfFitOptions, thon: Thon, low_A: float, high_A: float
) -> tuple[Tensor, Fade]:
    """Best well-separated maxima `[k, 7]` of the scan, and the envelope that found them."""
    defocus = torch.arange(low_A, high_A + options.defocus_step_A, options.defocus_step_A)
    bank = Bank(polar.grid, thon, defocus)
    pairs, shifts = astigmatism_grid(options), phase_grid(options)
    turned = torch.cat([bank.turned(polar.data[None], part) for part in pairs.split(_CHUNK)])
    best, fade = torch.full((1, 1, len(defocus)), -math.inf), FADES[0]
    for trial in FADES:
        scores = bank.scores(turned, trial.at(bank.s2), shifts)
        if float(scores.max()) > float(best.max()):
            best, fade = scores, trial
    top, which = best.reshape(-1, len(defocus)).max(0)
    picked = []
    for _ in range(_CANDIDATES):
        index = int(top.argmax())
        shift, pair = divmod(int(which[index]), len(pairs))
        p, q = pairs[pair].tolist()
        picked.append([float(defocus[index]), p, q, float(shifts[shift]), 0.0, 0.0, 0.0])
        top[(defocus - defocus[index]).abs() < _SEPARATION_A] = -math.inf
    return torch.tensor(picked), fade


def phase_grid(options: CtfFitOptions) -> Tensor:
    """Phase shifts in radians that are tried."""
    if not options.find_phase_shift:
        return torch.zeros(1)
    step = options.phase_shift_step_deg
    degrees = torch.arange(
        options.min_phase_shift_deg, options.max_phase_shift_deg + 0.5 * step, step
    )
    return torch.deg2rad(degrees)
