"""Models of many defoci by radius, compared with many spectra in one product of matrices.

Source: preprocessing.md section 3.5 (native algorithm, steps 1 and 2).
"""

import math

import torch
from torch import Tensor

from algorithms.ctffit.polar import PolarGrid
from algorithms.ctffit.thon import Thon


class Bank:
    """The rings of all defoci by radius.

    Parameters
    ----------
    grid
        Bins of the spectra.
    thon
        The microscope.
    defocus
        `[defoci]` in A.
    """

    def __init__(self, grid: PolarGrid, thon: Thon, defocus: Tensor):
        weight = grid.root.square()
        count = weight.sum(0).clamp(min=1.0)
        self._grid, self._thon = grid, thon
        self.s2, s4 = (grid.s2 * weight).sum(0) / count, (grid.s4 * weight).sum(0) / count
        twice = 2.0 * (thon.a * defocus[:, None] * self.s2 - thon.b * s4 + thon.c)
        self._cos, self._sin = torch.cos(twice), torch.sin(twice)

    def turned(self, data: Tensor, pairs: Tensor) -> Tensor:
        """Sums over the sectors with the phase of astigmatism taken in.

        Parameters
        ----------
        data
            `[n or 1, sectors, rings]`.
        pairs
            Astigmatism (p, q) in A, `[n or 1, 2]`.

        Returns cosine and sine part `[n, 2, rings]`.
        """
        grid = self._grid
        weighted = data * grid.root
        twice = pairs[:, 0, None, None] * grid.s2_cos + pairs[:, 1, None, None] * grid.s2_sin
        twice *= 2.0 * self._thon.a
        parts = [(torch.cos(twice) * weighted).sum(1), (torch.sin(twice) * weighted).sum(1)]
        return torch.stack(parts, dim=1)

    def scores(self, turned: Tensor, fade: Tensor, shifts: Tensor) -> Tensor:
        """Products with the models over their lengths, `[shifts, n, defoci]`.

        Parameters
        ----------
        turned
            Of `turned`, `[n, 2, rings]`.
        fade
            Envelope of the rings, `[rings]`.
        shifts
            Phase shifts in radians, `[shifts]`.
        """
        real, imaginary = (turned * fade).unbind(1)
        # cos(A + B) and sin(A + B), A by radius and B by astigmatism, summed over the bins.
        cosine = real @ self._cos.T - imaginary @ self._sin.T
        sine = real @ self._sin.T + imaginary @ self._cos.T
        cc, ss, cs = self._lengths(fade)
        out = []
        for shift in (2.0 * shifts).tolist():
            c, s = math.cos(shift), math.sin(shift)
            length = (c * c * cc + s * s * ss - 2.0 * c * s * cs).clamp(min=1e-20).sqrt()
            out.append((s * sine - c * cosine) / length)
        return torch.stack(out)

    def _lengths(self, fade: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Squares and product `[defoci]` of cosine and sine, background projected out."""
        weight, basis = fade * self._grid.ring_root, self._grid.ring_basis
        cosine, sine = self._cos * weight, self._sin * weight
        c, s = cosine @ basis, sine @ basis
        return (
            cosine.square().sum(1) - c.square().sum(1),
            sine.square().sum(1) - s.square().sum(1),
            (cosine * sine).sum(1) - (c * s).sum(1),
        )
