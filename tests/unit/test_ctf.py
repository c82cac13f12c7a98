"""The CTF model against its formula written out, and its parametrisations."""

import math

import pytest
import torch

from algorithms.ctf import Ctf, from_smooth, phase, smooth_parameters, value, wavelength_A

CTF = Ctf(
    defocus_u_A=16000.0,
    defocus_v_A=14500.0,
    angle_deg=35.0,
    voltage_kV=300.0,
    spherical_aberration_mm=2.7,
    amplitude_contrast=0.1,
    phase_shift_deg=20.0,
)


@pytest.mark.parametrize(("kv", "expected"), [(300, 0.019687), (200, 0.025079), (100, 0.037014)])
def test_wavelength(kv: float, expected: float) -> None:
    assert wavelength_A(kv) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("azimuth_deg", [0.0, 35.0, 80.0, 125.0, -60.0])
@pytest.mark.parametrize("s", [0.01, 0.1, 0.3])
def test_phase_is_the_formula(azimuth_deg: float, s: float) -> None:
    wave, cs = wavelength_A(300.0), 2.7e7
    dz = 0.5 * (30500.0 + 1500.0 * math.cos(2 * math.radians(azimuth_deg - 35.0)))
    expected = math.pi * wave * s**2 * (dz - 0.5 * wave**2 * s**2 * cs)
    expected += math.radians(20.0) + math.asin(0.1)
    azimuth = math.radians(azimuth_deg)
    sx = torch.tensor(s * math.cos(azimuth), dtype=torch.float64)
    sy = torch.tensor(s * math.sin(azimuth), dtype=torch.float64)
    assert float(phase(CTF, sx, sy)) == pytest.approx(expected, rel=1e-9)
    assert float(value(CTF, sx, sy)) == pytest.approx(-math.sin(expected), abs=1e-9)


def test_defocus_u_lies_at_the_angle_from_x_towards_y() -> None:
    along_y = Ctf(**{**vars(CTF), "angle_deg": 90.0, "phase_shift_deg": 0.0})
    s = torch.tensor(0.1, dtype=torch.float64)
    zero = torch.zeros_like(s)
    assert float(phase(along_y, zero, s)) > float(phase(along_y, s, zero))


def test_broadcast_over_a_plane() -> None:
    axis = torch.linspace(-0.2, 0.2, 9)
    plane = value(CTF, axis[None, :], axis[:, None])
    assert plane.shape == (9, 9)
    assert torch.allclose(plane, plane.flip(0, 1), atol=1e-4)
    assert not torch.allclose(plane, plane.flip(0), atol=1e-2)


@pytest.mark.parametrize("angle", [-89.0, -45.0, 0.0, 30.0, 90.0])
def test_smooth_parameters_round_trip(angle: float) -> None:
    u, v, back = from_smooth(*smooth_parameters(16000.0, 14500.0, angle))
    assert (u, v, back) == pytest.approx((16000.0, 14500.0, angle), abs=1e-6)


def test_swapped_axes_turn_the_angle() -> None:
    u, v, angle = from_smooth(*smooth_parameters(14500.0, 16000.0, 35.0))
    assert (u, v, angle) == pytest.approx((16000.0, 14500.0, -55.0))
    assert from_smooth(12000.0, 0.0, 0.0) == (12000.0, 12000.0, 0.0)
