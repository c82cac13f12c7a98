"""The first pass: all classes, rotations and shifts at once, as one matrix product.

d^2 / 2 = const - Re <Y, V> + <E, |V|^2> / 2 with the CTF on the image's side: Y = s C X / sigma^2,
E = (s C)^2 / sigma^2. A slice turned by 180 degrees is the conjugate of the slice, so half of the
rotations are enough: with a = Re Y . Re V and b = Im Y . Im V the two cross terms are a + b, a - b.

Source: refinement.md sections 2.1 to 2.3 and 9.1.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from algorithms.refine.lookups import CoarseTables
from algorithms.refine.types import Options

# Weights this far (natural logarithm) below a particle's largest do not count: a million of them
# are a ten-thousandth of the share that may be left out.
NEGLIGIBLE = 30.0
# Weights are sorted into bins by their logarithm: 2^-47 and less are one bin.
BINS, BINS_A_BIT = 320, 320.0 / 47.0
LEAST_WEIGHT = 2.0**-46.9
# Of the weights of a few particles, so that they stay in a processor's cache.
CACHE_BYTES = 1 << 23
LEAST_BLOCK = 8


@dataclass(frozen=True)
class Significant:
    """Poses that the second pass looks at; sorted by particle, class and rotation.

    Parameters
    ----------
    particle, klass, psi, shift
        Indices `[n]`: particle of the batch, class, coarse rotation, coarse shift.
    count
        Significant poses of each particle, `[B]`.
    """

    particle: Tensor
    klass: Tensor
    psi: Tensor
    shift: Tensor
    count: Tensor


class Room:
    """Arrays of the first pass that are used again for every few particles.

    Fetching fresh memory from the system takes as long as filling it.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, Tensor] = {}

    def of(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an array with whatever is in it."""
        n = math.prod(shape)
        array = self._arrays.get(name)
        if array is None or array.numel() < n:
            array = self._arrays[name] = like.new_empty(n)
        return array[:n].view(shape)


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Let products of real matrices be less precise for a while.

    Parameters
    ----------
    precision
        Of the factors: `highest` float32, `high` TF32 where the device has it, `medium` bfloat16.
        Sums are float32.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def search(
    y: Tensor,
    e: Tensor,
    log_prior: Tensor,
    tables: CoarseTables,
    options: Options,
    room: Room | None = None,
) -> Significant:
    """Return the poses of a batch that the second pass looks at.

    A few particles at a time: their weights then stay in the cache of a processor, and within
    the memory that is allowed.

    Parameters
    ----------
    y, e, log_prior, tables
        As of `log_weights`.
    options
        Number of classes, share of the weight, precision, memory.
    room
        What was used before.
    """
    room = room or Room()
    poses = len(tables.phases) * tables.grid.n * options.n_classes
    most = CACHE_BYTES if y.device.type == "cpu" else options.memory_bytes
    few = max(1, min(most, options.memory_bytes) // (4 * poses))
    if tables.prior is not None:  # slices of many directions are too many to be read for so few
        few = max(few, min(LEAST_BLOCK, options.memory_bytes // (12 * poses)))
    parts = []
    for start in range(0, len(y), few):
        part = slice(start, start + few)
        with products(options.coarse_precision):
            logs = log_weights(y[part], e[part], log_prior[part], tables, options.n_classes, room)
        found = significant(logs, options.adaptive_fraction, options.cap)
        parts.append(replace(found, particle=found.particle + start))
    if len(parts) == 1:
        return parts[0]
    columns = ([getattr(one, field.name) for one in parts] for field in fields(Significant))
    return Significant(*(torch.cat(column) for column in columns))


def log_weights(
    y: Tensor,
    e: Tensor,
    log_prior: Tensor,
    tables: CoarseTables,
    n_classes: int,
    room: Room | None = None,
) -> Tensor:
    """Return unnormalised log weights `[B, t, turns, K, h]`, `turns` being 2 where mirrored.

    Parameters
    ----------
    y
        s C X / sigma^2 at the coarse pixels, complex `[B, P]`.
    e
        (s C)^2 / sigma^2, `[B, P]`.
    log_prior
        `[B, t, K]`.
    tables
        Of the pass.
    n_classes
        K.
    room
        What the result is written into.
    """
    room = room or Room()
    n, (t, p) = len(y), tables.phases.shape
    h, turns = tables.n_psi, 2 if tables.grid.mirrored else 1
    wide = n_classes * h
    shifted = room.of("shifted", (n, t, p), e)
    a, b = room.of("a", (n, t, wide), e), room.of("b", (n, t, wide), e)
    real, imaginary = y.real[:, None].contiguous(), y.imag[:, None].contiguous()
    cos, sin = tables.phases.real.contiguous(), tables.phases.imag.contiguous()
    torch.mul(real, cos, out=shifted).addcmul_(imaginary, sin, value=-1.0)
    torch.mm(shifted.view(-1, p), tables.real.T, out=a.view(-1, wide))
    torch.mul(real, sin, out=shifted).addcmul_(imaginary, cos)
    torch.mm(shifted.view(-1, p), tables.imaginary.T, out=b.view(-1, wide))
    with products("highest"):  # its rounding does not average out over poses
        power = e @ tables.power.T
    if tables.prior is not None:
        power.sub_(tables.prior, alpha=2.0)
    a.sub_(power[:, None], alpha=0.5)
    a.view(n, t, n_classes, h).add_(log_prior[..., None])
    out = room.of("out", (n, t, turns, wide), e)
    torch.add(a, b, out=out[:, :, 0])
    if turns == 2:
        torch.sub(a, b, out=out[:, :, 1])
    return out.view(n, t, turns, n_classes, h)


def significant(logs: Tensor, fraction: float, cap: int) -> Significant:
    """Return the poses that hold a fraction of each particle's weight.

    Parameters
    ----------
    logs
        `[B, t, turns, K, h]`.
    fraction
        Share of the weight.
    cap
        Poses at most, 0 for no limit.
    """
    n, t, turns, n_classes, h = logs.shape
    particle, pose, weight, total = _candidates(logs.reshape(n, t, -1), cap)
    chosen, count = heaviest(particle, weight, total, fraction, cap)
    particle, pose = particle[chosen], pose[chosen]
    rotation = torch.remainder(pose, h)
    pose = pose // h
    klass = torch.remainder(pose, n_classes)
    pose = pose // n_classes
    turn = torch.remainder(pose, turns)
    psi, shift = rotation + h * turn, pose // turns
    key = ((particle * n_classes + klass) * (h * turns) + psi) * t + shift
    order = torch.argsort(key)
    return Significant(particle[order], klass[order], psi[order], shift[order], count)


def _candidates(logs: Tensor, cap: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return particle, pose and weight of what may be significant, and each particle's sum.

    The largest weight of a particle is 1. The best shift of a rotation stands for it: at least
    `cap` poses are as heavy as the rotation that is number `cap`, so no lighter pose is looked at.

    Parameters
    ----------
    logs
        `[B, t, rotations of all classes]`.
    cap
        Poses at most, 0 for no limit.
    """
    best = logs.amax(1)
    largest = best.amax(1, keepdim=True)
    limit = largest - NEGLIGIBLE
    total = torch.zeros(len(logs), dtype=torch.float64, device=logs.device)
    flat = logs.flatten(1)
    if 0 < cap < best.shape[1]:
        rank = torch.topk(best, cap, dim=1, sorted=False).values.amin(1, keepdim=True)
        many = (rank > limit)[:, 0]
        limit = torch.maximum(limit, rank)
        total[many] = torch.exp(flat[many] - largest[many]).sum(1).double()
    else:
        many = torch.zeros(len(logs), dtype=torch.bool, device=logs.device)
    particle, pose = torch.nonzero(flat >= limit, as_tuple=True)
    weight = torch.exp((flat[particle, pose] - largest[particle, 0]).double())
    summed = torch.zeros_like(total).index_add_(0, particle, weight)
    return particle, pose, weight, torch.where(many, total, summed)


def heaviest(
    particle: Tensor, weight: Tensor, total: Tensor, fraction: float, cap: int
) -> tuple[Tensor, Tensor]:
    """Return which weights make up a fraction of each particle's sum, and how many each has.

    The weight that crosses the fraction belongs to them, and so do all that are equal to it.

    Parameters
    ----------
    particle, weight
        `[m]`; particles ascend, weights are at most 1.
    total
        Sum of all weights of each particle, `[B]`.
    fraction, cap
        Share, and the most that are taken (0: no limit).
    """
    n = len(total)
    # Weights fall into bins of about a tenth each. All of the bins before the one that crosses
    # are taken, none of those behind it: only that one is sorted.
    where = (weight.clamp(min=LEAST_WEIGHT).log2() * -BINS_A_BIT).long() + particle * BINS
    members = torch.bincount(where, minlength=n * BINS).view(n, BINS)
    heavy = torch.bincount(where, weight.double(), minlength=n * BINS).view(n, BINS)
    earlier, lighter = members.cumsum(1) - members, heavy.cumsum(1) - heavy
    reached = (members > 0) & (lighter <= fraction * total[:, None])
    if cap > 0:
        reached &= earlier < cap
    number = torch.arange(BINS, device=weight.device)
    crossing = torch.where(reached, number, 0).amax(1)
    among = torch.nonzero(
        where == (crossing + BINS * torch.arange(n, device=where.device))[particle]
    )
    mine, weights = particle[among[:, 0]], weight[among[:, 0]]
    # Weights are at most 1: one sort by this key is one by particle, then by falling weight.
    order = torch.argsort(mine - 0.5 * weights, stable=True)
    mine, weights = mine[order], weights[order]
    sizes = torch.bincount(mine, minlength=n)
    starts = torch.cumsum(sizes, 0) - sizes
    running = torch.cumsum(weights, 0) - weights
    rows = torch.arange(n, device=where.device)
    before = running - running[starts[mine]] + lighter[rows, crossing][mine]
    rank = torch.arange(len(mine), device=where.device) - starts[mine]
    taken = before <= fraction * total[mine]
    if cap > 0:
        taken &= rank + earlier[rows, crossing][mine] < cap
    count = torch.zeros(n, dtype=torch.int64, device=weight.device)
    count.index_add_(0, mine, taken.long())
    limit = weights[starts + count - 1]
    return weight >= limit[particle], count + earlier[rows, crossing]
