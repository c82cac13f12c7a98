"""Which pixels of an image's transform take part, and on which shell each lies.

The forward transform of an N x N image is divided by N^2 and has its phase origin at pixel N/2.
Of the half plane jx = 0 .. N/2 the redundant half of column jx = 0 is left out, so every pixel
counts once; a sum over the whole plane is twice a sum over a disc, but for the origin.

Source: refinement.md section 1.2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Pixels exactly on the circle are in, whatever rounding makes of their radius after a rotation.
EDGE = 1e-4


@dataclass(frozen=True)
class Disc:
    """Pixels up to a shell, the origin first.

    Parameters
    ----------
    box
        N, px.
    size
        Edge of the window that is kept, even; shells up to size / 2.
    jx, jy
        Signed indices, int64 `[P]`.
    shell
        round(|j|), int64 `[P]`.
    flat
        Index into a flattened half spectrum `[N, N/2+1]`.
    """

    box: int
    size: int
    jx: Tensor
    jy: Tensor
    shell: Tensor
    flat: Tensor

    @property
    def n(self) -> int:
        """Number of pixels."""
        return int(self.jx.numel())

    @property
    def shells(self) -> int:
        """Number of shells, the origin's included."""
        return self.size // 2 + 1

    def sums(self, values: Tensor) -> Tensor:
        """Sum `[..., P]` over the pixels of each shell: `[..., shells]`."""
        return self.sums_to(values, self.shells)

    def sums_to(self, values: Tensor, shells: int) -> Tensor:
        """Do as `sums` for a given number of shells."""
        out = values.new_zeros((*values.shape[:-1], shells))
        return out.index_add_(-1, self.shell, values)

    def inner(self) -> "Disc":
        """Return the pixels within the circle of radius size / 2, where references have values."""
        return self.take(self.jx**2 + self.jy**2 <= (self.size / 2) ** 2 + EDGE)

    def take(self, mask: Tensor) -> "Disc":
        """Return some of the pixels."""
        return Disc(
            self.box, self.size, self.jx[mask], self.jy[mask], self.shell[mask], self.flat[mask]
        )

    def to(self, device: torch.device | str) -> "Disc":
        """Return the disc on a device."""
        parts = (part.to(device) for part in (self.jx, self.jy, self.shell, self.flat))
        return Disc(self.box, self.size, *parts)


def disc(box: int, size: int) -> Disc:
    """Return the pixels of a window of `size` in the transform of a `box` x `box` image.

    Parameters
    ----------
    box, size
        Even, px; size <= box.
    """
    half = size // 2
    jy, jx = torch.meshgrid(
        torch.arange(-half + 1, half + 1), torch.arange(0, half + 1), indexing="ij"
    )
    jx, jy = jx.reshape(-1), jy.reshape(-1)
    shell = torch.round(torch.sqrt((jx**2 + jy**2).double())).long()
    keep = (shell <= half) & ~((jx == 0) & (jy < 0))
    order = torch.argsort(shell[keep], stable=True)
    jx, jy, shell = jx[keep][order], jy[keep][order], shell[keep][order]
    return Disc(box, size, jx, jy, shell, torch.remainder(jy, box) * (box // 2 + 1) + jx)


def shell_counts(box: int) -> Tensor:
    """Return how many pixels of the half plane each shell 0 .. N/2 has: float64 `[N/2+1]`."""
    whole = disc(box, box)
    return whole.sums(torch.ones(whole.n, dtype=torch.float64))


def to_fourier(images: Tensor) -> Tensor:
    """Transform images `[..., N, N]`, origin at pixel N/2; spectra `[..., N*(N/2+1)]` are flat."""
    box = images.shape[-1]
    spectra = torch.fft.rfft2(images, norm="forward") * _signs(box, images)
    return spectra.reshape(*images.shape[:-2], -1)


def from_fourier(spectra: Tensor, box: int) -> Tensor:
    """Undo `to_fourier`."""
    shaped = spectra.reshape(*spectra.shape[:-1], box, box // 2 + 1)
    real = shaped.real
    return torch.fft.irfft2(shaped * _signs(box, real), s=(box, box), norm="forward")


def _signs(box: int, like: Tensor) -> Tensor:
    """Moves the phase origin to pixel N/2: (-1)^(jx + jy) `[N, N/2+1]`."""
    y = torch.arange(box, device=like.device)[:, None]
    x = torch.arange(box // 2 + 1, device=like.device)[None, :]
    return (1 - 2 * ((x + y) % 2)).to(like.dtype)


def distances(box: int, device: torch.device | str = "cpu", dim: int = 2) -> Tensor:
    """Return the distance of each pixel from the origin at pixel N/2: float64 `[N, N]` or in 3D."""
    axis = torch.arange(box, device=device, dtype=torch.float64) - box // 2
    square = axis[:, None] ** 2 + axis[None, :] ** 2
    if dim == 3:
        square = axis[:, None, None] ** 2 + square
    return torch.sqrt(square)
