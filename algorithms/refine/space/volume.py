"""The padded half volume that references in three dimensions live on.

Source: refinement.md sections 1.2 to 1.4 and 3.1.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from algorithms.refine.geometry import distances


@dataclass(frozen=True)
class Space:
    """Voxels x = 0 .. R+1, y and z = -(R+1) .. R+1 of a padded transform.

    `radius` is R = pad * r_max in padded px; voxels are flattened, z slowest.
    """

    box: int
    radius: int
    pad: int = 2

    @property
    def pd(self) -> float:
        """Voxels for each one of an unpadded transform."""
        return float(self.pad**3)

    @property
    def width(self) -> int:
        """Number of x."""
        return self.radius + 2

    @property
    def height(self) -> int:
        """Number of y, and of z; the first is -(R+1)."""
        return 2 * self.radius + 3

    @property
    def n(self) -> int:
        """Number of voxels."""
        return self.width * self.height**2

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of z, y and x."""
        return (self.height, self.height, self.width)

    def axes(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """Return signed z, y, x, int64, shaped to be broadcast over the voxels."""
        side = torch.arange(-self.radius - 1, self.radius + 2, device=device)
        x = torch.arange(self.width, device=device)
        return side[:, None, None], side[None, :, None], x[None, None, :]

    def flat(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Return voxels that exist in the padded transform, and where they are there.

        The transform is a half spectrum `[pad N, pad N, pad N / 2 + 1]`, flattened.
        """
        z, y, x = self.axes(device)
        size = self.pad * self.box
        half = size // 2
        there = (x <= half) & (y >= -half) & (y < half) & (z >= -half) & (z < half)
        rows = torch.remainder(z, size) * size + torch.remainder(y, size)
        index = rows * (half + 1) + x
        voxels = torch.nonzero(there.reshape(-1))[:, 0]
        return voxels, index.reshape(-1)[voxels]

    def distance(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the distance from the origin in padded px: float64 `[n]`."""
        return _distance(self, str(device))

    def gridding(self, device: torch.device | str = "cpu") -> Tensor:
        """Return sinc^2(|x| / (pad N)), what linear interpolation does to a map: `[N, N, N]`."""
        return torch.sinc(distances(self.box, device, 3) / (self.pad * self.box)) ** 2

    def transform(self, maps: Tensor) -> Tensor:
        """Return padded transforms `[K, pad N * pad N * (pad N / 2 + 1)]` of maps `[K, N, N, N]`.

        A slice has the scale of the transform of an N x N image. Without gridding correction.
        """
        size, low = self.pad * self.box, (self.pad - 1) * self.box // 2
        inside = slice(low, low + self.box)
        out = maps.new_empty((len(maps), size, size, size // 2 + 1), dtype=maps.dtype.to_complex())
        for row, one in enumerate(maps):
            padded = maps.new_zeros((size, size, size))
            padded[inside, inside, inside] = one
            spectrum = torch.fft.rfftn(padded, norm="forward")
            out[row] = _centred(spectrum) * float(self.pad**3 * self.box)
        return out.reshape(len(maps), -1)

    def map_of(self, transform: Tensor) -> Tensor:
        """Undo `transform`; what lies outside of the box is cut off."""
        size, low = self.pad * self.box, (self.pad - 1) * self.box // 2
        inside = slice(low, low + self.box)
        maps = []
        for one in transform:
            spectrum = one.reshape(size, size, size // 2 + 1) / float(self.pad**3 * self.box)
            whole = torch.fft.irfftn(_centred(spectrum), s=(size, size, size), norm="forward")
            maps.append(whole[inside, inside, inside].clone())
        return torch.stack(maps)

    def empty(self, k: int, like: Tensor) -> Tensor:
        """Return `k` padded transforms of zeros."""
        size = self.pad * self.box
        return like.new_zeros((k, size * size * (size // 2 + 1)))

    def repaired(self, values: Tensor) -> Tensor:
        """Add in the plane x = 0 what was put at q to the conjugate at -q; `[K, n]`."""
        shaped = values.reshape(-1, *self.shape).clone()
        plane = shaped[..., 0].clone()
        flipped = plane.flip((1, 2))
        both = plane + (flipped.conj() if values.is_complex() else flipped)
        middle = self.radius + 1
        both[:, middle, middle] = plane[:, middle, middle]  # the origin is its own mirror
        shaped[..., 0] = both
        return shaped.reshape(values.shape)


def _centred(spectrum: Tensor) -> Tensor:
    """Move the phase origin to pixel N/2 of every axis: times (-1)^(jx + jy + jz)."""
    signs = [1 - 2 * (torch.arange(n, device=spectrum.device) % 2) for n in spectrum.shape[-3:]]
    return spectrum * signs[0][:, None, None] * signs[1][:, None] * signs[2]


@lru_cache(maxsize=2)
def _distance(space: Space, device: str) -> Tensor:
    z, y, x = space.axes(device)
    return torch.sqrt((x**2 + y**2 + z**2).double()).reshape(-1)
