"""What the E-step of an iteration looks up where references are volumes.

The slices of the coarse grid are cut once for an iteration; those of the fine grid when particles
ask for them.

Source: refinement.md sections 1.4, 2.3 and 9.1.
"""

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from algorithms.orientation import symmetry
from algorithms.refine.geometry import Disc, disc
from algorithms.refine.lookups import (
    Accumulated,
    CoarseTables,
    FineTables,
    Reference,
    Rotations,
    Store,
    Tables,
)
from algorithms.refine.sampling import Turns, phases
from algorithms.refine.sizes import coarse_size
from algorithms.refine.space import slicing
from algorithms.refine.space.sampling import Orientations, Sampling3D
from algorithms.refine.space.slots import SummedSlots
from algorithms.refine.space.volume import Space
from algorithms.refine.sums import Sums
from algorithms.refine.types import Model, Options, RefineError


class Turned(Rotations, Protocol):
    """Rotations in three dimensions."""

    @property
    def directions(self) -> int: ...  # noqa: D102
    @property
    def children(self) -> int: ...  # noqa: D102
    def direction(self, rotations: Tensor) -> Tensor: ...  # noqa: D102
    def matrices(self, rotations: Tensor) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class SpaceTables(FineTables):
    """The second pass.

    Parameters
    ----------
    reference
        What slices are cut from.
    points
        Where the inner pixels are in the volume, `[3, Q]`.
    operators
        Of the point group, `[s, 3, 3]`.
    """

    reference: Reference
    points: Tensor
    operators: Tensor
    real: torch.dtype

    @property
    def sparse(self) -> bool:
        """Whether few of the shifts of a rotation are looked at."""
        return True

    @property
    def n_directions(self) -> int:
        """Directions of the coarse grid that have a prior."""
        return self.orientations.directions

    def direction(self, rotations: Tensor) -> Tensor:
        """Return the coarse directions of rotations of the grid."""
        return self.orientations.direction(rotations)

    @property
    def orientations(self) -> Turned:
        """The grid, which knows matrices."""
        return cast(Turned, self.grid)

    @property
    def space(self) -> Space:
        """Of the voxels."""
        assert isinstance(self.reference.plane, Space)  # noqa: S101
        return self.reference.plane

    def images(self, n_classes: int) -> tuple[int, ...]:
        """Return the shape of what images are added up to: volumes."""
        return (n_classes, self.space.n)

    def store(self, sums: Sums, options: Options) -> Store:
        """Return slices that are cut when they are asked for."""
        like = torch.empty(0, dtype=self.real, device=self.points.device)
        return SummedSlots(
            self.reference, self.points, self.orientations.matrices, self.grid.n, like,
            options.memory_bytes, (sums.data, sums.weight), residual=options.gradient,
        )  # fmt: skip

    def accumulated(self, sums: Sums, *, residual: bool) -> list[Accumulated]:
        """Return each half's sums on the padded volume; residuals were formed before."""
        out = []
        for data, weight in zip(sums.data, sums.weight, strict=True):
            whole, heavy = self.space.repaired(data), self.space.repaired(weight)
            slicing.symmetrised(whole, heavy, self.space, self.operators)
            out.append(Accumulated(whole, heavy))
        return out


def tables(
    model: Model,
    options: Options,
    reference: Reference,
    size: int,
    device: torch.device | str = "cpu",
) -> Tables:
    """Return the tables of the next iteration.

    Parameters
    ----------
    model, options
        Of the run.
    reference
        Its volumes, for the window.
    size
        Edge of the window, px.
    device
        Where the E-step runs.
    """
    sampling = model.sampling
    if not isinstance(sampling, Sampling3D):
        raise RefineError("references in three dimensions need a sampling of directions")
    pixels = disc(model.box, size)
    narrow = coarse_size(model, options, size)
    needs_all = not options.skip_align and sampling.sigma_deg <= 0.0
    correlates = options.first_cc and model.iteration <= 1
    coarse = _coarse(
        model, reference, pixels, narrow, options.real, device, cut=needs_all, correlates=correlates
    )
    fine = _fine(model, options, reference, pixels, device)
    return Tables(reference, coarse, fine, size)


def _coarse(
    model: Model,
    reference: Reference,
    fine: Disc,
    size: int,
    dtype: torch.dtype,
    device: torch.device | str,
    *,
    cut: bool,
    correlates: bool,
) -> CoarseTables:
    assert isinstance(reference.plane, Space)  # noqa: S101
    pixels = disc(model.box, size).inner()
    if not correlates:
        pixels = pixels.take(pixels.shell > 0)
    grid = model.sampling.coarse()
    assert isinstance(grid, Orientations)  # noqa: S101
    where = torch.zeros(model.box * (model.box // 2 + 1), dtype=torch.int64)
    where[fine.flat.cpu()] = torch.arange(fine.n)
    take = where[pixels.flat].to(device)
    n = grid.n // (2 if grid.mirrored else 1)
    rotations = torch.arange(n if cut else 0, device=device)
    points = slicing.points_of(pixels, reference.plane).to(device)
    values = reference.values.to(dtype.to_complex())
    matrices = grid.matrices(rotations)
    flat = torch.cat([slicing.sample(one, reference.plane, matrices, points) for one in values])
    shifts = grid.shifts_A.to(device) / model.pixel_A
    turns = phases(pixels.jx.to(device), pixels.jy.to(device), shifts, model.box, dtype)
    return CoarseTables(
        pixels,
        take,
        grid,
        flat.real.contiguous(),
        flat.imag.contiguous(),
        flat.real**2 + flat.imag**2,
        torch.view_as_complex(turns.reshape(len(shifts), -1, 2)),
        log_directions(model, device)[:, grid.direction(rotations)].reshape(-1).to(dtype),
    )


def log_directions(model: Model, device: torch.device | str = "cpu") -> Tensor:
    """Return the logarithm of the prior of classes and directions, `[K, D]` float64.

    Divided by the mean, as RELION has it; no weight depends on that.
    """
    sampling = model.sampling
    assert isinstance(sampling, Sampling3D)  # noqa: S101
    shares = model.pdf_direction
    if shares is None or shares.shape[1] != sampling.n_directions:
        even = torch.ones(sampling.n_directions, dtype=torch.float64) / sampling.n_directions
        shares = model.fractions[:, None] * even
    return torch.log(shares / shares.mean()).to(device)


def _fine(
    model: Model,
    options: Options,
    reference: Reference,
    pixels: Disc,
    device: torch.device | str,
) -> SpaceTables:
    grid = model.sampling.fine()
    assert isinstance(grid, Orientations) and isinstance(reference.plane, Space)  # noqa: S101
    within = pixels.jx**2 + pixels.jy**2 <= (pixels.size / 2) ** 2 + 1e-4
    inner = pixels.take(within)
    shifts = grid.shifts_A.to(device) / model.pixel_A
    turns = Turns.of(inner.jx.to(device), inner.jy.to(device), shifts, model.box, options.real)
    assert isinstance(model.sampling, Sampling3D)  # noqa: S101
    return SpaceTables(
        pixels.to(device),
        torch.nonzero(within)[:, 0].to(device),
        grid,
        turns,
        reference,
        slicing.points_of(inner, reference.plane).to(device),
        symmetry.operators(model.sampling.symmetry),
        options.real,
    )
