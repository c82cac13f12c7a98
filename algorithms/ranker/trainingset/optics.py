"""Optics of simulated particles: CTF, envelope and noise; a second simulator has others.

Source: refinement.md section 1.5; simulation.md section 4; class-ranker.md section 9.4.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from algorithms.ranker.trainingset.settings import Setting
from algorithms.refine.geometry import Disc
from algorithms.refine.images import CtfColumns, ctf_values

PER_MICROGRAPH = 45
CS_MM, AMPLITUDE_CONTRAST = 2.7, 0.1


def half_plane(box: int) -> Disc:
    """Return all pixels of a half spectrum in the order of its memory."""
    jy = torch.fft.fftfreq(box, 1.0 / box).long()[:, None].expand(box, box // 2 + 1)
    jx = torch.arange(box // 2 + 1)[None].expand(box, box // 2 + 1)
    jx, jy = jx.reshape(-1), jy.reshape(-1)
    shell = torch.round(torch.sqrt((jx**2 + jy**2).double())).long()
    return Disc(box, box, jx, jy, shell, torch.arange(len(jx)))


def envelope(setting: Setting, box: int) -> Tensor:
    """Return what dampens the signal; the second simulator's falls off as an exponential."""
    pixels = half_plane(box)
    q2 = (pixels.jx**2 + pixels.jy**2).float() / (box * setting.pixel_A) ** 2
    if setting.is_second:
        return torch.exp(-1.4 * math.sqrt(setting.envelope_A2) * torch.sqrt(q2))
    return torch.exp(-0.25 * setting.envelope_A2 * q2)


def true_ctf(setting: Setting, micrograph: np.ndarray, rng: np.random.Generator) -> CtfColumns:
    """Return the true CTF of each particle."""
    count = int(micrograph.max()) + 1
    mean = rng.uniform(*setting.defocus_A, count)[micrograph]
    mean = mean + rng.normal(0.0, 100.0, len(micrograph))  # particles lie at different heights
    half = 0.5 * setting.astigmatism_A * rng.gamma(4.0, 0.25, count)[micrograph]
    angle = rng.uniform(0.0, 180.0, count)[micrograph]
    phase = np.full(len(mean), setting.phase_deg)
    if setting.phase_deg:
        phase = phase + rng.normal(0.0, 12.0, count)[micrograph]
    one = np.ones(len(mean))
    columns = (mean + half, mean - half, angle, phase, 0.0 * one, one)
    u, v, axis, shift, bfactor, scale = (torch.from_numpy(column) for column in columns)
    return CtfColumns(
        defocus_u_A=u,
        defocus_v_A=v,
        angle_deg=axis,
        phase_shift_deg=shift,
        bfactor_A2=bfactor,
        scale=scale,
        voltage_kV=setting.voltage_kV,
        spherical_aberration_mm=CS_MM,
        amplitude_contrast=AMPLITUDE_CONTRAST,
    )


def told_ctf(setting: Setting, true: CtfColumns, rng: np.random.Generator) -> CtfColumns:
    """Return the CTF as it was estimated: with errors, large ones in a few jobs."""
    n = len(true.scale)
    count = n // PER_MICROGRAPH + 1
    error = rng.normal(0.0, 80.0, count) + setting.wrong_ctf_A * rng.choice((-1.0, 1.0), count)
    error = torch.from_numpy(error[np.arange(n) // PER_MICROGRAPH])
    return replace(
        true,
        defocus_u_A=(true.defocus_u_A + error).clamp(min=1000.0),
        defocus_v_A=(true.defocus_v_A + error).clamp(min=900.0),
    )


def rows_of(ctf: CtfColumns, rows: np.ndarray) -> CtfColumns:
    """Return the CTF of some particles."""
    columns = {name: value[rows] for name, value in vars(ctf).items() if isinstance(value, Tensor)}
    return replace(ctf, **columns)


def noise(setting: Setting, ctf: CtfColumns, rng: np.random.Generator) -> Tensor:
    """Return noise `[b, box, box]`: white, and that of the ice, which the CTF has modulated."""
    box = setting.box_px
    pixels = half_plane(box)
    white = torch.from_numpy(rng.standard_normal((len(ctf.scale), box, box), dtype=np.float32))
    q = torch.sqrt((pixels.jx**2 + pixels.jy**2).float()) / (box * setting.pixel_A)
    steep = 1.0 if setting.is_second else 2.0
    fall = 1.0 / (1.0 + (q * setting.colour_A) ** steep)
    fall = fall / _mean(fall, box)
    ice = fall * (ctf_values(ctf, pixels, setting.pixel_A).square() * 1.6 + 0.2)
    power = (1.0 - setting.colour + setting.colour * ice) / setting.snr
    spectra = torch.fft.rfft2(white).flatten(1) * torch.sqrt(power)
    return torch.fft.irfft2(spectra.reshape(-1, box, box // 2 + 1), s=(box, box))


def _mean(values: Tensor, box: int) -> float:
    """Return the mean of an even spectrum over the whole plane, from its half."""
    shaped = values.reshape(box, box // 2 + 1)
    return float(torch.cat([shaped, shaped[:, 1 : box // 2]], dim=1).mean())
