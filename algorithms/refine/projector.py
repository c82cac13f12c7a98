"""Slices of references and their adjoint: sampling a padded transform along rotated pixels.

Both directions are one sparse matrix, the same for all classes: rows are the pixels of all
rotations, columns the voxels of the padded half plane. Taking slices multiplies by it, putting
residuals back by its transpose, so the two are adjoint by construction.

Source: refinement.md sections 1.3, 1.4 and 3.1.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from algorithms.refine.geometry import EDGE, Disc, distances

PAD = 2


@dataclass(frozen=True)
class Plane:
    """The padded half plane that references live on: x = 0 .. R+1, y = -(R+1) .. R+1.

    `radius` is R = PAD * r_max in padded px; voxels are flattened, y slowest.
    """

    box: int
    radius: int

    @property
    def pad(self) -> int:
        """Share of padding."""
        return PAD

    @property
    def pd(self) -> float:
        """Voxels for each one of an unpadded transform."""
        return float(PAD**2)

    @property
    def width(self) -> int:
        """Columns."""
        return self.radius + 2

    @property
    def height(self) -> int:
        """Rows; row 0 is y = -(R+1)."""
        return 2 * self.radius + 3

    @property
    def n(self) -> int:
        """Number of voxels."""
        return self.width * self.height

    def coordinates(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Return signed (x, y) of every voxel, int64 `[n]`."""
        y, x = torch.meshgrid(
            torch.arange(-self.radius - 1, self.radius + 2, device=device),
            torch.arange(self.width, device=device),
            indexing="ij",
        )
        return x.reshape(-1), y.reshape(-1)

    def flat(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Return voxels that exist in the padded transform, and where they are there.

        The transform is a half spectrum `[PAD N, PAD N / 2 + 1]`, flattened.
        """
        x, y = self.coordinates(device)
        size = PAD * self.box
        there = (x <= size // 2) & (y >= -(size // 2)) & (y < size // 2)
        index = torch.remainder(y, size) * (size // 2 + 1) + x
        voxels = torch.nonzero(there)[:, 0]
        return voxels, index[voxels]

    def distance(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the distance from the origin in padded px: float64 `[n]`."""
        x, y = self.coordinates(device)
        return torch.sqrt((x**2 + y**2).double())

    def gridding(self, device: torch.device | str = "cpu") -> Tensor:
        """Return what linear interpolation does to a map, `[N, N]`."""
        return gridding(self.box, device)

    def transform(self, maps: Tensor) -> Tensor:
        """Return padded transforms of maps, flattened: see `padded_transform`."""
        return padded_transform(maps)

    def map_of(self, transform: Tensor) -> Tensor:
        """Undo `transform`."""
        return map_of(transform, self.box)

    def empty(self, k: int, like: Tensor) -> Tensor:
        """Return `k` padded transforms of zeros."""
        size = PAD * self.box
        return like.new_zeros((k, size * (size // 2 + 1)))


class Lattice(Protocol):
    """Where references live in Fourier space, in two dimensions or three: see `Plane`."""

    @property
    def box(self) -> int: ...  # noqa: D102
    @property
    def radius(self) -> int: ...  # noqa: D102
    @property
    def pad(self) -> int: ...  # noqa: D102
    @property
    def pd(self) -> float: ...  # noqa: D102
    @property
    def n(self) -> int: ...  # noqa: D102
    def flat(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]: ...  # noqa: D102
    def distance(self, device: torch.device | str = "cpu") -> Tensor: ...  # noqa: D102
    def gridding(self, device: torch.device | str = "cpu") -> Tensor: ...  # noqa: D102
    def transform(self, maps: Tensor) -> Tensor: ...  # noqa: D102
    def map_of(self, transform: Tensor) -> Tensor: ...  # noqa: D102
    def empty(self, k: int, like: Tensor) -> Tensor: ...  # noqa: D102


def gridding(box: int, device: torch.device | str = "cpu") -> Tensor:
    """Return sinc^2(|x| / (PAD N)), what linear interpolation does to a map: `[N, N]` float64."""
    return torch.sinc(distances(box, device) / (PAD * box)) ** 2


def padded_transform(maps: Tensor) -> Tensor:
    """Return padded transforms `[K, PAD N * (PAD N / 2 + 1)]` of maps `[K, N, N]`, complex.

    Values have the scale of the transform of an N x N image. Without gridding correction.
    """
    box = maps.shape[-1]
    size, low = PAD * box, (PAD * box - box) // 2
    padded = maps.new_zeros((*maps.shape[:-2], size, size))
    padded[..., low : low + box, low : low + box] = maps
    from algorithms.refine.geometry import to_fourier

    return to_fourier(padded) * float(PAD**2)


def map_of(transform: Tensor, box: int) -> Tensor:
    """Undo `padded_transform`; what lies outside of the box is cut off."""
    from algorithms.refine.geometry import from_fourier

    size, low = PAD * box, (PAD * box - box) // 2
    whole = from_fourier(transform / float(PAD**2), size)
    return whole[..., low : low + box, low : low + box]


def on_plane(transform: Tensor, plane: Lattice, *, within: bool = True) -> Tensor:
    """Return the values of padded transforms on a plane, `[K, n]`; 0 beyond the radius.

    Parameters
    ----------
    transform
        `[K, PAD N * (PAD N / 2 + 1)]`, any type.
    plane
        Where values are wanted.
    within
        Whether those beyond the radius are zero.
    """
    voxels, index = plane.flat(transform.device)
    out = transform.new_zeros((transform.shape[0], plane.n))
    out[:, voxels] = transform[:, index]
    if within:
        out[:, plane.distance(transform.device) > plane.radius + EDGE] = 0
    return out


def off_plane(values: Tensor, plane: Lattice, out: Tensor) -> Tensor:
    """Write values of a plane `[K, n]` into padded transforms `out`; return these."""
    voxels, index = plane.flat(values.device)
    out[:, index] = values[:, voxels]
    return out


class Slicer:
    """Takes slices of references along rotated pixels, and puts images back.

    Parameters
    ----------
    pixels
        Of the images, inside of the circle (`Disc.inner`).
    psi_deg
        In-plane rotations `[n]`.
    plane
        Of the references.
    dtype
        Of the weights.
    """

    def __init__(
        self,
        pixels: Disc,
        psi_deg: Tensor,
        plane: Plane,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.n, self.p, self.plane = len(psi_deg), pixels.n, plane
        self._rows, self._columns, weights, signs = _neighbours(pixels, psi_deg, plane)
        self._weights = (weights.to(dtype), (weights * signs).to(dtype))
        self._device, shape = device, (self.n * self.p, plane.n)
        self._re, self._im = _csr(self._rows, self._columns, self._weights, shape, device)

    @cached_property
    def _back(self) -> list[Tensor]:
        """The transposed matrices of real and imaginary parts; the first pass never needs them."""
        shape = (self.plane.n, self.n * self.p)
        return _csr(self._columns, self._rows, self._weights, shape, self._device)

    def slices(self, references: Tensor) -> Tensor:
        """Return slices `[K, n, P]` complex of references on the plane `[K, voxels]`."""
        k = references.shape[0]
        real = self._re @ references.real.T.contiguous()
        imaginary = self._im @ references.imag.T.contiguous()
        both = torch.complex(real, imaginary)
        return both.T.reshape(k, self.n, self.p).contiguous()

    def insert(self, images: Tensor) -> Tensor:
        """Return the adjoint on the plane `[K, voxels]` of images `[K, n, P]`, real or complex.

        Hermitian repair of the column x = 0 is left to `repaired`.
        """
        flat = images.reshape(images.shape[0], -1)
        if not images.is_complex():
            return (self._back[0] @ flat.T.contiguous()).T
        real = self._back[0] @ flat.real.T.contiguous()
        imaginary = self._back[1] @ flat.imag.T.contiguous()
        return torch.complex(real, imaginary).T


def repaired(values: Tensor, plane: Plane) -> Tensor:
    """Add in column x = 0 what was put at y to the conjugate at -y; `[K, voxels]`."""
    shaped = values.reshape(values.shape[0], plane.height, plane.width).clone()
    column = shaped[:, :, 0]
    flipped = column.flip(1)
    both = column + (flipped.conj() if values.is_complex() else flipped)
    both[:, plane.radius + 1] = column[:, plane.radius + 1]  # the origin is its own mirror
    shaped[:, :, 0] = both
    return shaped.reshape(values.shape[0], -1)


def _neighbours(
    pixels: Disc, psi_deg: Tensor, plane: Plane
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (row, voxel, weight, sign of the imaginary part) of every linear weight."""
    psi = psi_deg.double().cpu()[:, None] * (math.pi / 180.0)
    jx, jy = pixels.jx.double().cpu(), pixels.jy.double().cpu()
    x = (PAD * (torch.cos(psi) * jx - torch.sin(psi) * jy)).reshape(-1)
    y = (PAD * (torch.sin(psi) * jx + torch.cos(psi) * jy)).reshape(-1)
    rows = torch.arange(len(x))
    inside = x**2 + y**2 <= plane.radius**2 + EDGE
    rows, x, y = rows[inside], x[inside], y[inside]
    mirror = x < 0.0
    sign = torch.where(mirror, -1.0, 1.0).double()
    x, y = x * sign, y * sign
    x0, y0 = torch.floor(x), torch.floor(y)
    fx, fy = x - x0, y - y0
    parts = []
    for dy, wy in ((0, 1.0 - fy), (1, fy)):
        for dx, wx in ((0, 1.0 - fx), (1, fx)):
            voxel = (y0.long() + dy + plane.radius + 1) * plane.width + x0.long() + dx
            parts.append((rows, voxel, wx * wy, sign))
    row, voxel, weight, signs = (torch.cat(part) for part in zip(*parts, strict=True))
    kept = weight > 0.0
    return row[kept], voxel[kept], weight[kept], signs[kept]


def _csr(
    rows: Tensor,
    columns: Tensor,
    values: Sequence[Tensor],
    shape: tuple[int, int],
    device: torch.device | str,
) -> list[Tensor]:
    """Return sparse matrices with the same places and several sets of values."""
    order = torch.argsort(rows, stable=True)
    counts = torch.bincount(rows, minlength=shape[0])
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cumsum(counts, 0)])
    there = columns[order]
    with warnings.catch_warnings():  # torch says of these tensors that they are new
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return [
            torch.sparse_csr_tensor(
                starts, there, one[order], size=shape, device=device, check_invariants=False
            )
            for one in values
        ]
