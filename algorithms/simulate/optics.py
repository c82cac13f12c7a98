"""From projected potential to image contrast: weak-phase imaging, envelope, ice.

Raw images have dark protein: contrast = 2 sigma V CTF with CTF = -sin(phase) of `algorithms.ctf`
(simulation.md writes the same with the opposite sign on both the CTF and the sum).

Source: simulation.md section 4; Hall et al. 2011 and McMullan et al. 2015 (structure of ice).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from algorithms import fourier
from algorithms.ctf import Ctf, value, wavelength_A
from algorithms.simulate.specimen import VOLT_A2, WATER_PER_A3, water_form_factor

ELECTRON_REST_KEV = 510.99895
# Fewer elements than torch splits over threads: the CTF stays on the caller's one.
_BLOCK = 32000

Plane = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The periodic field an image is cut from: its shape (ny, nx), pixel and image shape.

    The margin all round keeps particles that are cut by the edge, drift and delocalised
    information from coming back on the opposite side.
    """

    shape: tuple[int, int]
    image_shape: tuple[int, int]
    pixel_size_A: float

    @property
    def origin(self) -> tuple[int, int]:
        """(y, x) of the image's first pixel on the canvas."""
        (cy, cx), (ny, nx) = self.shape, self.image_shape
        return (cy - ny) // 2, (cx - nx) // 2

    def cut(self, canvas: NDArray[np.floating]) -> NDArray[np.floating]:
        """The image part of a canvas."""
        (y, x), (ny, nx) = self.origin, self.image_shape
        return canvas[y : y + ny, x : x + nx]

    def frequencies(self) -> Plane:
        """|q| in 1/A of the half spectrum of the canvas."""
        return fourier.radius(self.shape, self.pixel_size_A).numpy()


def make_canvas(image_shape: tuple[int, int], pixel_size_A: float, margin_A: float) -> Canvas:
    """Canvas with at least `margin_A` on every side of the image and a size that is quick."""
    margin = 2 * math.ceil(margin_A / pixel_size_A)
    ny, nx = (fourier.fast_size(n + margin) for n in image_shape)
    return Canvas(shape=(ny, nx), image_shape=image_shape, pixel_size_A=pixel_size_A)


def interaction_constant(voltage_kV: float) -> float:
    """Phase per projected potential, sigma_e in rad/(V A): 6.53e-4 at 300 kV."""
    relativistic = (ELECTRON_REST_KEV + voltage_kV) / (2 * ELECTRON_REST_KEV + voltage_kV)
    return 2 * math.pi / (wavelength_A(voltage_kV) * voltage_kV * 1e3) * relativistic


def contrast_transfer(ctf: Ctf, b_factor_A2: float, canvas: Canvas) -> Plane:
    """Transform of the contrast per transform of the projected potential, 1/(V A).

    2 sigma CTF(q) exp(-B q^2 / 4) on the half spectrum of the canvas; zero at the origin, so that
    the mean of an image is its dose whatever it shows.
    """
    ky, kx = fourier.frequencies(canvas.shape, canvas.pixel_size_A)
    rows = max(1, _BLOCK // kx.shape[1])
    blocks = [value(ctf, kx, ky[start : start + rows]) for start in range(0, len(ky), rows)]
    q2 = np.square(canvas.frequencies())
    scale = 2.0 * interaction_constant(ctf.voltage_kV) * np.exp(-0.25 * b_factor_A2 * q2)
    transfer = torch.cat(blocks).numpy() * scale
    transfer[0, 0] = 0.0
    return transfer.astype(np.float32)


def ice_structure_factor(q: NDArray[np.floating]) -> NDArray[np.floating]:
    """Static structure factor of vitreous ice: 0.08 at low q, a step at 1/4.5, a peak at 1/3.7."""
    step = 0.92 / (1.0 + np.exp(-(q - 1 / 4.5) / 0.012))
    peak = 0.8 * np.exp(-0.5 * np.square((q - 1 / 3.7) / 0.02))
    return 0.08 + step + peak


class Ice:
    """Projected potential of a layer of water that slowly rearranges, frame by frame.

    Parameters
    ----------
    canvas
        Where it lies.
    thickness_A
        Of the layer.
    dose_per_frame_e_A2, diffusion_A2
        Frames are correlated by rho(q) = exp(-2 pi^2 q^2 D dose).
    rng
        Source of the noise.
    """

    def __init__(
        self,
        canvas: Canvas,
        *,
        thickness_A: float,
        dose_per_frame_e_A2: float,
        diffusion_A2: float,
        rng: np.random.Generator,
    ) -> None:
        q = canvas.frequencies()
        density = math.sqrt(WATER_PER_A3 * thickness_A) / canvas.pixel_size_A
        factor = VOLT_A2 * density * water_form_factor(q) * np.sqrt(ice_structure_factor(q))
        # White noise of unit variance per pixel has transforms of variance ny nx.
        n_pixels = canvas.shape[0] * canvas.shape[1]
        self.amplitude: Plane = (factor * math.sqrt(0.5 * n_pixels)).astype(np.float32)
        # The inverse transform keeps only the symmetric half of these two columns.
        self.amplitude[:, [0, -1]] *= math.sqrt(2.0)
        exponent = -2 * math.pi**2 * np.square(q) * diffusion_A2 * dose_per_frame_e_A2
        self._keep: Plane = np.exp(exponent).astype(np.float32)
        self._renew: Plane = np.sqrt(1 - np.exp(2 * exponent)).astype(np.float32)
        self._rng = rng
        self._state = self._noise()

    def _noise(self) -> NDArray[np.complex64]:
        shape = (self.amplitude.shape[0], self.amplitude.shape[1], 2)
        return self._rng.standard_normal(shape, dtype=np.float32).view(np.complex64)[..., 0]

    def next_frame(self) -> NDArray[np.complex64]:
        """White, time-correlated noise; times `amplitude` it is the transform of V in V A."""
        state = self._state
        self._state = self._keep * state + self._renew * self._noise()
        return state
