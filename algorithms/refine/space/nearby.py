"""Local searches: orientations around a particle's present one, with Gaussian priors.

Only rotations within three standard deviations are looked at, in both passes, as pairs of a
particle and a rotation. Neighbours of a list that is sorted by direction ask for the same slices.

Source: refinement.md section 2.5.
"""

import numpy as np
import torch
from torch import Tensor

from algorithms.orientation import euler
from algorithms.refine import fine
from algorithms.refine.fine import Batch, FinePass, Pairs
from algorithms.refine.sampling import Turns
from algorithms.refine.space import slicing
from algorithms.refine.space.sampling import Orientations, Sampling3D
from algorithms.refine.space.slots import Slots
from algorithms.refine.space.tables import SpaceTables
from algorithms.refine.work import Work

CUT = 3.0  # standard deviations
_FEW = 32  # particles whose distances from all directions are looked at at the same time


class Nearby:
    """Looks at the orientations around those that particles have: a `Search`."""

    def __init__(self, work: Work):
        sampling, table = work.model.sampling, work.tables.fine
        assert isinstance(sampling, Sampling3D) and isinstance(table, SpaceTables)  # noqa: S101
        grid = work.tables.coarse.grid
        assert isinstance(grid, Orientations)  # noqa: S101
        self._work, self._grid, self._sigma = work, grid, sampling.sigma_deg
        self._children = table.orientations.children
        device = table.inner.device
        self._views = euler.directions(grid.rot_deg, grid.tilt_deg).to(device)
        self._operators = table.operators.to(device)
        pixels = work.tables.coarse.pixels.to(device)
        shifts = grid.shifts_A.to(device) / work.model.pixel_A
        self._table = fine.FineTables(
            table.pixels,
            work.tables.coarse.take,
            grid,
            Turns.of(pixels.jx, pixels.jy, shifts, work.model.box, table.real),
        )
        self._store = Slots(
            table.reference,
            slicing.points_of(pixels, table.space),
            grid.matrices,
            grid.n,
            torch.empty(0, dtype=table.real, device=device),
            work.options.memory_bytes,
        )

    def __call__(self, batch: Batch, indices: np.ndarray) -> tuple[Batch, Pairs, Tensor]:
        """Return the children of the significant poses around the present ones."""
        work, grid = self._work, self._grid
        near = self._around(indices, len(grid.shifts_A), batch.log_prior.dtype)
        scaled = torch.zeros((work.model.n_classes, work.model.box // 2 + 1), dtype=torch.bool)
        correlates = work.by_correlation
        first = FinePass(
            batch,
            self._table,
            scaled.to(work.device),
            work.options.memory_bytes,
            self._store,
            correlation=correlates,
        )
        parts, counts = [], []
        for begin, end, some in first.groups(near):
            logs = first.log_weights(some)
            local = some.take(slice(None))
            local = Pairs(local.particle - begin, local.klass, local.psi, local.parents)
            if correlates:
                weights, _ = fine.only_best(logs, local, end - begin)
                pair, shift = torch.nonzero(weights, as_tuple=True)
                count = torch.ones(end - begin, dtype=torch.int64, device=pair.device)
            else:
                pair, shift, count = fine.heavy(
                    logs, local, end - begin, work.options.adaptive_fraction, work.options.cap
                )
            parts.append(self._children_of(some, pair, shift))
            counts.append(count)
        return batch, Pairs.joined(parts), torch.cat(counts)

    def _around(self, indices: np.ndarray, shifts: int, dtype: torch.dtype) -> Pairs:
        """Return all coarse rotations around the particles' orientations, with their priors."""
        particles, grid, k = self._work.data.particles, self._grid, self._work.model.n_classes
        columns = (particles.rot_deg, particles.tilt_deg, particles.psi_deg)
        angles = torch.as_tensor(np.stack([one[indices] for one in columns], axis=1))
        mates = euler.matrices(angles.to(self._views.device))[:, None] @ self._operators
        psi = euler.angles(mates)[..., 2]
        grid_psi = grid.psi_deg.to(self._views.device)
        found = []
        for start in range(0, len(indices), _FEW):
            part = slice(start, start + _FEW)
            cosine = torch.einsum("bsi,di->bsd", mates[part, :, 2], self._views)
            nearest, mate = cosine.amax(1), cosine.argmax(1)
            away = torch.rad2deg(torch.acos(nearest.clamp(-1.0, 1.0)))
            is_near = away <= CUT * self._sigma
            is_near[torch.arange(len(away)), away.argmin(1)] = True
            particle, view = torch.nonzero(is_near, as_tuple=True)
            own = psi[part][particle, mate[particle, view]]
            turned = (grid_psi - own[:, None] + 180.0).remainder(360.0).sub(180.0).abs()
            is_turned = turned <= CUT * self._sigma
            is_turned[torch.arange(len(turned)), turned.argmin(1)] = True
            entry, turn = torch.nonzero(is_turned, as_tuple=True)
            square = away[particle, view][entry] ** 2 + turned[entry, turn] ** 2
            prior = -0.5 * square / self._sigma**2
            found.append((start + particle[entry], turn * grid.directions + view[entry], prior))
        particle, rotation, prior = (torch.cat(column) for column in zip(*found, strict=True))
        n = len(particle)
        return Pairs(
            particle.repeat_interleave(k),
            torch.arange(k, device=particle.device).repeat(n),
            rotation.repeat_interleave(k),
            torch.ones((n * k, shifts), dtype=torch.bool, device=particle.device),
            prior.repeat_interleave(k).to(dtype),
        )

    def _children_of(self, pairs: Pairs, pair: Tensor, shift: Tensor) -> Pairs:
        """Return the fine pairs of significant coarse ones."""
        chosen, which = torch.unique(pair, return_inverse=True)
        parents = torch.zeros(
            (len(chosen), pairs.parents.shape[1]), dtype=torch.bool, device=pair.device
        )
        parents[which, shift] = True
        some, c = pairs.take(chosen), self._children
        assert some.prior is not None  # noqa: S101
        child = torch.arange(c, device=pair.device)
        return Pairs(
            some.particle.repeat_interleave(c),
            some.klass.repeat_interleave(c),
            (some.psi[:, None] * c + child).flatten(),
            parents.repeat_interleave(c, 0),
            some.prior.repeat_interleave(c),
        )
