"""The first pass: all classes, rotations and shifts at once, as one matrix product.

d^2 / 2 = const - Re <Y, V> + <E, |V|^2> / 2 with the CTF on the image's side: Y = s C X / sigma^2,
E = (s C)^2 / sigma^2. A slice turned by 180 degrees is the conjugate of the slice, so half of the
rotations are enough: with a = Re Y . Re V and b = Im Y . Im V the two cross terms are a + b, a - b.

Source: refinement.md sections 2.1 to 2.3 and 9.1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.refine.tables import CoarseTables

# Weights this far (natural logarithm) below a particle's largest do not count: a million of them
# are a ten-thousandth of the share that may be left out.
NEGLIGIBLE = 30.0


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


def log_weights(
    y: Tensor, e: Tensor, log_prior: Tensor, tables: CoarseTables, n_classes: int
) -> Tensor:
    """Return unnormalised log weights `[B, t, turns, K, h]`, `turns` being 2 where mirrored.

    Parameters
    ----------
    y
        s C X / sigma^2 at the coarse pixels, complex64 `[B, P]`.
    e
        (s C)^2 / sigma^2, `[B, P]`.
    log_prior
        `[B, t, K]`.
    tables
        Of the pass.
    n_classes
        K.
    """
    n, t = len(y), len(tables.phases)
    h = tables.n_psi
    shifted = (y[:, None, :] * tables.phases[None]).reshape(n * t, -1)
    a = shifted.real.contiguous() @ tables.real.T
    b = shifted.imag.contiguous() @ tables.imaginary.T
    base = log_prior[..., None] - 0.5 * (e @ tables.power.T).reshape(n, 1, n_classes, h)
    a, b = (part.reshape(n, t, n_classes, h) for part in (a, b))
    out = y.real.new_empty((n, t, 2 if tables.grid.mirrored else 1, n_classes, h))
    torch.add(a, b, out=out[:, :, 0]).add_(base)
    if tables.grid.mirrored:
        torch.sub(a, b, out=out[:, :, 1]).add_(base)
    return out


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
    n, t, _turns, n_classes, h = logs.shape
    flat = logs.reshape(n, -1)
    particle, pose, weight, total = _candidates(flat, cap)
    chosen, count = heaviest(particle, weight, total, fraction, cap)
    particle, pose = particle[chosen], pose[chosen]
    rotation = torch.remainder(pose, h)
    pose = pose // h
    klass = torch.remainder(pose, n_classes)
    pose = pose // n_classes
    turn = torch.remainder(pose, _turns)
    psi, shift = rotation + h * turn, pose // _turns
    key = ((particle * n_classes + klass) * (h * _turns) + psi) * t + shift
    order = torch.argsort(key)
    return Significant(particle[order], klass[order], psi[order], shift[order], count)


def _candidates(flat: Tensor, cap: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return particle, pose and weight of what may be significant, and each particle's sum.

    The largest weight of a particle is 1.
    """
    if 0 < cap < flat.shape[1]:  # the most that are taken, and no sorting of the others
        top, poses = torch.topk(flat, cap, dim=1)
        total = torch.exp(flat - top[:, :1]).sum(1, dtype=torch.float64)
        particle = torch.arange(len(flat), device=flat.device).repeat_interleave(cap)
        weight = torch.exp((top - top[:, :1]).double()).flatten()
        return particle, poses.flatten(), weight, total
    largest = flat.amax(1, keepdim=True)
    particle, pose = torch.nonzero(flat > largest - NEGLIGIBLE, as_tuple=True)
    weight = torch.exp((flat[particle, pose] - largest[particle, 0]).double())
    total = torch.zeros(len(flat), dtype=torch.float64, device=flat.device)
    return particle, pose, weight, total.index_add_(0, particle, weight)


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
    # Weights are at most 1: one sort by this key is one by particle, then by falling weight.
    order = torch.argsort(particle - 0.5 * weight, stable=True)
    sorted_weight = weight[order]
    n = len(total)
    counts = torch.bincount(particle, minlength=n)
    starts = torch.cumsum(counts, 0) - counts
    running = torch.cumsum(sorted_weight, 0)
    before = running - sorted_weight
    before = before - before[starts[particle[order]]]
    rank = torch.arange(len(order), device=order.device) - starts[particle[order]]
    taken = before <= fraction * total[particle[order]]
    if cap > 0:
        taken &= rank < cap
    count = torch.zeros(n, dtype=torch.int64, device=weight.device)
    count.index_add_(0, particle[order], taken.long())
    limit = sorted_weight[starts + count - 1]
    return weight >= limit[particle], count
