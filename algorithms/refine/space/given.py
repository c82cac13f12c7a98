"""Particles whose poses are known: no search, one pose for each class.

Source: refinement.md section 2.4 (--skip_align).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from algorithms.orientation import euler
from algorithms.refine.fine import Batch, Pairs
from algorithms.refine.lookups import Tables
from algorithms.refine.sampling import Turns
from algorithms.refine.space.tables import SpaceTables
from algorithms.refine.types import Particles
from algorithms.refine.work import Work


@dataclass(frozen=True)
class Poses:
    """The particles' own orientations: rotation number i is that of particle i; no shifts.

    Parameters
    ----------
    angles_deg
        Rot, tilt and psi `[n, 3]`.
    """

    angles_deg: Tensor

    mirrored = False
    children = 1
    directions = 1

    @property
    def n(self) -> int:
        """Number of rotations."""
        return len(self.angles_deg)

    @property
    def shifts_A(self) -> Tensor:
        """No shift."""
        return torch.zeros((1, 2), dtype=torch.float64)

    def direction(self, rotations: Tensor) -> Tensor:
        """Return 0: priors know no directions here."""
        return torch.zeros_like(rotations)

    def angles(self, rotations: Tensor) -> Tensor:
        """Return rot, tilt and psi in degrees."""
        return self.angles_deg.to(rotations.device)[rotations]

    def matrices(self, rotations: Tensor) -> Tensor:
        """Return matrices `[m, 3, 3]`."""
        return euler.matrices(self.angles(rotations))


def poses_of(particles: Particles) -> Poses:
    """Return the orientations that particles have."""
    columns = (particles.rot_deg, particles.tilt_deg, particles.psi_deg)
    return Poses(torch.as_tensor(np.stack(columns, axis=1)))


def at_poses(tables: Tables, particles: Particles) -> Tables:
    """Return the tables of an iteration with the particles' own poses for a grid."""
    table = tables.fine
    assert isinstance(table, SpaceTables)  # noqa: S101
    poses = poses_of(particles)
    inner = table.pixels.take(table.inner)
    none = poses.shifts_A.to(table.inner.device)
    turns = Turns.of(inner.jx, inner.jy, none, inner.box, table.real)
    phases = torch.ones_like(tables.coarse.phases[:1])
    return replace(
        tables,
        coarse=replace(tables.coarse, grid=poses, phases=phases),
        fine=replace(table, grid=poses, turns=turns),
    )


class Given:
    """Takes poses as they are: a `Search`."""

    def __init__(self, work: Work):
        self._work = work

    def __call__(self, batch: Batch, indices: np.ndarray) -> tuple[Batch, Pairs, Tensor]:
        """Move images by the rest of their offsets; return a pair for each particle and class."""
        work, table = self._work, self._work.tables.fine
        device = table.inner.device
        offset = torch.as_tensor(work.data.particles.offset_A[indices], device=device)
        left = (offset - batch.offset_A) / work.model.pixel_A
        pixels = table.pixels
        angle = (-2.0 * math.pi / pixels.box) * (
            left[:, :1] * pixels.jx.double() + left[:, 1:] * pixels.jy.double()
        )
        turn = torch.polar(torch.ones_like(angle), angle).to(batch.masked.dtype)
        batch = replace(
            batch, masked=batch.masked * turn, plain=batch.plain * turn, offset_A=offset
        )
        k, n = work.model.n_classes, len(indices)
        particle = torch.arange(n, device=device).repeat_interleave(k)
        klass = torch.arange(k, device=device).repeat(n)
        rotation = torch.as_tensor(indices, device=device)[particle]
        parents = torch.ones((n * k, 1), dtype=torch.bool, device=device)
        count = torch.ones(n, dtype=torch.int64, device=device)
        return batch, Pairs(particle, klass, rotation, parents), count
