"""Which fine rotations and shifts of a particle are looked at: three ways to search.

Source: refinement.md sections 2.1 to 2.5.
"""

from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from algorithms.refine import coarse, fine
from algorithms.refine.coarse import Room, Significant
from algorithms.refine.fine import Batch, Pairs
from algorithms.refine.space.given import Given
from algorithms.refine.space.nearby import Nearby
from algorithms.refine.space.tables import SpaceTables, log_directions
from algorithms.refine.work import Work


class Search(Protocol):
    """Finds the poses that the second pass looks at."""

    def __call__(self, batch: Batch, indices: np.ndarray) -> tuple[Batch, Pairs, Tensor]:
        """Return the batch as it is compared, its pairs, and how many poses were significant.

        Parameters
        ----------
        batch
            The particles.
        indices
            Their numbers, `[B]`.
        """
        ...


def search_of(work: Work) -> Search:
    """Return the search that a run's options and sampling ask for."""
    if work.options.skip_align:
        return Given(work)
    if getattr(work.model.sampling, "sigma_deg", 0.0) > 0.0:
        return Nearby(work)
    return Everywhere(work)


class Everywhere:
    """Looks at the whole coarse grid, and at the children of what is significant."""

    def __init__(self, work: Work):
        self._work, self._room = work, Room()
        table = work.tables.fine
        self._children = table.grid.n // work.tables.coarse.grid.n
        is_space = isinstance(table, SpaceTables)
        self._prior = log_directions(work.model, work.device) if is_space else None

    def __call__(self, batch: Batch, indices: np.ndarray) -> tuple[Batch, Pairs, Tensor]:
        """Do as `Search` says."""
        work, tables = self._work, self._work.tables
        shell = tables.fine.pixels.shell[tables.coarse.take]
        transfer = batch.transfer[:, tables.coarse.take]
        masked = batch.masked[:, tables.coarse.take]
        if work.by_correlation:
            count = fine.correlated(tables.coarse.pixels).to(transfer)
            found = self._most_alike(transfer * count * masked, transfer**2 * count, batch)
        else:
            y = (transfer * batch.precision[shell]) * masked
            e = transfer**2 * batch.precision[shell]
            priors = batch.log_prior
            found = coarse.search(y, e, priors, tables.coarse, work.options, self._room)
        pairs = fine.pairs_of(found, len(tables.coarse.grid.shifts_A), self._children)
        if self._prior is not None and isinstance(tables.fine, SpaceTables):
            direction = tables.fine.direction(pairs.psi)
            prior = self._prior[pairs.klass, direction].to(batch.log_prior.dtype)
            pairs = replace(pairs, prior=prior)
        return batch, pairs, found.count

    def _most_alike(self, y: Tensor, e: Tensor, batch: Batch) -> Significant:
        """Return the one pose of each particle that correlates best."""
        table, k = replace(self._work.tables.coarse, prior=None), self._work.model.n_classes
        h = table.n_psi
        scale = torch.sqrt(e @ table.power.T).view(len(e), 1, 1, k, h)
        closed = torch.where(torch.isinf(batch.log_prior), batch.log_prior, 0.0)
        best = []
        few = max(1, self._work.options.memory_bytes // (8 * len(table.phases) * table.grid.n * k))
        for start in range(0, len(y), few):
            part = slice(start, start + few)
            logs = coarse.log_weights(y[part], 0.0 * e[part], closed[part], table, k, self._room)
            best.append((logs / scale[part]).flatten(1).argmax(1))
        pose = torch.cat(best)
        rotation, pose = torch.remainder(pose, h), pose // h
        klass, pose = torch.remainder(pose, k), pose // k
        turns = 2 if table.grid.mirrored else 1
        psi, shift = rotation + h * torch.remainder(pose, turns), pose // turns
        return Significant(torch.arange(len(y), device=y.device), klass, psi, shift,
                           torch.ones_like(klass))  # fmt: skip
