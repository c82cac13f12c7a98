"""One call from a spectrum to a fitted CTF."""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from algorithms.ctf import Ctf, from_smooth
from algorithms.ctffit.diagnostics import (
    WORST_RESOLUTION_A,
    Profile,
    fit_resolution_bin,
    make_profile,
)
from algorithms.ctffit.picture import paint
from algorithms.ctffit.polar import PolarSpectrum, to_polar
from algorithms.ctffit.search import Optimum, overfocus_correlation, search
from algorithms.ctffit.spectrum import figure_of_merit, subtract_background
from algorithms.ctffit.types import CtfFit, CtfFitOptions

# The best of some thousand trials on noise reaches 4 to 5 deviations.
SIGNIFICANT = 7.0
# A false match of harmonics can be significant where the rings are strong; its score is not.
MIN_SCORE = 0.02
# Log of the odds that make a fit with the defocus turned round the better explanation.
OVERFOCUS_LOG_ODDS = 10.0


def fit_ctf(
    spectrum: Tensor | np.ndarray,
    pixel_size_A: float,
    options: CtfFitOptions,
    device: str = "cpu",
) -> CtfFit:
    """Fit the CTF to an amplitude spectrum.

    Parameters
    ----------
    spectrum
        `[n, n]` amplitudes, n even, origin at (n // 2, n // 2), y up the array.
    pixel_size_A
        That the spectrum belongs to: its edge is at 1 / (2 pixel) in 1/A.
    options
        Microscope and search range.
    device
        `cpu` or `cuda[:n]`, for the work on the whole plane; the search runs on the host.

    Raises
    ------
    ValueError
        The spectrum is not square and even, is not finite, or does not reach into the band.
    """
    if isinstance(spectrum, np.ndarray):
        spectrum = torch.from_numpy(np.array(spectrum, np.float32))  # readers give read-only views
    plane = spectrum.to(device=device, dtype=torch.float32)
    if plane.ndim != 2 or plane.shape[0] != plane.shape[1] or plane.shape[0] % 2:
        raise ValueError(f"the spectrum is {tuple(plane.shape)}; it must be square and even")
    if not bool(torch.isfinite(plane).all()):
        raise ValueError("the spectrum holds values that are not finite")
    # Some hundred evaluations of 10^4 bins: the host is quicker than the launches would be, and
    # its sums have a fixed order.
    polar = to_polar(plane.cpu(), pixel_size_A, options.min_resolution_A, options.max_resolution_A)
    flat = subtract_background(plane, pixel_size_A, options)
    found = search(polar, options, options.min_defocus_A, options.max_defocus_A)
    optics, doubts = _judge(polar, flat, pixel_size_A, found, options)
    if doubts:
        low_A, high_A = 0.5 * options.min_defocus_A, 1.5 * options.max_defocus_A
        wider = search(polar, options, low_A, high_A)
        if wider.correlation > found.correlation:
            found = wider
            optics, doubts = _judge(polar, flat, pixel_size_A, found, options)
    profile = make_profile(flat.cpu(), pixel_size_A, optics, options)
    # The curves go on into the corners of the square; beyond Nyquist they prove nothing.
    resolution = 1.0 / float(profile.s[fit_resolution_bin(profile.frc)])
    resolution = min(max(resolution, 2.0 * pixel_size_A), WORST_RESOLUTION_A)
    return CtfFit(
        defocus_u_A=optics.defocus_u_A,
        defocus_v_A=optics.defocus_v_A,
        angle_deg=optics.angle_deg,
        phase_shift_deg=optics.phase_shift_deg,
        score=figure_of_merit(flat, pixel_size_A, optics, options),
        max_resolution_A=resolution,
        reliable=not doubts,
        doubts=doubts,
        significance=_significance(polar, found.correlation),
        profile=_arrays(profile),
        diagnostic=paint(flat, pixel_size_A, optics, options, profile, resolution),
        optics=optics,
    )


def _significance(polar: PolarSpectrum, correlation: float) -> float:
    """Correlation in units of its deviation for bins of pure noise."""
    return correlation * math.sqrt(polar.n_bins)


def _optics(found: Optimum, options: CtfFitOptions) -> Ctf:
    u, v, angle = from_smooth(found.dm_A, found.p_A, found.q_A)
    shift = math.degrees(found.phase_shift)
    if options.find_phase_shift:
        # Amplitudes repeat every 180 degrees.
        shift = (shift - options.min_phase_shift_deg) % 180.0 + options.min_phase_shift_deg
    return Ctf(
        defocus_u_A=u,
        defocus_v_A=v,
        angle_deg=angle,
        voltage_kV=options.voltage_kV,
        spherical_aberration_mm=options.spherical_aberration_mm,
        amplitude_contrast=options.amplitude_contrast,
        phase_shift_deg=shift,
    )


def _judge(
    polar: PolarSpectrum,
    flat: Tensor,
    pixel_size_A: float,
    found: Optimum,
    options: CtfFitOptions,
) -> tuple[Ctf, tuple[str, ...]]:
    """Optics of a fit, and the reasons to doubt it (none: it is reliable)."""
    optics = _optics(found, options)
    doubts = []
    significance = _significance(polar, found.correlation)
    if significance < SIGNIFICANT:
        doubts.append("noise")
    if figure_of_merit(flat, pixel_size_A, optics, options) < MIN_SCORE:
        doubts.append("score")
    if found.at_edge or not options.min_defocus_A < found.dm_A < options.max_defocus_A:
        doubts.append("range")
    if not doubts and not options.find_phase_shift:
        turned = _significance(polar, overfocus_correlation(polar, found, options))
        if turned**2 - significance**2 > 2.0 * OVERFOCUS_LOG_ODDS:
            doubts.append("overfocus")
    return optics, tuple(doubts)


def _arrays(profile: Profile) -> dict[str, np.ndarray]:
    names = ("s", "rotational", "epa", "model", "frc", "frc_sigma")
    curves = dataclasses.asdict(profile)
    return {name: curves[name] for name in names}
