"""How far a fit can be trusted: equiphase average, its correlation with the model, resolution.

Source: preprocessing.md section 3.6 (Rohou and Grigorieff 2015).
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from algorithms.ctf import CS_A_PER_MM, Ctf, phase, wavelength_A
from algorithms.ctffit.spectrum import pixel_radius
from algorithms.ctffit.types import CtfFitOptions

WORST_RESOLUTION_A = 25.0
_CENTRE_PX = 5
_CLIP_SIGMA = 4.0
_OVERSAMPLING = 3
_RANKED_EXTREMA = 7


@dataclass(frozen=True, kw_only=True)
class Profile:
    """1-D curves by radius in px (0 .. the diagonal), float64.

    Parameters
    ----------
    s
        1/A.
    phase, extrema
        Along the azimuth of the profile: radians, and maxima of |CTF| passed so far.
    rotational, epa, model, frc, frc_sigma
        Averages of the spectrum, |CTF|, sliding correlation of `epa` with `model` and its error.
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


def make_profile(flat: Tensor, pixel_size_A: float, optics: Ctf, options: CtfFitOptions) -> Profile:
    """1-D curves of the background-subtracted spectrum `[n, n]` under a fit."""
    size = flat.shape[-1]
    x, y, r = pixel_radius(size, flat.device)
    reach = size * pixel_size_A
    bins = int(math.hypot(size / 2, size / 2)) + 1
    azimuth = math.radians(profile_azimuth_deg(optics.angle_deg))
    s = torch.arange(bins, dtype=torch.float64, device=flat.device) / reach
    along = phase(optics, s * math.cos(azimuth), s * math.sin(azimuth))
    dz = 0.5 * (optics.defocus_u_A + optics.defocus_v_A) + 0.5 * (
        optics.defocus_u_A - optics.defocus_v_A
    ) * math.cos(2.0 * (azimuth - math.radians(optics.angle_deg)))
    turned = (s * s > extremum(optics, dz)).cpu().numpy()
    normal = _standardise(flat, x, y, r, _band_px(along, reach, options))
    epa = _equiphase(normal, x / reach, y / reach, r, optics, (along, turned))
    rotational = _by_radius(normal, r, bins)
    phi = along.cpu().numpy()
    extrema = np.abs(np.floor(phi / math.pi + 0.5)).astype(int)
    extrema = np.concatenate([[0], np.cumsum(np.abs(np.diff(extrema)))]) + extrema[0]
    model = np.abs(np.sin(phi))
    scaled = _rescale(epa, model, extrema)
    frc, sigma = _sliding_correlation(scaled, model, extrema, int(reach / options.min_resolution_A))
    return Profile(
        s=s.cpu().numpy(),
        phase=phi,
        extrema=extrema,
        rotational=rotational,
        epa=epa,
        model=model,
        frc=frc,
        frc_sigma=sigma,
    )


def _band_px(along: Tensor, reach: float, options: CtfFitOptions) -> tuple[float, float]:
    """Radii in px between the 3rd and 4th zero, or the upper half of the fitted band."""
    low, high = reach / options.min_resolution_A, reach / options.max_resolution_A
    zeros = torch.nonzero(torch.diff(torch.floor(along / math.pi)) != 0).flatten()
    if len(zeros) >= 4 and low < float(zeros[2]) and float(zeros[3]) < high:
        return float(zeros[2]), float(zeros[3]) + 1.0
    return 0.5 * (low + high), high


def _standardise(
    flat: Tensor, x: Tensor, y: Tensor, r: Tensor, band: tuple[float, float]
) -> Tensor:
    """Spectrum with mean 0 and deviation 1 in a band, clipped, the centre empty."""
    edge = torch.cat([flat[0], flat[-1], flat[:, 0], flat[:, -1]]).mean()
    image = flat - edge
    inside = (r >= band[0]) & (r <= band[1]) & (x.abs() > _CENTRE_PX) & (y.abs() > _CENTRE_PX)
    mean, deviation = image[inside].mean(), image[inside].std().clamp(min=1e-30)
    cross = (x.abs() <= 1) | (y.abs() <= 1)
    image = torch.where(cross, image.clamp(max=float(mean)), image)
    normal = ((image - mean) / deviation).clamp(-_CLIP_SIGMA, _CLIP_SIGMA)
    return torch.where(r < _CENTRE_PX, 0.0, normal)


def _by_radius(image: Tensor, r: Tensor, bins: int) -> np.ndarray:
    ring = r.round().long().flatten().clamp(max=bins - 1)
    count = torch.bincount(ring, minlength=bins).double()
    total = torch.zeros_like(count).index_add_(0, ring, image.flatten().double())
    return (total / count.clamp(min=1.0)).cpu().numpy()


