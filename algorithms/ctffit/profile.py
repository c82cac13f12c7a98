"""1-D curves of a spectrum under a fit: rotational and equiphase averages, model, correlation.

Source: preprocessing.md sections 3.6 and 3.8 (Rohou and Grigorieff 2015).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.ctf import CS_A_PER_MM, Ctf, phase, smooth_parameters, wavelength_A
from algorithms.ctffit.plane import CENTRE_PX, half_plane, plane
from algorithms.ctffit.resolution import rescale, sliding_correlation
from algorithms.ctffit.types import CtfFitOptions

_CLIP_SIGMA = 4.0
_OVERSAMPLING = 3


@dataclass(frozen=True, kw_only=True)
class Profile:
    """1-D curves by radius in px (0 .. the diagonal), float64.

    Parameters
    ----------
    s
        1/A.
    phase, extrema
        Along the azimuth of the profile: radians, and maxima of the model passed so far.
    rotational, epa, model, frc, frc_sigma
        Averages of the spectrum; |CTF|, or the power of a slab's rings where a thickness was
        fitted; sliding correlation of `epa` with `model` and its error.
    """

    s: np.ndarray
    phase: np.ndarray
    extrema: np.ndarray
    rotational: np.ndarray
    epa: np.ndarray
    model: np.ndarray
    frc: np.ndarray
    frc_sigma: np.ndarray


def extremum(optics: Ctf, defocus_A: float) -> float:
    """Frequency squared (1/A^2) where the phase turns around; inf without Cs, 0 overfocus."""
    spherical = optics.spherical_aberration_mm * CS_A_PER_MM
    if spherical <= 0.0:
        return math.inf
    return max(0.0, defocus_A) / (wavelength_A(optics.voltage_kV) ** 2 * spherical)


def profile_azimuth_deg(angle_deg: float) -> float:
    """Azimuth of mean defocus, kept 10 degrees off the axes, where artefacts are."""
    azimuth = (angle_deg + 45.0) % 180.0
    nearest = 90.0 * round(azimuth / 90.0)
    off = azimuth - nearest
    if abs(off) >= 10.0:
        return azimuth
    return nearest + math.copysign(10.0, off)


def ring_model(phi: Tensor, s2: Tensor, optics: Ctf, thickness_A: float) -> Tensor:
    """|CTF| for phases and squared frequencies (1/A^2), or the power of a slab's rings."""
    if thickness_A <= 0.0:
        return torch.sin(phi).abs()
    contrast = torch.sinc(wavelength_A(optics.voltage_kV) * thickness_A * s2)
    return 0.5 * (1.0 - contrast * torch.cos(2.0 * phi))


def count_extrema(phi: np.ndarray, s2: np.ndarray, optics: Ctf, thickness_A: float) -> np.ndarray:
    """Maxima of the model passed up to each bin; beyond the turn of the phase it counts on."""
    # Between two nodes of a slab maxima and minima change places.
    nodes = np.floor(wavelength_A(optics.voltage_kV) * max(thickness_A, 0.0) * s2)
    turns = phi / math.pi + np.where(nodes % 2 == 1, 0.5, 0.0)
    passed = np.abs(np.floor(turns + 0.5)).astype(int)
    return np.concatenate([[0], np.cumsum(np.abs(np.diff(passed)))]) + passed[0]


def make_profile(
    flat: Tensor,
    pixel_size_A: float,
    optics: Ctf,
    options: CtfFitOptions,
    thickness_A: float = 0.0,
) -> Profile:
    """1-D curves of the background-subtracted spectrum `[n, n]` (host) under a fit."""
    size = flat.shape[-1]
    reach = size * pixel_size_A
    bins = int(math.hypot(size / 2, size / 2)) + 1
    azimuth = math.radians(profile_azimuth_deg(optics.angle_deg))
    radius = torch.arange(bins, dtype=torch.float64)
    s = (radius / reach).numpy()
    along = phase(optics, radius / reach * math.cos(azimuth), radius / reach * math.sin(azimuth))
    phi = along.numpy()
    normal = _standardise(flat, _band_px(phi, reach, options))
    epa = _equiphase(normal, reach, optics, phi, azimuth)
    extrema = count_extrema(phi, s * s, optics, thickness_A)
    model = ring_model(along, (radius / reach).square(), optics, thickness_A).numpy()
    scaled = rescale(epa, model, extrema)
    first = int(reach / options.min_resolution_A)
    frc, sigma = sliding_correlation(scaled, model, extrema, first)
    return Profile(
        s=s,
        phase=phi,
        extrema=extrema,
        rotational=_by_radius(normal, bins),
        epa=epa,
        model=model,
        frc=frc,
        frc_sigma=sigma,
    )


def _band_px(phi: np.ndarray, reach: float, options: CtfFitOptions) -> tuple[float, float]:
    """Radii in px between the 3rd and 4th zero, or the upper half of the fitted band."""
    low, high = reach / options.min_resolution_A, reach / options.max_resolution_A
    zeros = np.flatnonzero(np.diff(np.floor(phi / math.pi)))
    if len(zeros) >= 4 and low < zeros[2] and zeros[3] < high:
        return float(zeros[2]), float(zeros[3]) + 1.0
    return 0.5 * (low + high), high


