"""In-plane rotations and shifts that are tried: a coarse grid, and a fine one within it.

All grids move together by one random perturbation for each iteration, the same for all
particles. Angles in degrees, shifts in A.

Source: refinement.md section 2.4.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is tried around the centre of a particle.

    Parameters
    ----------
    psi_deg
        `[n]` float64; where `mirrored`, the second half is the first turned by 180 degrees.
    shifts_A
        `[t, 2]` float64 (x, y).
    mirrored
        Whether the order of `psi_deg` allows that.
    """

    psi_deg: Tensor
    shifts_A: Tensor
    mirrored: bool = False

    @property
    def n(self) -> int:
        """Number of rotations."""
        return len(self.psi_deg)

    def angles(self, rotations: Tensor) -> Tensor:
        """Return rot, tilt and psi `[m, 3]` in degrees of some rotations."""
        psi = self.psi_deg.to(rotations.device)[rotations]
        return torch.stack([torch.zeros_like(psi), torch.zeros_like(psi), psi], dim=1)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Steps and ranges of the coarse grid.

    Parameters
    ----------
    psi_step_deg
        Made to divide 360.
    offset_range_A, offset_step_A
        Radius and step of the shifts.
    order
        How often steps are halved in the fine pass.
    perturbation
        Present value, a share of a coarse step.
    factor
        Limit of the perturbation.
    """

    psi_step_deg: float
    offset_range_A: float
    offset_step_A: float
    order: int = 1
    perturbation: float = 0.0
    factor: float = 0.5

    @property
    def n_psi(self) -> int:
        """Number of coarse rotations."""
        return max(1, math.ceil(360.0 / self.psi_step_deg - 1e-9))

    @property
    def angular_step(self) -> float:
        """Step that the resolution of the first pass goes by, degrees."""
        return self.psi_step

    @property
    def psi_step(self) -> float:
        """Step that divides 360 degrees."""
        return 360.0 / self.n_psi

    def coarse(self) -> Grid:
        """Return the grid of the first pass."""
        psi = torch.arange(self.n_psi, dtype=torch.float64) * self.psi_step
        psi = torch.where(psi > 180.0, psi - 360.0, psi) + self.perturbation * self.psi_step
        shifts = self._shifts() + self.perturbation * self.offset_step_A
        return Grid(psi_deg=psi, shifts_A=shifts, mirrored=self.n_psi % 2 == 0)

    def fine(self) -> Grid:
        """Return the grid of the second pass: children of a coarse value follow each other."""
        coarse, parts = self.coarse(), 2**self.order
        inside = (torch.arange(parts, dtype=torch.float64) + 0.5) / parts - 0.5
        psi = coarse.psi_deg[:, None] + inside * self.psi_step
        y, x = torch.meshgrid(inside, inside, indexing="ij")
        steps = torch.stack([x.reshape(-1), y.reshape(-1)], dim=1) * self.offset_step_A
        shifts = coarse.shifts_A[:, None, :] + steps
        return Grid(psi_deg=psi.reshape(-1), shifts_A=shifts.reshape(-1, 2))

    def _shifts(self) -> Tensor:
        reach = math.ceil(self.offset_range_A / self.offset_step_A - 1e-9)
        axis = torch.arange(-reach, reach + 1, dtype=torch.float64) * self.offset_step_A
        x, y = torch.meshgrid(axis, axis, indexing="ij")
        keep = x**2 + y**2 < self.offset_range_A**2 + 0.001
        return torch.stack([x[keep], y[keep]], dim=1)

    def perturbed(self, random: np.random.Generator) -> "Sampling":
        """Return the sampling with the next perturbation."""
        f = self.factor
        if f <= 0.0:
            return replace(self, perturbation=0.0)
        moved = self.perturbation + float(random.uniform(0.5 * f, f))
        return replace(self, perturbation=(moved + f) % (2.0 * f) - f)


def phases(
    jx: Tensor, jy: Tensor, shifts_px: Tensor, box: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return exp(-2 pi i j.t / N) as interleaved (re, im): `[t, 2 P]`.

    Parameters
    ----------
    jx, jy
        Pixels `[P]`.
    shifts_px
        `[t, 2]` (x, y) in px of the whole box.
    box
        N.
    dtype
        Of the result; angles are computed in float64.
    """
    angle = (-2.0 * math.pi / box) * (
        shifts_px[:, :1].double() * jx.double() + shifts_px[:, 1:].double() * jy.double()
    )
    both = torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1)
    return both.reshape(len(shifts_px), -1).to(dtype)


@dataclass(frozen=True)
class Turns:
    """The phases that shifts make, for shifts that lie symmetrically around a centre.

    The shift number n from the front is the mirror of that number n from the back: a sum with the
    one is the sum of an even and an odd part, with the other their difference. So half of the
    shifts are multiplied.

    Parameters
    ----------
    n
        Number of shifts, t.
    centre
        exp(-2 pi i j.c / N) of their centre c, `[P]` complex.
    cosine, sine
        Of 2 pi j.(t - c) / N for the first half of the shifts, the middle included, `[h, P]`.
    """

    n: int
    centre: Tensor
    cosine: Tensor
    sine: Tensor

    @classmethod
    def of(
        cls, jx: Tensor, jy: Tensor, shifts_px: Tensor, box: int, dtype: torch.dtype = torch.float32
    ) -> "Turns":
        """Return the phases of shifts `[t, 2]`; the other arguments are those of `phases`."""
        middle = (shifts_px[:1] + shifts_px[-1:]) / 2.0
        away = shifts_px - middle
        if not torch.allclose(away, -away.flip(0), atol=1e-9):
            raise ValueError("shifts do not lie symmetrically around a centre")
        half = (len(shifts_px) + 1) // 2

        def turned(shifts: Tensor) -> Tensor:
            rows = phases(jx, jy, shifts, box, dtype)
            return torch.view_as_complex(rows.reshape(len(shifts), -1, 2))

        first = turned(away[:half])
        return cls(
            len(shifts_px), turned(middle)[0], first.real.contiguous(), -first.imag.contiguous()
        )

    def sums(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Return the sums of Re(z e^{2 pi i j.(t - c) / N}) over pixels: `[m, t]`.

        Parameters
        ----------
        real, imaginary
            Of z, `[m, P]`.
        """
        even, odd = real @ self.cosine.T, imaginary @ self.sine.T
        return torch.cat([even - odd, (even + odd)[:, : self.n // 2].flip(1)], dim=1)

    def weighted(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return real and imaginary part of the sums of w e^{-2 pi i j.(t - c) / N} over shifts.

        Parameters
        ----------
        weights
            `[m, t]`; the result is `[m, P]` twice.
        """
        half = len(self.cosine)
        front, back = weights[:, :half], weights[:, half:].flip(1)
        pad = torch.nn.functional.pad(back, (0, half - back.shape[1]))
        return (front + pad) @ self.cosine, (pad - front) @ self.sine
