"""From a particle's pixels to the transforms that enter likelihood and reconstruction.

Source: refinement.md sections 1.5 and 1.6.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.ctf import CS_A_PER_MM, wavelength_A
from algorithms.refine.geometry import Disc, disc, distances, to_fourier
from algorithms.refine.types import RefineError

EDGE_PX = 5.0  # width of the soft edge of masks
# A transfer function is never divided by, but a zero of it would make a pixel blind for ever.
LEAST_CTF = 1e-8
# Share of an image's power that one pixel cannot have, unless it is a fault of the detector.
LEAST_HOT = 0.25


@dataclass(frozen=True, kw_only=True)
class CtfColumns:
    """The CTF of some particles; float64 `[B]`, defoci in A, angles and phases in degrees."""

    defocus_u_A: Tensor
    defocus_v_A: Tensor
    angle_deg: Tensor
    phase_shift_deg: Tensor
    bfactor_A2: Tensor
    scale: Tensor
    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float


def ctf_values(
    columns: CtfColumns, pixels: Disc, pixel_A: float, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return CTF values `[B, P]`: positive near the origin, protein is white.

    Parameters
    ----------
    columns
        Of the particles, all of one optics group.
    pixels
        Of the image's transform.
    pixel_A
        Pixel size, A.
    dtype
        Of the values; phases are float64.
    """
    device = columns.defocus_u_A.device
    edge = pixels.box * pixel_A
    x = pixels.jx.to(device).double() / edge
    y = pixels.jy.to(device).double() / edge
    s2 = x * x + y * y
    half = 0.5 * (columns.defocus_u_A - columns.defocus_v_A)
    mean = 0.5 * (columns.defocus_u_A + columns.defocus_v_A)
    twice = 2.0 * torch.deg2rad(columns.angle_deg)
    wavelength = wavelength_A(columns.voltage_kV)
    spherical = columns.spherical_aberration_mm * CS_A_PER_MM
    # Three columns against three rows: one small product instead of a plane of angles.
    defocus = torch.stack([mean, half * torch.cos(twice), half * torch.sin(twice)], dim=1)
    basis = torch.stack([s2, x * x - y * y, 2.0 * x * y])
    phase = (math.pi * wavelength) * (defocus @ basis)
    phase -= (0.5 * math.pi * wavelength**3 * spherical) * (s2 * s2)
    constant = math.asin(columns.amplitude_contrast)
    phase += (torch.deg2rad(columns.phase_shift_deg) + constant)[:, None]
    values = torch.sin(_wrapped(phase).to(dtype))
    if bool((columns.bfactor_A2 != 0.0).any()) or bool((columns.scale != 1.0).any()):
        envelope = torch.exp(-0.25 * columns.bfactor_A2[:, None] * s2) * columns.scale[:, None]
        values *= envelope.to(dtype)
    tiny = values.abs() < LEAST_CTF
    return torch.where(tiny, torch.copysign(torch.full_like(values, LEAST_CTF), values), values)


def _wrapped(phase: Tensor) -> Tensor:
    """Return an angle within one turn, so that float32 keeps its precision."""
    return phase - 2.0 * math.pi * torch.round(phase / (2.0 * math.pi))


def soft_mask(box: int, radius_px: float, edge_px: float = EDGE_PX, dim: int = 2) -> Tensor:
    """Return 0 within a radius, a raised cosine beyond it, then 1: what is outside, `[N, N]`."""
    r = distances(box, dim=dim)
    ramp = 0.5 + 0.5 * torch.cos(math.pi * (radius_px + edge_px - r) / edge_px)
    return torch.where(r < radius_px, 0.0, torch.where(r > radius_px + edge_px, 1.0, ramp))


def moved(images: Tensor, x_px: Tensor, y_px: Tensor) -> Tensor:
    """Return images `[B, N, N]` moved by whole px `[B]`; what comes in from outside is 0."""
    box = images.shape[-1]
    axis = torch.arange(box, device=images.device)
    rows, columns = axis - y_px[:, None].long(), axis - x_px[:, None].long()
    there = ((rows >= 0) & (rows < box))[:, :, None] & ((columns >= 0) & (columns < box))[:, None]
    which = torch.arange(len(images), device=images.device)[:, None, None]
    taken = images[which, rows.clamp(0, box - 1)[:, :, None], columns.clamp(0, box - 1)[:, None, :]]
    return torch.where(there, taken, torch.zeros((), dtype=images.dtype, device=images.device))


