"""What the E-step of one iteration looks up: discs, slices, grids, phases; the same for all.

Source: refinement.md sections 1.4, 2.3 and 9.1.
"""

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.refine import projector
from algorithms.refine.geometry import Disc, disc
from algorithms.refine.lookups import (
    Accumulated,
    CoarseTables,
    FineTables,
    Reference,
    Store,
    Tables,
    shell_means,
    shell_of_voxels,
)
from algorithms.refine.projector import Lattice, Plane, Slicer
from algorithms.refine.sampling import Turns, phases
from algorithms.refine.sizes import coarse_size, current_size
from algorithms.refine.space import tables as space
from algorithms.refine.space.volume import Space
from algorithms.refine.sums import Sums
from algorithms.refine.types import Model, Options

__all__ = ["CoarseTables", "FineTables", "Reference", "Tables", "reference_of", "tables"]


@dataclass(frozen=True)
class FlatTables(FineTables):
    """The second pass in two dimensions, where all slices of an iteration fit into memory.

    Parameters
    ----------
    slices
        `[K f, Q]` complex64; `children` rotations of each coarse one follow each other.
    phases
        Interleaved exp(-2 pi i j.t / N) of the inner pixels, `[t, 2 Q]`.
    slicer
        What they are cut with.
    plane
        What they are cut from.
    """

    slices: Tensor
    phases: Tensor
    slicer: Slicer
    plane: Plane

    def images(self, n_classes: int) -> tuple[int, ...]:
        """Return the shape of what images are added up to: one for each slice."""
        return (n_classes, self.grid.n, len(self.inner))

    def store(self, sums: Sums, options: Options) -> Store:
        """Return all slices, and the sums themselves."""
        return Whole(self.slices, self.grid.n, sums)

    def accumulated(self, sums: Sums, *, residual: bool) -> list[Accumulated]:
        """Return each half's sums on the padded plane."""
        slices = self.slices.reshape(sums.data.shape[1:])
        out = []
        for data, weight in zip(sums.data, sums.weight, strict=True):
            images = data - weight * slices if residual else data
            out.append(
                Accumulated(
                    projector.repaired(self.slicer.insert(images).to(torch.complex128), self.plane),
                    projector.repaired(self.slicer.insert(weight).double(), self.plane),
                )
            )
        return out


class Whole:
    """All slices, and sums for each of them: a `Store`.

    Parameters
    ----------
    slices
        `[K n, Q]`.
    n
        Rotations.
    sums
        Are added to.
    """

    def __init__(self, slices: Tensor, n: int, sums: Sums):
        self.slices, self._n = slices, n
        self._data = sums.data.view(-1, slices.shape[1])
        self._weight = sums.weight.view(-1, slices.shape[1])

    @property
    def most(self) -> int:
        """All slices are there."""
        return sys.maxsize

    def rows(self, klass: Tensor, rotation: Tensor) -> Tensor:
        """Return the rows of slices."""
        return klass * self._n + rotation

    def sinks(self, half: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums, and the rows to add to."""
        return self._data, self._weight, half * len(self.slices) + row

    def finish(self) -> None:
        """Do nothing: all is in the sums."""


def reference_of(model: Model, size: int, device: torch.device | str = "cpu") -> Reference:
    """Return a model's references for a window.

    Parameters
    ----------
    model
        Its references are in real space.
    size
        Edge of the window, px.
    """
    plane: Lattice = Plane(model.box, projector.PAD * size // 2)
    if model.dim == 3:
        plane = Space(model.box, model.pad * size // 2, model.pad)
    correction = plane.gridding(device)
    # Padded volumes are large: one class at a time.
    parts = model.references.split(1 if model.dim == 3 else model.n_classes)
    maps = (part.to(device).double() / correction for part in parts)
    values = torch.cat([projector.on_plane(plane.transform(one), plane) for one in maps])
    return Reference(plane, values, _spectrum(values, plane, model.box // 2 + 1))


def tables(model: Model, options: Options, device: torch.device | str = "cpu") -> Tables:
    """Return the tables of the next iteration."""
    size = current_size(model)
    reference = reference_of(model, size, device)
    if model.dim == 3:
        return space.tables(model, options, reference, size, device)
    pixels = disc(model.box, size)
    fine = _fine(model, reference, pixels, options.real, device)
    narrow = coarse_size(model, options, size)
    coarse = _coarse(model, reference, pixels, narrow, options.real, device)
    return Tables(reference, coarse, fine, size)


def _spectrum(values: Tensor, plane: Lattice, shells: int) -> Tensor:
    """Return mean |V|^2 / 2 of each shell, over the half plane as it is stored."""
    shell = shell_of_voxels(plane, values.device, edge=True)
    shell = torch.where(shell < shells, shell, -1)
    return shell_means(values.real**2 + values.imag**2, shell, shells) / 2.0


def _coarse(
    model: Model,
    reference: Reference,
    fine: Disc,
    size: int,
    dtype: torch.dtype,
    device: torch.device | str,
) -> CoarseTables:
    pixels = disc(model.box, size).inner()
    pixels = pixels.take(pixels.shell > 0)
    assert isinstance(reference.plane, Plane)  # noqa: S101
    grid = model.sampling.coarse()
    where = torch.zeros(model.box * (model.box // 2 + 1), dtype=torch.int64)
    where[fine.flat.cpu()] = torch.arange(fine.n)
    take = where[pixels.flat].to(device)
    used = grid.psi_deg[: len(grid.psi_deg) // 2] if grid.mirrored else grid.psi_deg
    slices = Slicer(pixels, used, reference.plane, dtype, device).slices(
        reference.values.to(dtype.to_complex())
    )
    flat = slices.reshape(-1, pixels.n)
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
    )


def _fine(
    model: Model,
    reference: Reference,
    pixels: Disc,
    dtype: torch.dtype,
    device: torch.device | str,
) -> FlatTables:
    assert isinstance(reference.plane, Plane)  # noqa: S101
    grid = model.sampling.fine()
    within = pixels.jx**2 + pixels.jy**2 <= (pixels.size / 2) ** 2 + 1e-4
    inner = pixels.take(within)
    slicer = Slicer(inner, grid.psi_deg, reference.plane, dtype, device)
    slices = slicer.slices(reference.values.to(dtype.to_complex())).reshape(-1, inner.n)
    shifts = grid.shifts_A.to(device) / model.pixel_A
    return FlatTables(
        pixels.to(device),
        torch.nonzero(within)[:, 0].to(device),
        grid,
        Turns.of(inner.jx.to(device), inner.jy.to(device), shifts, model.box, dtype),
        slices,
        phases(inner.jx.to(device), inner.jy.to(device), shifts, model.box, dtype),
        slicer,
        reference.plane,
    )
