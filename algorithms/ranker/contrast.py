"""The contrast transfer function where the ranker needs it, in numpy: the service has no torch.

The convention is that of `algorithms.ctf`, with the sign of RELION's references: positive near the
origin. Source: class-ranker.md sections 1.1 and 2.2, preprocessing.md 3.1.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft

from algorithms.formats.star import Table

LEAST = 0.07  # what averages are divided by at least
_A_PER_MM = 1e7


@dataclass(frozen=True)
class Optics:
    """Defoci (A), angles and phase shifts (radians) of particles `[n]`, and their microscope."""

    u_A: np.ndarray
    v_A: np.ndarray
    angle: np.ndarray
    shift: np.ndarray
    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float

    @classmethod
    def of(cls, blocks: dict[str, Table], rows: slice) -> "Optics":
        """Return those of some particles, the microscope of the first optics group."""
        particles, optics = blocks["particles"], blocks["optics"]

        def column(label: str) -> np.ndarray:
            values = particles.columns.get(label)
            n = len(particles)
            return np.array(values[rows] if values else [0.0] * len(range(n)[rows]), np.float64)

        return cls(
            column("rlnDefocusU"),
            column("rlnDefocusV"),
            np.radians(column("rlnDefocusAngle")),
            np.radians(column("rlnPhaseShift")),
            float(optics.floats("rlnVoltage")[0]),
            float(optics.floats("rlnSphericalAberration")[0]),
            float(optics.floats("rlnAmplitudeContrast")[0]),
        )

    def phase(self, sx: np.ndarray, sy: np.ndarray) -> np.ndarray:
        """Return the phases `[n, P]` in radians at frequencies `[P]` in 1/A."""
        volts = self.voltage_kV * 1e3
        wave_A = 12.2643247 / math.sqrt(volts * (1.0 + 0.978466e-6 * volts))
        s2 = sx**2 + sy**2
        around = np.arctan2(sy, sx) - self.angle[:, None]
        mean, half = (self.u_A + self.v_A) / 2.0, (self.u_A - self.v_A) / 2.0
        defocus = mean[:, None] + half[:, None] * np.cos(2.0 * around)
        aberration = 0.5 * wave_A**2 * self.spherical_aberration_mm * _A_PER_MM * s2
        constant = self.shift[:, None] + math.asin(self.amplitude_contrast)
        return math.pi * wave_A * s2 * (defocus - aberration) + constant


def to_first_peak(images: np.ndarray, pixel_A: float, optics: Optics) -> np.ndarray:
    """Return averages divided by the CTF up to its first peak, without astigmatism.

    Parameters
    ----------
    images
        Averages of a job that ignored the CTF until its first peak, `[K, n, n]`.
    pixel_A
        Their pixel size, A.
    optics
        Of the particles; their mean defocus counts.
    """
    box = images.shape[-1]
    defocus = np.array([(optics.u_A.mean() + optics.v_A.mean()) / 2.0])
    zero = np.zeros(1)
    mean = Optics(
        defocus,
        defocus,
        zero,
        np.array([optics.shift.mean()]),
        optics.voltage_kV,
        optics.spherical_aberration_mm,
        optics.amplitude_contrast,
    )
    ky = fft.fftfreq(box, pixel_A)[:, None]
    s = np.hypot(ky, fft.rfftfreq(box, pixel_A)[None])
    phase = mean.phase(s.ravel(), np.zeros(s.size)).reshape(s.shape)
    factor = np.where(np.abs(phase) <= math.pi / 2.0, np.sin(phase), 1.0)
    spectrum = np.asarray(fft.rfft2(images.astype(np.float64))) / np.maximum(factor, LEAST)
    return np.asarray(fft.irfft2(spectrum, s=(box, box))).astype(np.float32)