def check_images(images: Tensor, indices: np.ndarray) -> None:
    """Refuse images `[B, N, N]` that would spoil the classes of the others.

    Parameters
    ----------
    images
        As they were read.
    indices
        Of the particles, from 0.

    Raises
    ------
    RefineError
        Names the particle: a value is no number, all are the same, or one of them outweighs the
        others.
    """
    flat = images.flatten(1)
    spread, mean = torch.var_mean(flat, dim=1, correction=0)
    farthest = torch.maximum(flat.amax(1) - mean, mean - flat.amin(1))
    faults = (
        (~torch.isfinite(spread), "holds values that are not finite"),
        (spread == 0.0, "is constant"),
        (farthest**2 > LEAST_HOT * flat.shape[1] * spread, "has a pixel that outweighs the others"),
    )
    for is_bad, what in faults:
        if bool(is_bad.any()):
            number = int(indices[int(is_bad.nonzero()[0, 0])]) + 1
            raise RefineError(
                f"the image of particle {number} {what}: remove it, or extract it again"
            )


@dataclass(frozen=True)
class Prepared:
    """Transforms of some particles.

    Parameters
    ----------
    masked, plain
        `[B, P]` complex64 at the pixels of the fine disc.
    tail_power
        Sum of |F|^2 of the masked image over each shell beyond the disc, float32 `[B, N/2+1]`.
    """

    masked: Tensor
    plain: Tensor
    tail_power: Tensor


class Preparer:
    """Prepares images of one box.

    Parameters
    ----------
    box
        N, px.
    diameter_px
        Of the mask.
    pixels
        Of the fine pass.
    noise
        Standard deviation of real and imaginary part on each shell, `[N/2+1]`: what is outside of
        the mask becomes such noise. None: the background's mean.
    """

    def __init__(
        self,
        box: int,
        diameter_px: float,
        pixels: Disc,
        noise: Tensor | None = None,
        device: torch.device | str = "cpu",
    ):
        self._outside = soft_mask(box, diameter_px / 2.0).float().to(device)
        self._pixels, self._noise = pixels.to(device), noise
        whole = disc(box, box)
        self._whole = whole.to(device)
        self._tail = whole.take(whole.shell > pixels.size // 2).to(device)

    def prepare(
        self, images: Tensor, factors: Tensor, x_px: Tensor, y_px: Tensor, seeds: list[int]
    ) -> Prepared:
        """Return the transforms of images.

        Parameters
        ----------
        images
            `[B, N, N]` float32.
        factors
            What each is multiplied with, `[B]`.
        x_px, y_px
            What each is moved by, whole px `[B]`.
        seeds
            Of the noise outside of the mask.
        """
        centred = moved(images * factors[:, None, None].to(images.dtype), x_px, y_px)
        plain = to_fourier(centred)[:, self._pixels.flat]
        masked = to_fourier(self.masked(centred, seeds))
        power = masked[:, self._tail.flat]
        tail = self._tail.sums_to(power.real**2 + power.imag**2, self._whole.shells)
        return Prepared(masked[:, self._pixels.flat], plain, tail)

    def masked(self, images: Tensor, seeds: list[int]) -> Tensor:
        """Return images with the outside of the particle replaced."""
        outside = self._outside
        if self._noise is None:
            mean = (images * outside).sum((-2, -1)) / outside.sum().clamp(min=1e-12)
            return images + outside * (mean[:, None, None] - images)
        return images + outside * (self._drawn(images, seeds) - images)

    def _drawn(self, images: Tensor, seeds: list[int]) -> Tensor:
        from algorithms.refine.geometry import from_fourier

        assert self._noise is not None  # noqa: S101
        box = images.shape[-1]
        spectra = images.new_zeros((len(images), box * (box // 2 + 1)), dtype=torch.complex64)
        deviation = self._noise.float().to(images.device)[self._whole.shell]
        for row, seed in enumerate(seeds):
            random = torch.Generator().manual_seed(seed)
            drawn = torch.randn((2, self._whole.n), generator=random).to(images.device)
            spectra[row, self._whole.flat] = torch.complex(drawn[0], drawn[1]) * deviation
        return from_fourier(spectra, box)
