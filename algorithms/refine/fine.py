"""The second pass: fine rotations and shifts of the significant poses, and what they add up to.

A pair is a particle and a fine rotation of one class. All fine shifts of a pair are one row of a
matrix product with a table of phases; so are the weighted sums over shifts, with its transpose.

Source: refinement.md sections 1.7, 2.3, 3.1, 4.2 and 9.3.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.refine.coarse import NEGLIGIBLE, Significant, heaviest
from algorithms.refine.sums import Sums
from algorithms.refine.tables import FineTables


@dataclass(frozen=True)
class Batch:
    """Particles of one optics group, ready for both passes.

    Parameters
    ----------
    masked, plain
        Transforms at the pixels of the window `[B, P]`, complex64.
    transfer
        s C `[B, P]`; `bare` without the scale.
    tail_power
        Beyond the window, `[B, S]`.
    log_prior
        `[B, t, K]` at the coarse shifts.
    offset_A
        Of the image as it was moved already, `[B, 2]` float64.
    half, group
        `[B]`.
    optics
        Index of the optics group.
    precision
        1 / sigma^2 on each shell, `[S]` float32.
    """

    masked: Tensor
    plain: Tensor
    transfer: Tensor
    bare: Tensor
    tail_power: Tensor
    log_prior: Tensor
    offset_A: Tensor
    half: Tensor
    group: Tensor
    optics: int
    precision: Tensor


@dataclass(frozen=True)
class Pairs:
    """Particles and fine rotations; `[n]` each, `parents` are the significant coarse shifts."""

    particle: Tensor
    klass: Tensor
    psi: Tensor
    parents: Tensor  # bool [n, t coarse]


@dataclass(frozen=True)
class Outcome:
    """What the second pass says of each particle, `[B]`."""

    klass: Tensor
    psi: Tensor
    shift: Tensor
    pmax: Tensor
    log_sum: Tensor  # natural logarithm of the sum of all weights
    norm: Tensor  # power of the residual over all shells
    significant: Tensor


def pairs_of(found: Significant, shifts: int, children: int) -> Pairs:
    """Return the fine rotations of significant poses, by particle."""
    key = torch.stack([found.particle, found.klass, found.psi], dim=1)
    unique, which = torch.unique_consecutive(key, dim=0, return_inverse=True)
    parents = torch.zeros((len(unique), shifts), dtype=torch.bool, device=key.device)
    parents[which, found.shift] = True
    particle, klass, psi = (unique[:, n].repeat_interleave(children) for n in range(3))
    child = torch.arange(children, device=key.device).repeat(len(unique))
    return Pairs(particle, klass, psi * children + child, parents.repeat_interleave(children, 0))


class FinePass:
    """Looks at pairs of one batch.

    Parameters
    ----------
    batch, tables
        The particles, and what is looked up.
    n_classes
        K.
    memory_bytes
        Of temporary arrays.
    """

    def __init__(self, batch: Batch, tables: FineTables, n_classes: int, memory_bytes: int):
        self._batch, self._tables, self._k = batch, tables, n_classes
        inner = tables.inner
        shell = tables.pixels.shell[inner]
        precision = batch.precision[shell]
        likely = torch.where(shell == 0, torch.zeros((), device=shell.device), precision)
        transfer = batch.transfer[:, inner]
        self._y = (transfer * likely) * batch.masked[:, inner]
        self._e = transfer**2 * likely
        self._plain = (transfer * precision) * batch.plain[:, inner]
        self._weight = transfer**2 * precision
        self._masked = batch.masked[:, inner]
        self._chunk = max(1, memory_bytes // (16 * len(inner)))

    def log_weights(self, pairs: Pairs) -> Tensor:
        """Return log weights `[n, t fine]`, -inf where the coarse shift is not significant."""
        tables = self._tables
        parts = []
        for part in self._chunks(len(pairs.particle)):
            slices = tables.slices[self._row(pairs, part)]
            particle = pairs.particle[part]
            product = torch.view_as_real(self._y[particle].conj() * slices).flatten(1)
            # Re(conj(Y e^{-ia}) V): the table's rows are (cos, -sin), as phases are stored.
            cross = product @ tables.phases.T
            power = ((slices.real**2 + slices.imag**2) * self._e[particle]).sum(1)
            parts.append(cross - 0.5 * power[:, None])
        logs = torch.cat(parts)
        coarse = pairs.parents.shape[1]
        prior = self._batch.log_prior[pairs.particle, :, pairs.klass]
        prior = torch.where(pairs.parents, prior, -torch.inf)
        return (logs.reshape(len(logs), coarse, -1) + prior[..., None]).flatten(1)

    def _row(self, pairs: Pairs, part: slice) -> Tensor:
        return pairs.klass[part] * len(self._tables.grid.psi_deg) + pairs.psi[part]

    def _chunks(self, n: int) -> list[slice]:
        return [slice(start, start + self._chunk) for start in range(0, n, self._chunk)]

    def add(self, pairs: Pairs, weights: Tensor, scaled: Tensor, sums: Sums) -> Tensor:
        """Add weighted images to the sums; return the residual power of each particle.

        Parameters
        ----------
        pairs, weights
            With the weights of the fine shifts, `[n, t fine]` float32.
        scaled
            Whether a shell counts for the scale, bool `[K, S]`.
        sums
            Are added to.
        """
        batch, tables = self._batch, self._tables
        n, q = len(batch.masked), len(tables.inner)
        cross, power, cross_scale, power_scale = (
            batch.transfer.new_zeros((n, q)) for _ in range(4)
        )
        shell = tables.pixels.shell[tables.inner]
        rotations = len(tables.grid.psi_deg)
        data = sums.data.view(-1, q)
        weight = sums.weight.view(-1, q)
        for part in self._chunks(len(pairs.particle)):
            particle, klass, w = pairs.particle[part], pairs.klass[part], weights[part]
            slices = tables.slices[self._row(pairs, part)]
            turned = torch.view_as_complex((w @ tables.phases).reshape(len(w), q, 2))
            sum_w = w.sum(1, keepdim=True)
            row = (batch.half[particle] * self._k + klass) * rotations + pairs.psi[part]
            data.index_add_(0, row, self._plain[particle] * turned)
            weight.index_add_(0, row, self._weight[particle] * sum_w)
            overlap = (slices.conj() * (self._masked[particle] * turned)).real
            square = (slices.real**2 + slices.imag**2) * sum_w
            cross.index_add_(0, particle, overlap)
            power.index_add_(0, particle, square)
            counts = scaled[klass][:, shell].to(w.dtype)
            cross_scale.index_add_(0, particle, overlap * counts)
            power_scale.index_add_(0, particle, square * counts)
        self._add_scales(cross_scale, power_scale, sums)
        total = torch.zeros(n, dtype=weights.dtype, device=weights.device)
        total.index_add_(0, pairs.particle, weights.sum(1))
        return self._residual(cross, power, total, sums)

    def _add_scales(self, cross: Tensor, power: Tensor, sums: Sums) -> None:
        bare = self._batch.bare[:, self._tables.inner]
        sums.cross.index_add_(0, self._batch.group, (cross * bare).double().sum(1))
        sums.self.index_add_(0, self._batch.group, (power * bare**2).double().sum(1))

    def _residual(self, cross: Tensor, power: Tensor, total: Tensor, sums: Sums) -> Tensor:
        """Add the power of |X - s C V|^2 to the shells of the optics group."""
        batch, tables = self._batch, self._tables
        transfer = batch.transfer[:, tables.inner]
        residual = (batch.masked.real**2 + batch.masked.imag**2) * total[:, None]
        residual[:, tables.inner] += transfer * (transfer * power - 2.0 * cross)
        shells = sums.noise.shape[1]
        sums.noise[batch.optics] += tables.pixels.sums_to(residual.double().sum(0), shells)
        sums.noise[batch.optics] += batch.tail_power.double().sum(0)
        sums.optics[batch.optics] += total.double().sum()
        return residual.double().sum(1) + batch.tail_power.double().sum(1)


def normalised(logs: Tensor, pairs: Pairs, n: int, fraction: float) -> tuple[Tensor, Outcome]:
    """Return weights that sum to (nearly) 1 for each particle, and the best pose of each.

    Weights below the threshold are left out, but what is kept is divided by the sum of all.

    Parameters
    ----------
    logs
        `[m, t]` of pairs.
    pairs
        Sorted by particle.
    n
        Number of particles.
    fraction
        Share of the weight that is kept.
    """
    device = logs.device
    largest = torch.full((n,), -torch.inf, dtype=logs.dtype, device=device)
    largest.scatter_reduce_(0, pairs.particle, logs.amax(1), "amax")
    above = logs - largest[pairs.particle, None]
    pair, shift = torch.nonzero(above > -NEGLIGIBLE, as_tuple=True)
    weight = torch.exp(above[pair, shift].double())
    particle = pairs.particle[pair]
    total = torch.zeros(n, dtype=torch.float64, device=device).index_add_(0, particle, weight)
    kept, _ = heaviest(particle, weight, total, fraction, 0)
    weights = torch.zeros_like(logs)
    weights[pair[kept], shift[kept]] = (weight / total[particle])[kept].to(logs.dtype)
    best = _first_of(particle, weight, n)
    outcome = Outcome(
        klass=pairs.klass[pair[best]],
        psi=pairs.psi[pair[best]],
        shift=shift[best],
        pmax=1.0 / total,
        log_sum=torch.log(total) + largest.double(),
        norm=torch.zeros_like(total),
        significant=torch.zeros(n, dtype=torch.int64, device=device),
    )
    return weights, outcome


def _first_of(particle: Tensor, weight: Tensor, n: int) -> Tensor:
    """Return where each particle's largest weight is, `[n]`."""
    order = torch.argsort(particle - 0.5 * weight, stable=True)
    counts = torch.bincount(particle, minlength=n)
    return order[torch.cumsum(counts, 0) - counts]