def _standardise(flat: Tensor, band: tuple[float, float]) -> Tensor:
    """Spectrum with mean 0 and deviation 1 in a band, clipped, the centre empty."""
    size = flat.shape[-1]
    here = plane(size, flat.device)
    edge = torch.cat([flat[0], flat[-1], flat[:, 0], flat[:, -1]]).mean()
    image = flat - edge
    inside = (here.r >= band[0]) & (here.r <= band[1])
    inside &= (here.x.abs() > CENTRE_PX) & (here.y.abs() > CENTRE_PX)
    deviation, mean = torch.std_mean(image[inside])
    middle = slice(size // 2 - 1, size // 2 + 2)
    image[middle].clamp_(max=float(mean))
    image[:, middle].clamp_(max=float(mean))
    normal = image.sub_(mean).div_(deviation.clamp(min=1e-30)).clamp_(-_CLIP_SIGMA, _CLIP_SIGMA)
    return normal.masked_fill_(here.r < CENTRE_PX, 0.0)


def _by_radius(image: Tensor, bins: int) -> np.ndarray:
    r = plane(image.shape[-1], image.device).r
    ring = r.round().long().flatten().clamp(max=bins - 1)
    count = torch.bincount(ring, minlength=bins).double()
    total = torch.bincount(ring, image.flatten().double(), minlength=bins)
    return (total / count.clamp(min=1.0)).numpy()


def _equiphase(
    normal: Tensor, reach: float, optics: Ctf, profile_phase: np.ndarray, azimuth: float
) -> np.ndarray:
    """Average over pixels of equal phase, read out along the azimuth of the profile.

    Phases before and after the turn of the phase are kept apart: they are other resolutions.
    """
    half = half_plane(normal.shape[-1])
    pixels = normal.reshape(-1)[half.pixels].double()
    dm, p, q = smooth_parameters(optics.defocus_u_A, optics.defocus_v_A, optics.angle_deg)
    # Defocus times s^2, 1/A: no azimuth is ever computed.
    term = (dm * half.r2 + p * half.r2_cos + q * half.r2_sin) / reach**2
    s4 = (half.r2 / reach**2).square()
    wave = wavelength_A(optics.voltage_kV)
    turning = wave**2 * optics.spherical_aberration_mm * CS_A_PER_MM
    constant = math.radians(optics.phase_shift_deg) + math.asin(optics.amplitude_contrast)
    phi = math.pi * wave * (term - 0.5 * turning * s4) + constant
    low = min(float(phi.min()), float(profile_phase.min()))
    high = max(float(phi.max()), float(profile_phase.max()))
    bins = _OVERSAMPLING * len(profile_phase)
    step = max(high - low, 1e-9) / (bins - 2)
    wanted = (profile_phase - low) / step
    s = np.arange(len(profile_phase)) / reach
    along = dm + p * math.cos(2.0 * azimuth) + q * math.sin(2.0 * azimuth)
    after = s * s > extremum(optics, along)
    turned = turning * s4 > term
    if not bool(turned.any()):
        return _read_out((phi - low) / step, pixels, wanted, bins)
    out = np.zeros(len(profile_phase))
    for side in (False, True):
        mine = turned == side
        if after[after == side].size and bool(mine.any()):
            place = (phi[mine] - low) / step
            out[after == side] = _read_out(place, pixels[mine], wanted[after == side], bins)
    return out


def _read_out(place: Tensor, pixels: Tensor, wanted: np.ndarray, bins: int) -> np.ndarray:
    """Averages of pixels by place, around `wanted` places and half way to their neighbours.

    A pixel is shared between the two nearest bins. Where wanted places are nearer than two bins,
    what lies between two bins is interpolated.
    """
    index = place.long()
    fraction = place - index
    upper = torch.bincount(index, fraction, minlength=bins)
    count = torch.bincount(index, minlength=bins) - upper
    total_upper = torch.bincount(index, fraction * pixels, minlength=bins)
    total = torch.bincount(index, pixels, minlength=bins) - total_upper
    count[1:] += upper[:-1]
    total[1:] += total_upper[:-1]
    # Half of what is between two wanted places belongs to each; one bin at least.
    half = np.maximum(0.5 * np.abs(np.gradient(wanted)), 1.0) if len(wanted) > 1 else 1.0
    edges = np.arange(bins + 1) - 0.5
    sums = [np.concatenate([[0.0], np.cumsum(v.numpy())]) for v in (total, count)]
    inside, number = (
        np.interp(wanted + half, edges, v) - np.interp(wanted - half, edges, v) for v in sums
    )
    filled = number > 1e-9
    if not filled.any():
        return np.zeros(len(wanted))
    places = np.arange(len(wanted))
    return np.interp(places, places[filled], inside[filled] / number[filled])
