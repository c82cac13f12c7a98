"""The two halves of the particles: who is in which, and what their sums say of each other.

Source: refinement.md sections 3.4, 5.1 and 5.4.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from algorithms.refine.types import RefineError

LEAST_PARTICLES = 10  # in a half
_EDGE = 1e-6
FSC_LIMITS = (0.001, 0.999)


class Voxels(Protocol):
    """Where the accumulators have their values, in padded px."""

    @property
    def box(self) -> int: ...  # noqa: D102
    @property
    def pad(self) -> int: ...  # noqa: D102
    @property
    def radius(self) -> int: ...  # noqa: D102

    def axes(self, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """Return signed coordinates, int64, slowest first, to be broadcast over the voxels."""
        ...


@dataclass(frozen=True)
class Prior:
    """What the halves say of a map, `[S]` float64 each: data over prior, and its power."""

    ssnr: Tensor
    tau2: Tensor


def assigned(given: np.ndarray | None, n: int, seed: int, table: str) -> np.ndarray:
    """Return the half of each particle, 1 or 2.

    Parameters
    ----------
    given
        rlnRandomSubset of the table, None where it has none.
    n
        Particles.
    seed
        Of the draw.
    table
        Its name, for messages.

    Raises
    ------
    RefineError
        A half has too few particles, or a number is neither 1 nor 2.
    """
    if given is None:
        order = np.random.default_rng((seed, 0)).permutation(n)
        subset = np.ones(n, np.int64)
        subset[order[n // 2 :]] = 2
    else:
        subset = np.asarray(given, np.int64)
        wrong = np.flatnonzero((subset != 1) & (subset != 2))
        if len(wrong):
            raise RefineError(
                f"{table}: rlnRandomSubset of particle {wrong[0] + 1} is {subset[wrong[0]]} "
                f"(and of {len(wrong) - 1} others neither 1 nor 2): remove the column, and halves "
                "are drawn"
            )
    sizes = [int((subset == half).sum()) for half in (1, 2)]
    if min(sizes) < LEAST_PARTICLES:
        how = "by rlnRandomSubset" if given is not None else "by chance"
        raise RefineError(
            f"{table}: {n} particles make halves of {sizes[0]} and {sizes[1]} {how}; each needs "
            f"at least {LEAST_PARTICLES}: give more particles"
            + (", or remove the column" if given is not None else "")
        )
    return subset


# ---- sums


def joins_to(limit_A: float, resolution: float, edge_A: float) -> int:
    """Return the shell up to which halves are joined.

    Parameters
    ----------
    limit_A
        Resolution below which they may be [--low_resol_join_halves].
    resolution
        Present one, 1/A.
    edge_A
        Of the box.
    """
    if limit_A <= 0.0:
        return -1
    reached = max(limit_A, 1.0 / max(resolution, 1e-9))
    return math.ceil(edge_A / reached - _EDGE)


def joined(first: Tensor, second: Tensor, voxels: Voxels, shell: int) -> None:
    """Put the mean of both halves where they are below a shell; both are changed.

    Parameters
    ----------
    first, second
        Data or weight of the halves `[..., n]`.
    voxels
        Where they lie.
    shell
        Last one that is joined, unpadded; below 0: none.
    """
    if shell < 0:
        return
    low = _square(voxels.axes(first.device)) <= (shell * voxels.pad) ** 2
    mean = (first[..., low] + second[..., low]) / 2.0
    first[..., low] = mean
    second[..., low] = mean


def fsc(data: tuple[Tensor, Tensor], weight: tuple[Tensor, Tensor], voxels: Voxels) -> Tensor:
    """Return the correlation of two halves by shell, before any prior or mask: `[S]` float64.

    All padded voxels that round to one unpadded voxel are averaged first.

    Parameters
    ----------
    data, weight
        Of both halves `[n]`.
    voxels
        Where they lie.
    """
    index, square = _unpadded(voxels, data[0].device)
    count = len(square)
    means = []
    for values, w in zip(data, weight, strict=True):
        total = torch.zeros(count, dtype=torch.complex128, device=values.device)
        total.index_add_(0, index, values.to(torch.complex128))
        sums = torch.zeros(count, dtype=torch.float64, device=values.device)
        sums.index_add_(0, index, w.double())
        means.append(torch.where(sums > 0.0, total / sums.clamp(min=1e-300), 0.0))
    shells = voxels.box // 2 + 1
    shell = torch.floor(torch.sqrt(square.double()) + 0.5).long()
    inside = (square <= (voxels.radius // voxels.pad) ** 2) & (shell < shells)

    def by_shell(values: Tensor) -> Tensor:
        out = torch.zeros(shells, dtype=torch.float64, device=values.device)
        return out.index_add_(0, shell[inside], values[inside])

    a, b = means
    cross = by_shell(a.real * b.real + a.imag * b.imag)
    power = by_shell(a.abs() ** 2) * by_shell(b.abs() ** 2)
    curve = torch.where(power > 0.0, cross / torch.sqrt(power).clamp(min=1e-300), 0.0)
    curve[0] = 1.0
    return curve.cpu()


def _unpadded(voxels: Voxels, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where each padded voxel goes, and the squared radius of where that is."""
    pad = voxels.pad
    index = torch.zeros((), dtype=torch.int64, device=device)
    places = []
    for axis in voxels.axes(device):
        down = torch.div(2 * axis.abs() + pad, 2 * pad, rounding_mode="floor") * torch.sign(axis)
        low, high = int(down.min()), int(down.max())
        index = index * (high - low + 1) + (down - low)
        places.append(torch.arange(low, high + 1, device=device))
    return index.reshape(-1), _square(torch.meshgrid(*places, indexing="ij"))


def _square(axes: Sequence[Tensor]) -> Tensor:
    """Return the squared radius of every voxel."""
    total = torch.zeros((), dtype=torch.int64, device=axes[0].device)
    for axis in axes:
        total = total + axis**2
    return total.reshape(-1)


def prior(curve: Tensor, sigma2: Tensor, fudge: float, *, whole: bool = False) -> Prior:
    """Return data over prior, and the power of the prior, from the FSC of the halves.

    Parameters
    ----------
    curve
        FSC `[S]`.
    sigma2
        Noise of the map that it is for `[S]`.
    fudge
        T.
    whole
        Whether the map is that of both halves together.
    """
    share = curve.double().clamp(*FSC_LIMITS)
    if whole:
        share = torch.sqrt(2.0 * share / (share + 1.0)).clamp(max=FSC_LIMITS[1])
    ssnr = fudge * share / (1.0 - share)
    return Prior(ssnr, ssnr * sigma2)
