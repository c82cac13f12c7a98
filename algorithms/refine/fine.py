"""The second pass: fine rotations and shifts of the significant poses, and what they add up to.

A pair is a particle and a fine rotation of one class. All fine shifts of a pair are one row of a
matrix product with a table of phases; so are the weighted sums over shifts, with its transpose.

Source: refinement.md sections 1.7, 2.3, 3.1, 4.2 and 9.3.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from algorithms.refine import kernels
from algorithms.refine.coarse import CACHE_BYTES, NEGLIGIBLE, Significant, heaviest
from algorithms.refine.geometry import Disc
from algorithms.refine.lookups import FineTables, Store
from algorithms.refine.sums import Sums

# Bytes of all arrays of weights that are there at the same time, for each fine shift of a pair.
ARRAYS = 40


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
    """Particles and fine rotations; `[n]` each, `parents` are the significant coarse shifts.

    `prior` is the logarithm of the prior of the rotation, None where all are alike.
    """

    particle: Tensor
    klass: Tensor
    psi: Tensor
    parents: Tensor  # bool [n, t coarse]
    prior: Tensor | None = None

    def take(self, which: slice | Tensor) -> "Pairs":
        """Return some of them."""
        prior = None if self.prior is None else self.prior[which]
        first = (self.particle[which], self.klass[which], self.psi[which], self.parents[which])
        return Pairs(*first, prior)

    @classmethod
    def joined(cls, parts: "list[Pairs]") -> "Pairs":
        """Return pairs of particles that follow each other; all of them have priors, or none."""
        priors = [part.prior for part in parts if part.prior is not None]
        return cls(
            torch.cat([part.particle for part in parts]),
            torch.cat([part.klass for part in parts]),
            torch.cat([part.psi for part in parts]),
            torch.cat([part.parents for part in parts]),
            torch.cat(priors) if priors else None,
        )

    def groups(self, n: int, most: int) -> Iterator[tuple[int, int, "Pairs"]]:
        """Yield first particle, end and pairs of runs of some of the `n` particles.

        Each run has at most `most` pairs, or one particle.
        """
        ends = torch.cumsum(torch.bincount(self.particle, minlength=n), 0).tolist()
        first, begin = 0, 0
        while first < n:
            end = max(first + 1, bisect_right(ends, begin + most))
            yield first, end, self.take(slice(begin, ends[end - 1]))
            first, begin = end, ends[end - 1]


@dataclass(frozen=True)
class Outcome:
    """What the second pass says of each particle, `[B]`."""

    klass: Tensor
    psi: Tensor
    shift: Tensor
    pmax: Tensor
    log_sum: Tensor  # natural logarithm of the sum of all weights

    @classmethod
    def of(cls, parts: "list[Outcome]") -> "Outcome":
        """Return what is said of particles that follow each other."""
        columns = ([getattr(part, field.name) for part in parts] for field in fields(cls))
        return cls(*(torch.cat(column) for column in columns))


def pairs_of(found: Significant, shifts: int, children: int) -> Pairs:
    """Return the fine rotations of significant poses, by particle."""
    classes, rotations = (int(part.amax()) + 1 for part in (found.klass, found.psi))
    key = (found.particle * classes + found.klass) * rotations + found.psi
    unique, which = torch.unique_consecutive(key, return_inverse=True)
    parents = torch.zeros((len(unique), shifts), dtype=torch.bool, device=key.device)
    parents[which, found.shift] = True
    psi, rest = torch.remainder(unique, rotations), unique // rotations
    klass, particle = torch.remainder(rest, classes), rest // classes
    child = torch.arange(children, device=key.device)
    return Pairs(
        particle.repeat_interleave(children),
        klass.repeat_interleave(children),
        (psi[:, None] * children + child).flatten(),
        parents.repeat_interleave(children, 0),
    )


class FinePass:
    """Looks at pairs of one batch.

    Parameters
    ----------
    batch, tables
        The particles, and what is looked up.
    scaled
        Whether a shell counts for the scale, bool `[K, S]`.
    memory_bytes
        Of temporary arrays.
    store
        Slices, and where images are added up.
    correlation
        Whether images and slices are compared by their correlation, without noise and priors.
    limit
        Last shell that is compared; what is added up has all shells. 0: no limit.
    """

    def __init__(
        self,
        batch: Batch,
        tables: FineTables,
        scaled: Tensor,
        memory_bytes: int,
        store: Store,
        *,
        correlation: bool = False,
        limit: int = 0,
    ):
        self._batch, self._tables, self._store = batch, tables, store
        self._correlates = correlation
        inner = tables.inner
        shell = tables.pixels.shell[inner]
        precision = batch.precision[shell]
        likely = torch.where(shell == 0, torch.zeros((), device=shell.device), precision)
        if correlation:
            likely = correlated(tables.pixels.take(inner)).to(precision)
        if limit:
            likely = torch.where(shell > limit, torch.zeros_like(likely), likely)
        transfer = batch.transfer[:, inner]
        # Moved to the centre of all shifts here, from where the shifts go both ways.
        self._masked = batch.masked[:, inner] * tables.turns.centre
        self._y = (transfer * likely) * self._masked
        self._e = transfer**2 * likely
        self._plain = (transfer * precision) * (batch.plain[:, inner] * tables.turns.centre)
        self._weight = transfer**2 * precision
        self._counts = scaled[:, shell].to(transfer.dtype)
        self._both = transfer.new_zeros((len(transfer), 4, len(inner)))
        self._total = transfer.new_zeros(len(transfer))
        most = min(memory_bytes, CACHE_BYTES) if shell.device.type == "cpu" else memory_bytes
        self._chunk = min(store.most, max(1, most // (16 * len(inner))))
        self._most = max(1, 4 * most // (ARRAYS * tables.turns.n))

    def groups(self, pairs: Pairs) -> Iterator[tuple[int, int, Pairs]]:
        """Yield as many pairs at a time as memory allows, as `Pairs.groups` does."""
        return pairs.groups(len(self._total), self._most)

    def log_weights(self, pairs: Pairs) -> Tensor:
        """Return log weights `[n, t fine]`, -inf where the coarse shift is not significant."""
        tables, q = self._tables, len(self._tables.inner)
        few = min(self._chunk, len(pairs.particle))
        real, imaginary = (self._e.new_empty((few, q)) for _ in range(2))
        logs = self._e.new_empty((len(pairs.particle), tables.turns.n))
        power = self._e.new_empty(few)
        for part in self._chunks(len(pairs.particle)):
            particle = pairs.particle[part]
            row, n = self._row(pairs, part), len(particle)
            products = (real[:n], imaginary[:n], power[:n])
            kernels.multiply(self._y, self._e, self._store.slices, particle, row, *products)
            if tables.sparse:
                logs[part] = kernels.score(
                    tables.turns, real[:n], imaginary[:n], pairs.parents[part]
                )
            else:
                logs[part] = tables.turns.sums(real[:n], imaginary[:n])
            if self._correlates:
                logs[part] /= torch.sqrt(power[:n, None])
            else:
                logs[part] -= 0.5 * power[:n, None]
        coarse = pairs.parents.shape[1]
        prior = self._batch.log_prior[pairs.particle, :, pairs.klass]
        if pairs.prior is not None:
            prior = prior + pairs.prior[:, None]
        if self._correlates:
            prior = torch.where(torch.isinf(prior), prior, 0.0)  # closed classes stay closed
        prior = torch.where(pairs.parents, prior, -torch.inf)
        return (logs.reshape(len(logs), coarse, -1) + prior[..., None]).flatten(1)

    def _row(self, pairs: Pairs, part: slice) -> Tensor:
        return self._store.rows(pairs.klass[part], pairs.psi[part])

    def _chunks(self, n: int) -> list[slice]:
        return [slice(start, start + self._chunk) for start in range(0, n, self._chunk)]

    def add(self, pairs: Pairs, weights: Tensor) -> None:
        """Add weighted images to the sums of the store.

        Parameters
        ----------
        pairs, weights
            With the weights of the fine shifts, `[n, t fine]`.
        """
        batch, tables = self._batch, self._tables
        amounts = weights.sum(1)
        weigh = tables.turns.weighted
        if tables.sparse:
            weigh = partial(kernels.weigh, tables.turns)
        self._total.index_add_(0, pairs.particle, amounts)
        for part in self._chunks(len(pairs.particle)):
            particle, klass = pairs.particle[part], pairs.klass[part]
            phases = weigh(weights[part])
            turned = kernels.Turned(*phases, amounts[part], particle)
            row, counts, slices = self._row(pairs, part), self._counts, self._store.slices
            data, weight, to = self._store.sinks(batch.half[particle], row)
            kernels.insert(self._plain, self._weight, turned, to, data, weight)
            kernels.compare(self._masked, slices, counts, turned, klass, row, self._both)

    def residual(self, sums: Sums) -> Tensor:
        """Add what is left of the images, and what tells scales, once all pairs have been added.

        Returns
        -------
        Power of the residual of each particle over all shells, `[B]` float64.
        """
        cross, power, cross_scale, power_scale = self._both.unbind(1)
        self._add_scales(cross_scale, power_scale, sums)
        return self._residual(cross, power, self._total, sums)

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


def correlated(pixels: Disc) -> Tensor:
    """Return how often a pixel counts in RELION's correlation: column x = 0 is there whole.

    But for its last pixel, that of the window's Nyquist frequency.
    """
    is_twice = (pixels.jx == 0) & (pixels.jy != 0) & (pixels.jy != pixels.size // 2)
    return torch.where(is_twice, 2.0, 1.0)


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
    largest, pair, shift, weight, total = _weights(logs, pairs, n)
    particle = pairs.particle[pair]
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
    )
    return weights, outcome


def only_best(scores: Tensor, pairs: Pairs, n: int) -> tuple[Tensor, Outcome]:
    """Return weight 1 for the best pose of each particle, and that; as `normalised`."""
    largest, pair, shift, weight, _ = _weights(scores, pairs, n)
    best = _first_of(pairs.particle[pair], weight, n)
    pair, shift = pair[best], shift[best]
    weights = torch.zeros_like(scores)
    weights[pair, shift] = 1.0
    ones = torch.ones_like(largest, dtype=torch.float64)
    return weights, Outcome(pairs.klass[pair], pairs.psi[pair], shift, ones, largest.double())


def heavy(
    logs: Tensor, pairs: Pairs, n: int, fraction: float, cap: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return pair and shift of the poses that hold a fraction of each particle's weight.

    Parameters
    ----------
    logs, pairs, n, fraction
        As of `normalised`.
    cap
        Poses at most, 0 for no limit.

    Returns
    -------
    tuple
        Pair `[m]`, shift `[m]`, number of poses of each particle `[n]`.
    """
    _, pair, shift, weight, total = _weights(logs, pairs, n)
    kept, count = heaviest(pairs.particle[pair], weight, total, fraction, cap)
    return pair[kept], shift[kept], count


def _weights(logs: Tensor, pairs: Pairs, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the largest logarithms and sums of particles `[n]`, and what is not negligible.

    The latter are pair, shift and weight, the largest of a particle being 1.
    """
    device = logs.device
    largest = torch.full((n,), -torch.inf, dtype=logs.dtype, device=device)
    largest.scatter_reduce_(0, pairs.particle, logs.amax(1), "amax")
    above = logs - largest[pairs.particle, None]
    pair, shift = torch.nonzero(above > -NEGLIGIBLE, as_tuple=True)
    weight = torch.exp(above[pair, shift].double())
    total = torch.zeros(n, dtype=torch.float64, device=device)
    total.index_add_(0, pairs.particle[pair], weight)
    return largest, pair, shift, weight, total


def _first_of(particle: Tensor, weight: Tensor, n: int) -> Tensor:
    """Return where each particle's largest weight, which is 1, is first: `[n]`."""
    best = torch.nonzero(weight == 1.0)[:, 0]
    first = torch.full((n,), len(weight), dtype=torch.int64, device=weight.device)
    return first.scatter_reduce_(0, particle[best], best, "amin")
