"""What the E-step of one iteration looks up: discs, slices, grids, phases; the same for all.

Source: refinement.md sections 1.4, 2.3 and 9.1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.refine import projector
from algorithms.refine.geometry import EDGE, Disc, disc
from algorithms.refine.projector import Plane, Slicer
from algorithms.refine.sampling import Grid, Turns, phases
from algorithms.refine.sizes import coarse_size, current_size
from algorithms.refine.types import Model, Options


@dataclass(frozen=True)
class Reference:
    """References as the projector sees them.

    Parameters
    ----------
    plane
        Where they have values.
    values
        `[K, voxels]` complex, gridding corrected: slices are cut from these.
    tau2
        Their power on each shell, `[K, S]` float64: the prior.
    """

    plane: Plane
    values: Tensor
    tau2: Tensor


@dataclass(frozen=True)
class CoarseTables:
    """The first pass.

    Parameters
    ----------
    pixels
        Without the origin, inside of the circle.
    take
        Where they are among the pixels of the fine disc.
    grid
        Rotations and shifts.
    real, imaginary
        Slices `[K h, P]`; h rotations: half of them where `grid.mirrored`.
    power
        |V|^2 `[K h, P]`.
    phases
        `[t, P]` complex64.
    """

    pixels: Disc
    take: Tensor
    grid: Grid
    real: Tensor
    imaginary: Tensor
    power: Tensor
    phases: Tensor

    @property
    def n_psi(self) -> int:
        """Rotations in the tables."""
        return len(self.grid.psi_deg) // (2 if self.grid.mirrored else 1)


@dataclass(frozen=True)
class FineTables:
    """The second pass.

    Parameters
    ----------
    pixels
        All pixels of the window, the origin included.
    inner
        Where those inside of the circle are among them, `[Q]`.
    grid
        Rotations and shifts; `children` rotations of each coarse one follow each other.
    slices
        `[K f, Q]` complex64.
    phases
        Interleaved exp(-2 pi i j.t / N) of the inner pixels, `[t, 2 Q]`.
    turns
        The same, for products.
    """

    pixels: Disc
    inner: Tensor
    grid: Grid
    slices: Tensor
    phases: Tensor
    turns: Turns
    slicer: Slicer


@dataclass(frozen=True)
class Tables:
    """All of an iteration."""

    reference: Reference
    coarse: CoarseTables
    fine: FineTables
    size: int


def reference_of(model: Model, size: int, device: torch.device | str = "cpu") -> Reference:
    """Return a model's references for a window.

    Parameters
    ----------
    model
        Its references are in real space.
    size
        Edge of the window, px.
    """
    plane = Plane(model.box, projector.PAD * size // 2)
    maps = model.references.to(device).double()
    transform = projector.padded_transform(maps / projector.gridding(model.box, device))
    values = projector.on_plane(transform, plane)
    return Reference(plane, values, _spectrum(values, plane, model.box // 2 + 1))


def tables(model: Model, options: Options, device: torch.device | str = "cpu") -> Tables:
    """Return the tables of the next iteration."""
    size = current_size(model)
    reference = reference_of(model, size, device)
    pixels = disc(model.box, size)
    fine = _fine(model, reference, pixels, options.real, device)
    narrow = coarse_size(model, options, size)
    coarse = _coarse(model, reference, pixels, narrow, options.real, device)
    return Tables(reference, coarse, fine, size)


def shell_of_voxels(
    plane: Plane, device: torch.device | str = "cpu", *, edge: bool = False
) -> Tensor:
    """Return the shell of each voxel, -1 beyond the radius: int64 `[voxels]`.

    Parameters
    ----------
    plane
        Of the voxels.
    edge
        Whether voxels exactly on the circle belong to the last shell.
    """
    r = plane.distance(device)
    shell = torch.floor(r / projector.PAD + 0.5).long()
    return torch.where(r < plane.radius + (EDGE if edge else -EDGE), shell, -1)


def shell_means(values: Tensor, shell: Tensor, shells: int) -> Tensor:
    """Average real `[K, voxels]` over the voxels of each shell: `[K, shells]` float64."""
    inside = shell >= 0
    counts = torch.bincount(shell[inside], minlength=shells).double()
    sums = values.new_zeros((values.shape[0], shells), dtype=torch.float64)
    sums.index_add_(1, shell[inside], values[:, inside].double())
    return sums / counts.clamp(min=1.0)


def _spectrum(values: Tensor, plane: Plane, shells: int) -> Tensor:
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
) -> FineTables:
    grid = model.sampling.fine()
    within = pixels.jx**2 + pixels.jy**2 <= (pixels.size / 2) ** 2 + 1e-4
    inner = pixels.take(within)
    slicer = Slicer(inner, grid.psi_deg, reference.plane, dtype, device)
    slices = slicer.slices(reference.values.to(dtype.to_complex())).reshape(-1, inner.n)
    shifts = grid.shifts_A.to(device) / model.pixel_A
    return FineTables(
        pixels.to(device),
        torch.nonzero(within)[:, 0].to(device),
        grid,
        slices,
        phases(inner.jx.to(device), inner.jy.to(device), shifts, model.box, dtype),
        Turns.of(inner.jx.to(device), inner.jy.to(device), shifts, model.box, dtype),
        slicer,
    )
