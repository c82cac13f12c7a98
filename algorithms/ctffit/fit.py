"""One call from a spectrum to a fitted CTF."""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from algorithms.ctf import Ctf, from_smooth
from algorithms.ctffit.ice import ice_of
from algorithms.ctffit.picture import paint
from algorithms.ctffit.polar import PolarSpectrum, to_polar
from algorithms.ctffit.profile import Profile, make_profile
from algorithms.ctffit.resolution import (
    WORST_RESOLUTION_A,
    aliasing_bin,
    cross_validated_A,
    fit_resolution_bin,
)
from algorithms.ctffit.search import Optimum, overfocus_correlation, search
from algorithms.ctffit.spectrum import figure_of_merit, subtract_background
from algorithms.ctffit.thickness import BAND_A, fit_thickness
from algorithms.ctffit.thon import DM, SHIFT, P, Q
from algorithms.ctffit.types import CtfFit, CtfFitOptions

# The best of some thousand trials on noise reaches 4 to 5 deviations.
SIGNIFICANT = 7.0
# A false match of harmonics can be significant where the rings are strong; its score is not.
MIN_SCORE = 0.02
# Log of the odds that make a fit with the defocus turned round the better explanation.
OVERFOCUS_LOG_ODDS = 10.0
# Lowest defocus that is looked for: below it no ring lies in any band.
_LEAST_DEFOCUS_A = 200.0
_PROFILE = ("s", "rotational", "epa", "model", "frc", "frc_sigma")


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
        Microscope and search range; a tilt needs the image, see `estimate_ctf`.
    device
        `cpu` or `cuda[:n]`, for the work on the whole plane; the search runs on the host.

    Raises
    ------
    ValueError
        The spectrum is not square and even, is not finite, or does not reach into the band.
    """
    plane = _checked(spectrum, device)
    # Some hundred evaluations of 10^4 bins: the host is quicker than the launches would be, and
    # its sums have a fixed order.
    host = plane.cpu()
    polar = to_polar(host, pixel_size_A, options.min_resolution_A, options.max_resolution_A)
    flat = subtract_background(plane, pixel_size_A, options)
    found, optics, doubts = _search(polar, flat, pixel_size_A, options)
    thickness_A = None
    if options.find_thickness and not doubts:
        optics, thickness_A = _slab(host, pixel_size_A, found, optics, options)
    profile = make_profile(flat.cpu(), pixel_size_A, optics, options, thickness_A or 0.0)
    resolution = _fit_resolution_A(profile, pixel_size_A, options)
    whole = to_polar(host, pixel_size_A, options.min_resolution_A, 2.0 * pixel_size_A)
    return CtfFit(
        defocus_u_A=optics.defocus_u_A,
        defocus_v_A=optics.defocus_v_A,
        angle_deg=optics.angle_deg,
        phase_shift_deg=optics.phase_shift_deg,
        pixel_size_A=pixel_size_A,
        score=figure_of_merit(flat, pixel_size_A, optics, options),
        max_resolution_A=resolution,
        reliable=not doubts,
        doubts=doubts,
        significance=_significance(polar, found.correlation),
        cross_validated_A=cross_validated_A(polar, whole, found, options),
        aliasing_A=_aliasing_A(profile),
        ice=ice_of(host, pixel_size_A, profile.s, profile.rotational),
        thickness_A=thickness_A,
        profile=_arrays(profile),
        diagnostic=paint(
            flat, pixel_size_A, optics, options, profile, resolution, thickness_A or 0.0
        ),
        optics=optics,
    )


def _fit_resolution_A(profile: Profile, pixel_size_A: float, options: CtfFitOptions) -> float:
    """To where the rings follow the model, in A."""
    # The curves go on into the corners of the square; beyond Nyquist they prove nothing.
    first, last = np.searchsorted(profile.s, (1.0 / options.min_resolution_A, 0.5 / pixel_size_A))
    found = fit_resolution_bin(profile.frc[:last], int(first)) * float(profile.s[1])
    return min(max(1.0 / found, 2.0 * pixel_size_A), WORST_RESOLUTION_A)


def _aliasing_A(profile: Profile) -> float | None:
    """Where the rings become too narrow for the box, in A; None where they do not."""
    found = aliasing_bin(profile.extrema)
    return None if found is None else 1.0 / float(profile.s[found])


def _checked(spectrum: Tensor | np.ndarray, device: str) -> Tensor:
    if isinstance(spectrum, np.ndarray):
        spectrum = torch.from_numpy(np.array(spectrum, np.float32))  # readers give read-only views
    plane = spectrum.to(device=device, dtype=torch.float32)
    if plane.ndim != 2 or plane.shape[0] != plane.shape[1] or plane.shape[0] % 2:
        raise ValueError(f"the spectrum is {tuple(plane.shape)}; it must be square and even")
    if not bool(torch.isfinite(plane).all()):
        raise ValueError("the spectrum holds values that are not finite")
    return plane


def _search(
    polar: PolarSpectrum, flat: Tensor, pixel_size_A: float, options: CtfFitOptions
) -> tuple[Optimum, Ctf, tuple[str, ...]]:
    """Best fit, its optics and doubts; a doubtful one is looked for in a wider range too."""
    found = search(polar, options, options.min_defocus_A, options.max_defocus_A)
    optics, doubts = _judge(polar, flat, pixel_size_A, found, options)
    if doubts and doubts != ("overfocus",):
        low_A = max(0.5 * options.min_defocus_A, _LEAST_DEFOCUS_A)
        wider = search(polar, options, low_A, 1.5 * options.max_defocus_A)
        if wider.correlation > found.correlation:
            found = wider
            optics, doubts = _judge(polar, flat, pixel_size_A, found, options)
    return found, optics, doubts


def _slab(
    host: Tensor, pixel_size_A: float, found: Optimum, optics: Ctf, options: CtfFitOptions
) -> tuple[Ctf, float | None]:
    """Optics and thickness of the fit of a slab, or those without one."""
    reach_A = max(BAND_A[1], 2.0 * pixel_size_A)
    polar = to_polar(host, pixel_size_A, BAND_A[0], reach_A)
    slab = fit_thickness(polar, found, reach_A, options)
    if slab is None:
        return optics, None
    return _optics(slab.found, options), slab.thickness_A


def _significance(polar: PolarSpectrum, correlation: float) -> float:
    """Correlation in units of its deviation for bins of pure noise."""
    return correlation * math.sqrt(polar.grid.n_bins)


def _optics(found: Optimum, options: CtfFitOptions) -> Ctf:
    u, v, angle = from_smooth(*found.x[[DM, P, Q]].tolist())
    shift = math.degrees(float(found.x[SHIFT]))
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
    curves = dataclasses.asdict(profile)
    return {name: curves[name] for name in _PROFILE}
