"""Micrographs whose CTF is known: white specimens, thin, tilted or thick, and white noise.

Source: preprocessing.md section 9.4.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from algorithms import fourier
from algorithms.ctf import Ctf, value
from algorithms.ctffit import CtfFitOptions

MICROSCOPE = CtfFitOptions(voltage_kV=300.0, spherical_aberration_mm=2.7, amplitude_contrast=0.1)


def optics(
    u_A: float,
    v_A: float,
    angle_deg: float,
    phase_shift_deg: float = 0.0,
    microscope: CtfFitOptions = MICROSCOPE,
) -> Ctf:
    """Return the CTF of a microscope."""
    return Ctf(
        defocus_u_A=u_A,
        defocus_v_A=v_A,
        angle_deg=angle_deg,
        voltage_kV=microscope.voltage_kV,
        spherical_aberration_mm=microscope.spherical_aberration_mm,
        amplitude_contrast=microscope.amplitude_contrast,
        phase_shift_deg=phase_shift_deg,
    )


class Film:
    """White specimen, fading with frequency, in noise: SNR is the ratio of the variances.

    Parameters
    ----------
    seed, size, pixel
        Of the image, `[size, size]` px of `pixel` A.
    snr, b_A2
        Signal over noise; fading exp(-B s^2 / 4) / (1 + 30 s).
    """

    def __init__(self, seed: int, size: int, pixel: float, snr: float, b_A2: float):
        self.size, self.pixel, self._snr = size, pixel, snr
        self._generator = torch.Generator().manual_seed(seed)
        self.sy, self.sx = fourier.frequencies((size, size), pixel)
        s2 = self.sx * self.sx + self.sy * self.sy
        self._fade = torch.exp(-0.25 * b_A2 * s2) / (1 + 30 * s2.sqrt())

    def specimen(self) -> Tensor:
        """Return the half spectrum of a new specimen."""
        return fourier.rfft2(self._white()) * self._fade

    def seen(self, spectrum: Tensor, ctf: Ctf) -> Tensor:
        """Return the half spectrum of a specimen seen through a CTF."""
        return spectrum * value(ctf, self.sx, self.sy)

    def image(self, spectrum: Tensor) -> Tensor:
        """Return the image of a half spectrum."""
        return fourier.irfft2(spectrum, (self.size, self.size))

    def noisy(self, image: Tensor) -> Tensor:
        """Return an image in noise."""
        return image / image.std() * math.sqrt(self._snr) + self._white()

    def _white(self) -> Tensor:
        return torch.randn(self.size, self.size, generator=self._generator)


def micrograph(
    seed: int, ctf: Ctf, *, snr: float, b_A2: float, pixel: float = 1.0, size: int = 2048
) -> Tensor:
    """Return the image of a thin flat specimen."""
    film = Film(seed, size, pixel, snr, b_A2)
    return film.noisy(film.image(film.seen(film.specimen(), ctf)))


def slab(
    seed: int, ctf: Ctf, thickness_A: float, *, snr: float, b_A2: float, size: int = 1536
) -> Tensor:
    """Return the image of slices of 100 A, each with its own specimen and height; pixel 1 A."""
    film = Film(seed, size, 1.0, snr, b_A2)
    count = max(1, round(thickness_A / 100.0))
    total = torch.zeros_like(film.specimen())
    for k in range(count):
        height = ((k + 0.5) / count - 0.5) * thickness_A
        total += film.seen(film.specimen(), _moved(ctf, height))
    return film.noisy(film.image(total))


def tilted(
    seed: int,
    ctf: Ctf,
    angle_deg: float,
    axis_deg: float,
    *,
    snr: float,
    b_A2: float,
    pixel: float = 1.0,
    size: int = 2048,
) -> Tensor:
    """Return the image of a specimen whose defocus grows to the left of the tilt axis.

    Between images at steps of 100 A of defocus, pixels are interpolated.
    """
    film, step = Film(seed, size, pixel, snr, b_A2), 100.0
    specimen = film.specimen()
    place = (torch.arange(size) - 0.5 * (size - 1)) * pixel
    axis = math.radians(axis_deg)
    left = math.cos(axis) * place[:, None] - math.sin(axis) * place[None, :]
    level = math.tan(math.radians(angle_deg)) * left / step
    image = torch.zeros(size, size)
    for k in range(math.floor(float(level.min())), math.ceil(float(level.max())) + 1):
        weight = (1.0 - (level - k).abs()).clamp(min=0.0)
        image += weight * film.image(film.seen(specimen, _moved(ctf, k * step)))
    return film.noisy(image)


def _moved(ctf: Ctf, height_A: float) -> Ctf:
    return replace(
        ctf, defocus_u_A=ctf.defocus_u_A + height_A, defocus_v_A=ctf.defocus_v_A + height_A
    )
