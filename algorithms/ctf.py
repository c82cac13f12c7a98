"""The contrast transfer function of a weak-phase object.

CTF(s) = -sin phi(s), with

    phi = pi lambda s^2 [dz(alpha) - Cs lambda^2 s^2 / 2] + phase shift + arcsin(w)
    dz(alpha) = [dU + dV + (dU - dV) cos 2(alpha - theta)] / 2

Underfocus is positive, dU >= dV, theta is measured from +x towards +y (y up the array).

Source: preprocessing.md section 3.1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CS_A_PER_MM = 1e7


@dataclass(frozen=True, kw_only=True)
class Ctf:
    """Parameters of one micrograph or particle: defoci in A, angle and phase shift in degrees."""

    defocus_u_A: float
    defocus_v_A: float
    angle_deg: float
    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    phase_shift_deg: float = 0.0


def wavelength_A(voltage_kV: float) -> float:
    """Relativistic electron wavelength in A (300 kV: 0.019687)."""
    volts = voltage_kV * 1e3
    return 12.2643247 / math.sqrt(volts * (1.0 + 0.978466e-6 * volts))


def smooth_parameters(u_A: float, v_A: float, angle_deg: float) -> tuple[float, float, float]:
    """(dU, dV, theta) as (dm, p, q): dz = dm + p cos 2 alpha + q sin 2 alpha, all in A.

    No angle wraps and nothing is degenerate at zero astigmatism: the form to optimise in.
    """
    half = 0.5 * (u_A - v_A)
    twice = 2.0 * math.radians(angle_deg)
    return 0.5 * (u_A + v_A), half * math.cos(twice), half * math.sin(twice)


def from_smooth(dm_A: float, p_A: float, q_A: float) -> tuple[float, float, float]:
    """(dm, p, q) as (dU, dV, theta) with dU >= dV and theta in (-90, 90] degrees."""
    half = math.hypot(p_A, q_A)
    angle = 0.5 * math.degrees(math.atan2(q_A, p_A))
    if angle <= -90.0:
        angle += 180.0
    return dm_A + half, dm_A - half, angle


def phase(ctf: Ctf, sx: Tensor, sy: Tensor) -> Tensor:
    """Phase phi in radians.

    Parameters
    ----------
    ctf
        The parameters.
    sx, sy
        Spatial frequencies in 1/A, of shapes that broadcast; y up the array.
    """
    dm, p, q = smooth_parameters(ctf.defocus_u_A, ctf.defocus_v_A, ctf.angle_deg)
    wavelength = wavelength_A(ctf.voltage_kV)
    spherical = ctf.spherical_aberration_mm * CS_A_PER_MM
    xx, yy = sx * sx, sy * sy
    s2 = xx + yy
    # s^2 cos 2 alpha = sx^2 - sy^2 and s^2 sin 2 alpha = 2 sx sy: no angle is ever computed.
    defocus_term = dm * s2 + p * (xx - yy) + (2.0 * q) * (sx * sy)
    constant = math.radians(ctf.phase_shift_deg) + math.asin(ctf.amplitude_contrast)
    aberration = (0.5 * wavelength**2 * spherical) * (s2 * s2)
    return (math.pi * wavelength) * (defocus_term - aberration) + constant


def value(ctf: Ctf, sx: Tensor, sy: Tensor) -> Tensor:
    """CTF(s) = -sin phi(s) for frequencies in 1/A, between -1 and 1."""
    return -torch.sin(phase(ctf, sx, sy))
