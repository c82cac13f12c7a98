"""Thon rings as a matched filter, and the correlation of a spectrum with them.

For noise much stronger than signal the expected amplitude follows CTF^2 = (1 - cos 2 phi) / 2, for
a slab of some thickness (1 - M cos 2 phi) / 2: the matched filter is -M cos 2 phi under an
envelope.

Source: preprocessing.md sections 3.1, 3.4, 3.8.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.ctf import CS_A_PER_MM, wavelength_A
from algorithms.ctffit.polar import PolarGrid, PolarSpectrum, project_out
from algorithms.ctffit.types import CtfFitOptions

# Places in the vector of parameters: mean defocus, astigmatism twice (A), phase shift (radians),
# thickness (A), gradient of the defocus along x and y (A per A).
DM, P, Q, SHIFT, THICKNESS, GX, GY = range(7)


@dataclass(frozen=True)
class Thon:
    """phase = defocus term * a - s^4 * b + c (+ phase shift)."""

    a: float
    b: float
    c: float

    @classmethod
    def of(cls, options: CtfFitOptions) -> "Thon":
        """Return the constants of a microscope."""
        wavelength = wavelength_A(options.voltage_kV)
        spherical = options.spherical_aberration_mm * CS_A_PER_MM
        return cls(
            math.pi * wavelength,
            0.5 * math.pi * wavelength**3 * spherical,
            math.asin(options.amplitude_contrast),
        )

    def turned(self) -> "Thon":
        """Return the constants that act as if the defocus were overfocus."""
        return Thon(self.a, -self.b, -self.c)

    def phase(self, grid: PolarGrid, x: Tensor) -> Tensor:
        """Phase in radians `[sectors, rings]` for parameters `[7]`."""
        dm, p, q, shift, _, gx, gy = x.tolist()
        defocus = dm + gx * grid.x_A + gy * grid.y_A if gx or gy else dm
        term = torch.add((self.a * defocus) * grid.s2, grid.s2_cos, alpha=self.a * p)
        term.add_(grid.s2_sin, alpha=self.a * q).add_(grid.s4, alpha=-self.b)
        return term.add_(self.c + shift)


@dataclass(frozen=True)
class Fade:
    """How rings lose their height with frequency: exp(-B s^2 / 4 - k s - c s^3), A^2, A, A^3."""

    b_A2: float
    k_A: float = 0.0
    c_A3: float = 0.0

    def at(self, s2: Tensor) -> Tensor:
        """Envelope at squared frequencies in 1/A^2."""
        s = s2.sqrt()
        exponent = -0.25 * self.b_A2 * s2 - self.k_A * s
        return torch.exp(exponent - self.c_A3 * s * s2 if self.c_A3 else exponent)


def modulation(s2: Tensor, thickness_A: float, thon: Thon) -> tuple[Tensor | float, Tensor | float]:
    """Contrast M of the rings of a slab, and its derivative by the thickness.

    M = sin(xi) / xi with xi = pi lambda s^2 t; 1 for thickness 0.
    """
    if thickness_A <= 0.0:
        return 1.0, 0.0
    xi = thon.a * thickness_A * s2
    contrast = torch.sin(xi) / xi.clamp(min=1e-6)
    return contrast, (torch.cos(xi) - contrast) / thickness_A


def _total(values: Tensor) -> float:
    """Sum of `[sectors, rings]`, row by row: the same for any number of threads."""
    return float(values.sum(1).sum())


@dataclass(frozen=True)
class Match:
    """Correlation with a model, its gradient `[k]` and Gauss-Newton Hessian `[k, k]`."""

    value: float
    gradient: Tensor
    hessian: Tensor


class Matcher:
    """Correlation of one spectrum with models under one envelope.

    Parameters
    ----------
    polar
        The spectrum.
    thon
        The microscope.
    fade
        The envelope.
    """

    def __init__(self, polar: PolarSpectrum, thon: Thon, fade: Fade):
        self._polar, self._thon = polar, thon
        self._weight = polar.grid.root * fade.at(polar.grid.s2)
        self._norm = math.sqrt(_total(polar.data.square()))
        self.n_bins = polar.grid.n_bins

    def model(self, x: Tensor) -> Tensor:
        """Rings `[sectors, rings]` of parameters `[7]`, background projected out."""
        grid = self._polar.grid
        contrast, _ = modulation(grid.s2, float(x[THICKNESS]), self._thon)
        rings = torch.cos(2.0 * self._thon.phase(grid, x)).mul_(self._weight).mul_(contrast)
        return project_out(rings.neg_(), grid.basis)

    def value(self, x: Tensor) -> float:
        """Correlation at parameters `[7]`."""
        model = self.model(x)
        product = _total(self._polar.data * model)
        return product / max(self._norm * math.sqrt(_total(model.square())), 1e-30)

    def match(self, x: Tensor, free: list[int]) -> Match:
        """Correlation at parameters `[7]`, with derivatives by those that are `free`."""
        grid = self._polar.grid
        contrast, by_thickness = modulation(grid.s2, float(x[THICKNESS]), self._thon)
        twice = 2.0 * self._thon.phase(grid, x)
        cosine = torch.cos(twice).mul_(self._weight)
        slope = torch.sin(twice).mul_(self._weight).mul_(2.0 * contrast)
        model = project_out(-contrast * cosine, grid.basis)
        squares = max(_total(model.square()), 1e-30)
        norm = max(self._norm * math.sqrt(squares), 1e-30)
        value = _total(self._polar.data * model) / norm
        # d value = <data / norm - value / |model|^2 model, d model>: the data and the projected
        # model need no second projection.
        direction = (self._polar.data / norm).sub_(model, alpha=value / squares)
        fields = {
            DM: lambda: slope * (self._thon.a * grid.s2),
            P: lambda: slope * (self._thon.a * grid.s2_cos),
            Q: lambda: slope * (self._thon.a * grid.s2_sin),
            SHIFT: lambda: slope,
            THICKNESS: lambda: -cosine * by_thickness,
            GX: lambda: slope * (self._thon.a * grid.x_A * grid.s2),
            GY: lambda: slope * (self._thon.a * grid.y_A * grid.s2),
        }
        jacobian = torch.stack([fields[which]().flatten() for which in free]).double()
        gradient = jacobian @ direction.flatten().double()
        # Parts along the model change its length only; what is left turns it.
        along = jacobian @ model.flatten().double() / math.sqrt(squares)
        curvature = jacobian @ jacobian.T - along[:, None] * along[None, :]
        return Match(value, gradient, curvature * (max(value, 1e-3) / squares))