def _equiphase(
    normal: Tensor,
    sx: Tensor,
    sy: Tensor,
    r: Tensor,
    optics: Ctf,
    along: tuple[Tensor, np.ndarray],
) -> np.ndarray:
    """Average over pixels of equal phase, read out along the azimuth of the profile.

    Phases before and after the turn of the phase are kept apart: they are other resolutions.
    """
    profile_phase, turned = along
    # One half plane, without the centre and the axes: the rest repeats or disturbs.
    keep = (r >= _CENTRE_PX) & (sx < 0) & (sy != 0)
    phi = phase(optics, sx, sy)[keep].double()
    pixels = normal[keep].double()
    s2 = (sx * sx + sy * sy)[keep]
    dz = _defocus_along(optics, sx, sy)[keep]
    limit = extremum(optics, 1.0) * dz
    low = float(torch.minimum(phi.min(), profile_phase.min()))
    high = float(torch.maximum(phi.max(), profile_phase.max()))
    bins = _OVERSAMPLING * len(turned)
    step = max(high - low, 1e-9) / (bins - 2)
    wanted = ((profile_phase - low) / step).cpu().numpy()
    out = np.zeros(len(turned))
    for after in (False, True):
        mine = (s2 > limit) == after
        position = (phi[mine] - low) / step
        index = position.long()
        fraction = position - index
        count = torch.zeros(bins, dtype=torch.float64, device=phi.device)
        total = torch.zeros_like(count)
        for offset, weight in ((0, 1.0 - fraction), (1, fraction)):
            count.index_add_(0, index + offset, weight)
            total.index_add_(0, index + offset, weight * pixels[mine])
        filled = (count > 0).cpu().numpy()
        if not filled.any() or not (turned == after).any():
            continue
        where = np.flatnonzero(filled)
        average = total.cpu().numpy()[filled] / count.cpu().numpy()[filled]
        out[turned == after] = np.interp(wanted[turned == after], where, average)
    return out


def _defocus_along(optics: Ctf, sx: Tensor, sy: Tensor) -> Tensor:
    azimuth = torch.atan2(sy, sx.expand(sy.shape[0], -1))
    half = 0.5 * (optics.defocus_u_A - optics.defocus_v_A)
    mean = 0.5 * (optics.defocus_u_A + optics.defocus_v_A)
    return mean + half * torch.cos(2.0 * (azimuth - math.radians(optics.angle_deg)))


def _intervals(extrema: np.ndarray) -> list[tuple[int, int]]:
    """Half-open ranges of bins between consecutive maxima of |CTF|."""
    edges = [0, *(np.flatnonzero(np.diff(extrema)) + 1), len(extrema)]
    return [(int(a), int(b)) for a, b in pairwise(edges)]


def _rescale(epa: np.ndarray, model: np.ndarray, extrema: np.ndarray) -> np.ndarray:
    """Curve with every interval between maxima brought to 0 .. 1, by rank where rings are wide."""
    out = epa.copy()
    for start, stop in _intervals(extrema):
        part = epa[start:stop]
        if extrema[start] < _RANKED_EXTREMA:
            zero = int(np.argmin(model[start:stop]))
            falling, rising = part[:zero], part[zero:]
            rank, n = _ranks(falling), len(falling)
            out[start : start + zero] = np.sin(0.5 * math.pi * rank / max(n - 1, 1))
            rank, n = _ranks(rising), len(rising)
            out[start + zero : stop] = np.sin(0.5 * math.pi * (rank + 1) / (n + 1))
        else:
            span = part.max() - part.min()
            out[start:stop] = (part - part.min()) / span if span > 0 else 0.0
    return out


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)


def _sliding_correlation(
    curve: np.ndarray, model: np.ndarray, extrema: np.ndarray, first_bin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pearson correlation in a window that grows with the interval and the number of rings."""
    bins = len(curve)
    length = np.zeros(bins)
    for start, stop in _intervals(extrema):
        length[start:stop] = stop - start
    half = np.maximum(bins // 40, ((1.0 + 0.1 * extrema) * (length + 1.0)).astype(int))
    half = np.minimum(half, bins // 2 - 1)
    frc = np.ones(bins)
    for k in range(first_bin, bins):
        start = min(max(k - half[k], 0), bins - 2 * half[k] - 1)
        window = slice(start, start + 2 * half[k] + 1)
        frc[k] = _pearson(curve[window], model[window])
    return frc, 2.0 / np.sqrt(2.0 * half + 1.0)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm > 0 else 0.0


def fit_resolution_bin(frc: np.ndarray) -> int:
    """Bin to where the rings follow the model: where the correlation stays up."""
    above_01 = above_05 = above_066 = 0
    for k in range(int(0.1 * len(frc)), len(frc)):
        if (above_01 > 3 and frc[k] < 0.1) or (above_066 > 3 and frc[k] < 0.5):
            return k
        above_01 += frc[k] > 0.1
        above_05 += frc[k] > 0.5
        above_066 += frc[k] > 0.66
    return len(frc) - 1 if above_05 else 1
