"""What the second pass does for pairs of a particle and a slice: products, and weighted sums.

Each is one loop over the rows of pairs where Numba (processor) or CuPy (GPU) can compile it, and
otherwise some steps of torch with temporary arrays; all give the same but for rounding.

Source: refinement.md sections 9.1 and 9.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.jit import compiled
from algorithms.refine import cudakernels, loops
from algorithms.refine.sampling import Turns


@dataclass(frozen=True)
class Turned:
    """Pairs with the sums of their weighted phases.

    Parameters
    ----------
    real, imaginary
        `[m, Q]`.
    amount
        Sum of the weights of each pair, `[m]`.
    particle
        `[m]`, ascending.
    """

    real: Tensor
    imaginary: Tensor
    amount: Tensor
    particle: Tensor


def multiply(
    y: Tensor,
    e: Tensor,
    slices: Tensor,
    particle: Tensor,
    row: Tensor,
    real: Tensor,
    imaginary: Tensor,
    power: Tensor,
) -> None:
    """Write conj(Y) V of each pair, and the sum of E |V|^2.

    Parameters
    ----------
    y, e
        Of particles, complex and real `[n, Q]`.
    slices
        Complex `[R, Q]`.
    particle, row
        Of each pair, `[m]`.
    real, imaginary, power
        Are written: `[m, Q]`, `[m, Q]`, `[m]`.
    """
    if cudakernels.usable(e):
        cudakernels.multiply(y, e, slices, particle, row, real, imaginary, power)
        return
    if loop := _loop(loops.multiply, e):
        loop(y, e, slices, particle, row, real, imaginary, power)
        return
    taken = slices[row]
    product = y[particle].conj() * taken
    real[:], imaginary[:] = product.real, product.imag
    power[:] = ((taken.real**2 + taken.imag**2) * e[particle]).sum(1)


def score(turns: Turns, real: Tensor, imaginary: Tensor, parents: Tensor) -> Tensor:
    """Do as `Turns.sums` where few of the shifts are looked at.

    Parameters
    ----------
    turns, real, imaginary
        As of `Turns.sums`.
    parents
        Which groups of shifts count, `[m, c]`; the values of others may be anything finite.
    """
    if loop := _loop(loops.score, real):
        sums = real.new_zeros((len(real), turns.n))
        loop(real, imaginary, turns.cosine, turns.sine, parents, sums)
        return sums
    return turns.sums(real, imaginary)


def weigh(turns: Turns, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Do as `Turns.weighted` where most weights `[m, t]` are 0."""
    if loop := _loop(loops.weigh, weights):
        real, imaginary = (weights.new_empty((len(weights), turns.cosine.shape[1])) for _ in "ri")
        loop(weights, turns.cosine, turns.sine, real, imaginary)
        return real, imaginary
    return turns.weighted(weights)


def insert(
    plain: Tensor,
    weight: Tensor,
    turned: Turned,
    row: Tensor,
    data_sums: Tensor,
    weight_sums: Tensor,
) -> None:
    """Add turned images, and their weights, to the rows of the sums.

    Parameters
    ----------
    plain, weight
        Of particles, complex and real `[n, Q]`.
    turned
        The pairs.
    row
        Of each pair, `[m]`.
    data_sums, weight_sums
        Are added to, complex and real `[R, Q]`.
    """
    particle, amount = turned.particle, turned.amount
    if cudakernels.usable(weight):
        cudakernels.insert(plain, weight, turned, row, data_sums, weight_sums)
        return
    if loop := _loop(loops.insert, weight):
        parts = (turned.real, turned.imaginary, amount, particle)
        loop(plain, weight, *parts, row, data_sums, weight_sums)
        return
    phases = torch.complex(turned.real, turned.imaginary)
    data_sums.index_add_(0, row, plain[particle] * phases)
    weight_sums.index_add_(0, row, weight[particle] * amount[:, None])


def compare(
    masked: Tensor,
    slices: Tensor,
    counts: Tensor,
    turned: Turned,
    klass: Tensor,
    row: Tensor,
    sums: Tensor,
) -> None:
    """Add what images and references have in common, and the references' power, to particles.

    Parameters
    ----------
    masked
        Of particles, complex `[n, Q]`.
    slices
        Complex `[R, Q]`.
    counts
        Whether a pixel counts for the scale, 0 or 1, `[K, Q]`.
    turned
        The pairs.
    klass, row
        Class and slice of each pair, `[m]`.
    sums
        Is added to: Re conj(V) X, |V|^2, and both where pixels count, `[n, 4, Q]`.
    """
    particle, amount = turned.particle, turned.amount
    if cudakernels.usable(counts):
        cudakernels.compare(masked, slices, counts, turned, klass, row, sums)
        return
    if loop := _loop(loops.compare, counts):
        parts = (turned.real, turned.imaginary, amount, particle)
        loop(masked, slices, counts, *parts, klass, row, sums)
        return
    taken, counted = slices[row], counts[klass]
    phases = torch.complex(turned.real, turned.imaginary)
    overlap = (taken.conj() * (masked[particle] * phases)).real
    square = (taken.real**2 + taken.imag**2) * amount[:, None]
    for number, values in enumerate((overlap, square, overlap * counted, square * counted)):
        sums[:, number].index_add_(0, particle, values)


def _loop(function: Callable[..., None], like: Tensor) -> Callable[..., None] | None:
    """Return a loop as machine code for tensors, None where torch has to do it."""
    made = compiled(function) if like.device.type == "cpu" else None
    if made is None:
        return None
    return lambda *tensors: made(*(_array(tensor) for tensor in tensors))


def _array(tensor: Tensor) -> NDArray[Any]:
    flat = torch.view_as_real(tensor).flatten(-2) if tensor.is_complex() else tensor
    return flat.numpy()
