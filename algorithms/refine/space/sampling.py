"""Orientations that are tried: HEALPix directions times in-plane rotations, and finer ones within.

Grids only say how many rotations there are; angles and matrices are made for those that are asked
for. All grids move together by one random perturbation for each iteration.

Source: refinement.md sections 1.3 and 2.4.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from algorithms.orientation import euler, healpix, symmetry
from algorithms.refine.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class Orientations:
    """Rotations and shifts that are tried; rotation r has direction r % D and psi r // D.

    In a fine grid the rotations r * c .. (r + 1) * c - 1 are the children of the coarse one r.

    Parameters
    ----------
    rot_deg, tilt_deg
        Of the directions, `[D]`; in a fine grid `[D, 4^order]`.
    psi_deg
        `[p]`; in a fine grid `[p, 2^order]`.
    moved
        The perturbation: what every matrix is multiplied with from the right, `[3, 3]`.
    shifts_A
        `[t, 2]` float64 (x, y).
    mirrored
        Whether the second half of the rotations is the first turned by 180 degrees in the plane.
    """

    rot_deg: Tensor
    tilt_deg: Tensor
    psi_deg: Tensor
    moved: Tensor
    shifts_A: Tensor
    mirrored: bool = False

    @property
    def directions(self) -> int:
        """D."""
        return len(self.rot_deg)

    @property
    def children(self) -> int:
        """Rotations of this grid for each one of the coarse grid."""
        return (self.rot_deg.numel() // len(self.rot_deg)) * (
            self.psi_deg.numel() // len(self.psi_deg)
        )

    @property
    def n(self) -> int:
        """Number of rotations."""
        return self.rot_deg.numel() * self.psi_deg.numel()

    def direction(self, rotations: Tensor) -> Tensor:
        """Return the coarse directions of some rotations."""
        return torch.remainder(rotations // self.children, self.directions)

    def matrices(self, rotations: Tensor) -> Tensor:
        """Return matrices of orientation `[m, 3, 3]`, float64."""
        device = rotations.device
        parts = 1 if self.psi_deg.ndim == 1 else self.psi_deg.shape[1]
        child = torch.remainder(rotations, self.children)
        coarse = rotations // self.children
        view = torch.remainder(coarse, self.directions) * (self.children // parts) + child // parts
        turn = (coarse // self.directions) * parts + torch.remainder(child, parts)
        rot, tilt, psi = (
            values.to(device).reshape(-1)[index]
            for values, index in (
                (self.rot_deg, view), (self.tilt_deg, view), (self.psi_deg, turn),
            )
        )  # fmt: skip
        return euler.matrices(torch.stack([rot, tilt, psi], dim=1)) @ self.moved.to(device)

    def angles(self, rotations: Tensor) -> Tensor:
        """Return rot, tilt and psi `[m, 3]` in degrees."""
        return euler.angles(self.matrices(rotations))


@dataclass(frozen=True, kw_only=True)
class Sampling3D(Sampling):
    """Steps and ranges of the coarse grid in three dimensions.

    Parameters
    ----------
    healpix_order
        Of the directions of the coarse grid.
    symmetry
        Point group; directions of one asymmetric unit are tried.
    sigma_deg
        Local searches: standard deviation of the priors of direction and psi around a particle's
        present orientation; 0: all orientations.
    """

    healpix_order: int
    symmetry: str = "C1"
    sigma_deg: float = 0.0

    @property
    def angular_step(self) -> float:
        """Step of the coarse directions, degrees."""
        return healpix.step_deg(self.healpix_order)

    @property
    def n_directions(self) -> int:
        """Directions of the coarse grid."""
        return len(_directions(self.healpix_order, self.symmetry)[0])

    def coarse(self) -> Orientations:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the grid of the first pass."""
        _, rot, tilt = _directions(self.healpix_order, self.symmetry)
        psi = self._psi()
        return Orientations(
            rot_deg=rot,
            tilt_deg=tilt,
            psi_deg=psi,
            moved=self._moved(),
            shifts_A=self._shifts() + self.perturbation * self.offset_step_A,
            mirrored=len(psi) % 2 == 0,
        )

    def fine(self) -> Orientations:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the grid of the second pass: children of a coarse value follow each other."""
        coarse, parts = self.coarse(), 2**self.order
        pixel = _directions(self.healpix_order, self.symmetry)[0]
        rot, tilt = healpix.pixels(self.healpix_order + self.order)
        child = pixel[:, None] * parts**2 + torch.arange(parts**2)
        inside = (torch.arange(parts, dtype=torch.float64) + 0.5) / parts - 0.5
        y, x = torch.meshgrid(inside, inside, indexing="ij")
        steps = torch.stack([x.reshape(-1), y.reshape(-1)], dim=1) * self.offset_step_A
        return Orientations(
            rot_deg=rot[child],
            tilt_deg=tilt[child],
            psi_deg=coarse.psi_deg[:, None] + inside * self.psi_step,
            moved=coarse.moved,
            shifts_A=(coarse.shifts_A[:, None, :] + steps).reshape(-1, 2),
        )

    def _psi(self) -> Tensor:
        psi = torch.arange(self.n_psi, dtype=torch.float64) * self.psi_step
        return torch.where(psi > 180.0, psi - 360.0, psi)

    def _moved(self) -> Tensor:
        angle = self.perturbation * self.angular_step
        return euler.matrices(torch.full((3,), angle, dtype=torch.float64))


@lru_cache(maxsize=8)
def _directions(order: int, group: str) -> tuple[Tensor, Tensor, Tensor]:
    return symmetry.unit_directions(order, group)
