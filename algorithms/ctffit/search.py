"""The search for defocus, astigmatism and phase shift.

For noise much stronger than signal the expected amplitude follows CTF^2 = (1 - cos 2 phi) / 2, so
the matched filter is -cos 2 phi under an envelope. An exhaustive scan of the rotational average is
followed by a coarse grid of astigmatism around its best maxima and by a gradient ascent in the
smooth parameters (dm, p, q[, phase shift]).

Source: preprocessing.md section 3.5 (native algorithm).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from algorithms.ctf import CS_A_PER_MM, wavelength_A
from algorithms.ctffit.polar import PolarSpectrum, background_basis, project_out
from algorithms.ctffit.types import CtfFitOptions

# Envelopes exp(-B s^2 / 4) tried, A^2: from sharp rings to rings that fade at 10 A.
ENVELOPES_A2 = (0.0, 50.0, 150.0, 400.0, 1000.0)
_CANDIDATES = 3
_SEPARATION_A = 600.0
_SCALE_A = 1000.0
_OFFSETS_A = (-200.0, 0.0, 200.0)
_HALF_ASTIGMATISM_A = (400.0, 800.0, 1200.0)
_ANGLES = 6


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """A fit: dm, p, q in A, phase shift in radians, envelope in A^2, correlation, at_edge."""

    dm_A: float
    p_A: float
    q_A: float
    phase_shift: float
    envelope_A2: float
    correlation: float
    at_edge: bool


@dataclass(frozen=True)
class _Constants:
    """phase = defocus term * a - s^4 * b + c (+ phase shift)."""

    a: float
    b: float
    c: float

    @classmethod
    def of(cls, options: CtfFitOptions) -> "_Constants":
        wavelength = wavelength_A(options.voltage_kV)
        spherical = options.spherical_aberration_mm * CS_A_PER_MM
        return cls(
            math.pi * wavelength,
            0.5 * math.pi * wavelength**3 * spherical,
            math.asin(options.amplitude_contrast),
        )


def phases(polar: PolarSpectrum, parameters: Tensor, constants: _Constants) -> Tensor:
    """Phase `[..., sectors, rings]` for `parameters` `[..., 4]` = (dm, p, q in A, radians)."""
    dm, p, q, shift = parameters[..., None, None, :].unbind(-1)
    term = dm * polar.s2 + p * polar.s2_cos + q * polar.s2_sin
    return constants.a * term - constants.b * polar.s4 + (constants.c + shift)


def correlations(polar: PolarSpectrum, model: Tensor, envelope_A2: float) -> Tensor:
    """Correlation `[...]` of the data with models `[..., sectors, rings]` under an envelope."""
    model = model.float() * (polar.root * torch.exp(-0.25 * envelope_A2 * polar.s2))
    product = (polar.data * model).sum((-2, -1))
    norm = project_out(model, polar.basis).square().sum((-2, -1)) * polar.data.square().sum()
    return product / norm.clamp(min=1e-30).sqrt()


def search(polar: PolarSpectrum, options: CtfFitOptions, low_A: float, high_A: float) -> Optimum:
    """Best fit with a mean defocus between `low_A` and `high_A`."""
    constants = _Constants.of(options)
    ring_profile = _rotational(polar)
    candidates, envelope = _scan(ring_profile, options, constants, low_A, high_A)
    starts = _coarse(polar, candidates, constants, envelope)
    best = max(
        (_refine(polar, start, constants, envelope, options) for start in starts),
        key=lambda found: found[1],
    )
    envelope = _best_envelope(polar, best[0], constants)
    parameters, correlation = _refine(polar, best[0], constants, envelope, options)
    margin = 2.0 * options.defocus_step_A
    dm, p, q, shift = (float(v) for v in parameters)
    return Optimum(
        dm_A=dm,
        p_A=p,
        q_A=q,
        phase_shift=shift,
        envelope_A2=envelope,
        correlation=correlation,
        at_edge=not low_A + margin < dm < high_A - margin,
    )


def overfocus_correlation(polar: PolarSpectrum, found: Optimum, options: CtfFitOptions) -> float:
    """Correlation of the best fit near `found` if the image were taken overfocus.

    Rings alone do not tell the sign of the defocus; spherical aberration and amplitude contrast
    do, because with the defocus turned round they act the other way.
    """
    constants = _Constants.of(options)
    turned = _Constants(constants.a, -constants.b, -constants.c)
    start = torch.tensor([found.dm_A, found.p_A, found.q_A, found.phase_shift])
    return _refine(polar, start, turned, found.envelope_A2, options)[1]


def _rotational(polar: PolarSpectrum) -> PolarSpectrum:
    """The same spectrum as a single sector."""
    weight = polar.root.square()
    count = weight.sum(0, keepdim=True)
    root = count.sqrt()

    def mean(values: Tensor) -> Tensor:
        return (values * weight).sum(0, keepdim=True) / count.clamp(min=1.0)

    # The sectors' backgrounds are gone already; one more smooth curve removes what they left.
    basis = background_basis(root.shape[1], root)
    data = (polar.data * polar.root).sum(0, keepdim=True) / root.clamp(min=1.0)
    return PolarSpectrum(
        data=project_out(data, basis),
        root=root,
        s2=mean(polar.s2),
        s2_cos=torch.zeros_like(root),
        s2_sin=torch.zeros_like(root),
        s4=mean(polar.s4),
        basis=basis,
        n_bins=int((count > 0).sum()),
        n_pixels=polar.n_pixels,
    )


def _scan(
    polar: PolarSpectrum,
    options: CtfFitOptions,
    constants: _Constants,
    low_A: float,
    high_A: float,
) -> tuple[Tensor, float]:
    """Best well-separated maxima `[k, 4]` of the 1-D scan, and the envelope that found them."""
    device = polar.data.device
    defocus = torch.arange(
        low_A, high_A + options.defocus_step_A, options.defocus_step_A, device=device
    )
    shifts = _phase_grid(options, device)
    parameters = torch.zeros(len(defocus), 4, device=device)
    parameters[:, 0] = defocus
    twice = 2.0 * phases(polar, parameters, constants)
    cosine, sine = torch.cos(twice), torch.sin(twice)
    best, envelope = torch.full((len(shifts), len(defocus)), -1.0, device=device), 0.0
    for trial in ENVELOPES_A2:
        # -cos(2 phi + 2 shift) from two banks: phase shifts cost no new cosines.
        rows = [
            correlations(polar, sine * math.sin(2 * s) - cosine * math.cos(2 * s), trial)
            for s in shifts.tolist()
        ]
        scores = torch.stack(rows)
        if float(scores.max()) > float(best.max()):
            best, envelope = scores, trial
    top, which = best.max(0)
    picked = []
    remaining = top.clone()
    for _ in range(_CANDIDATES):
        index = int(remaining.argmax())
        picked.append([float(defocus[index]), 0.0, 0.0, float(shifts[which[index]])])
        remaining[(defocus - defocus[index]).abs() < _SEPARATION_A] = -1.0
    return torch.tensor(picked, device=device), envelope


def _phase_grid(options: CtfFitOptions, device: torch.device) -> Tensor:
    if not options.find_phase_shift:
        return torch.zeros(1, device=device)
    degrees = torch.arange(
        options.min_phase_shift_deg,
        options.max_phase_shift_deg + 0.5 * options.phase_shift_step_deg,
        options.phase_shift_step_deg,
        device=device,
    )
    return torch.deg2rad(degrees)


def _coarse(
    polar: PolarSpectrum, candidates: Tensor, constants: _Constants, envelope_A2: float
) -> Tensor:
    """Best grid point of astigmatism around every candidate, `[k, 4]`."""
    grid = [[offset, 0.0, 0.0, 0.0] for offset in _OFFSETS_A]
    for offset in _OFFSETS_A:
        for half in _HALF_ASTIGMATISM_A:
            for step in range(_ANGLES):
                twice = 2.0 * math.pi * step / _ANGLES
                grid.append([offset, half * math.cos(twice), half * math.sin(twice), 0.0])
    offsets = torch.tensor(grid, device=candidates.device)
    starts = []
    for candidate in candidates:
        trials = candidate + offsets
        model = -torch.cos(2.0 * phases(polar, trials, constants))
        starts.append(trials[int(correlations(polar, model, envelope_A2).argmax())])
    return torch.stack(starts)


def _best_envelope(polar: PolarSpectrum, parameters: Tensor, constants: _Constants) -> float:
    model = -torch.cos(2.0 * phases(polar, parameters.to(polar.data), constants))
    return max(ENVELOPES_A2, key=lambda trial: float(correlations(polar, model, trial)))


def _refine(
    polar: PolarSpectrum,
    start: Tensor,
    constants: _Constants,
    envelope_A2: float,
    options: CtfFitOptions,
) -> tuple[Tensor, float]:
    """Climb from `start` `[4]`; gives the parameters (float64) and the correlation there."""
    free = 4 if options.find_phase_shift else 3
    scale = torch.tensor([_SCALE_A, _SCALE_A, _SCALE_A, 1.0], dtype=torch.float64)
    origin = start.double() / scale
    penalty = 0.0
    if options.astigmatism_tolerance_A > 0.0:
        penalty = 2.0 / (options.astigmatism_tolerance_A**2 * polar.n_pixels)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.cat([torch.from_numpy(values), origin[free:]]).requires_grad_()
        parameters = x * scale
        model = -torch.cos(2.0 * phases(polar, parameters, constants))
        value = -correlations(polar, model, envelope_A2)
        value = value + penalty * parameters[1:3].square().sum()
        (gradient,) = torch.autograd.grad(value, x)
        return float(value.detach()), gradient[:free].numpy()

    found = minimize(
        loss,
        origin[:free].numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-8, "gtol": 1e-6, "maxiter": 60},
    )
    x = torch.cat([torch.from_numpy(found.x), origin[free:]])
    return x * scale, -float(found.fun)
