"""What the E-step of an iteration looks up, for references of two and of three dimensions.

Source: refinement.md sections 1.4, 2.3 and 9.1.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from algorithms.refine.geometry import EDGE, Disc
from algorithms.refine.projector import Lattice
from algorithms.refine.sampling import Turns
from algorithms.refine.sums import Sums
from algorithms.refine.types import Options


class Rotations(Protocol):
    """What is tried: rotations, by their numbers, and shifts `[t, 2]` in A."""

    @property
    def n(self) -> int: ...  # noqa: D102
    @property
    def shifts_A(self) -> Tensor: ...  # noqa: D102
    @property
    def mirrored(self) -> bool: ...  # noqa: D102
    def angles(self, rotations: Tensor) -> Tensor: ...  # noqa: D102


class Store(Protocol):
    """Slices of references, and what images add up to in each."""

    @property
    def slices(self) -> Tensor: ...  # noqa: D102
    @property
    def most(self) -> int:
        """How many slices may be asked for at the same time."""
        ...

    def rows(self, klass: Tensor, rotation: Tensor) -> Tensor:
        """Return which of `slices` `[R, Q]` are those of classes and rotations, `[m]`."""
        ...

    def sinks(self, half: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sums of images and weights `[H R, Q]`, and the rows of these to add to."""
        ...

    def finish(self) -> None:
        """See to it that all is in the sums."""
        ...


@dataclass(frozen=True)
class Accumulated:
    """Sums of one half on the lattice, Hermitian: `[K, voxels]`.

    Double precision in two dimensions; in three that of the E-step.
    """

    data: Tensor
    weight: Tensor


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

    plane: Lattice
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
    prior
        Logarithm of the prior of each slice `[K h]`; None: they are alike.
    """

    pixels: Disc
    take: Tensor
    grid: Rotations
    real: Tensor
    imaginary: Tensor
    power: Tensor
    phases: Tensor
    prior: Tensor | None = None

    @property
    def n_psi(self) -> int:
        """Rotations in the tables."""
        return self.grid.n // (2 if self.grid.mirrored else 1)


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
        Rotations and shifts; the children of a coarse rotation follow each other.
    turns
        Phases of the shifts at the inner pixels.
    """

    pixels: Disc
    inner: Tensor
    grid: Rotations
    turns: Turns

    @property
    def sparse(self) -> bool:
        """Whether few of the shifts of a rotation are looked at."""
        return False

    @property
    def n_directions(self) -> int:
        """Directions of the coarse grid that have a prior; 1: there are none."""
        return 1

    def direction(self, rotations: Tensor) -> Tensor:
        """Return the coarse directions of rotations of the grid."""
        return torch.zeros_like(rotations)

    def images(self, n_classes: int) -> tuple[int, ...]:
        """Return the shape of what images are added up to in one half of the particles."""
        raise NotImplementedError

    def store(self, sums: Sums, options: Options) -> Store:
        """Return where slices come from, and where images go to, in one E-step."""
        raise NotImplementedError

    def accumulated(self, sums: Sums, *, residual: bool) -> list[Accumulated]:
        """Return each half's sums on the lattice, Hermitian and symmetric."""
        raise NotImplementedError


@dataclass(frozen=True)
class Tables:
    """All of an iteration."""

    reference: Reference
    coarse: CoarseTables
    fine: FineTables
    size: int


def shell_of_voxels(
    plane: Lattice, device: torch.device | str = "cpu", *, edge: bool = False
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
    shell = torch.floor(r / plane.pad + 0.5).long()
    return torch.where(r < plane.radius + (EDGE if edge else -EDGE), shell, -1)


def shell_means(values: Tensor, shell: Tensor, shells: int) -> Tensor:
    """Average real `[K, voxels]` over the voxels of each shell: `[K, shells]` float64."""
    inside = shell >= 0
    counts = torch.bincount(shell[inside], minlength=shells).double()
    sums = values.new_zeros((values.shape[0], shells), dtype=torch.float64)
    sums.index_add_(1, shell[inside], values[:, inside].double())
    return sums / counts.clamp(min=1.0)
