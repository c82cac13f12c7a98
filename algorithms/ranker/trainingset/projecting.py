"""Projections of molecules: slices of their transforms, many at once.

A molecule is put on a grid, transformed once with a margin, and read along planes; images are
larger than particles' boxes, so that what a shift or the CTF moves out does not come back.

Source: refinement.md sections 1.2 to 1.4; simulation.md section 3 (displaced ice).
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from algorithms.fourier import fast_size
from algorithms.ranker.trainingset.molecules import Molecule

_BLUR_A2 = 60.0  # B of the points
# What a point displaces: exp(-pi v^(2/3) q^2), and how dense it is beside protein.
_ICE, _HOLE_A2 = 0.6, 53.0
_BATCH = 192
_SPLAT = 2  # points are put on a grid so much finer


class Projector:
    """Takes projections of one molecule.

    Parameters
    ----------
    molecule
        What is seen; what reaches beyond the cube is cut off.
    box_px
        Side of the cube; even.
    pixel_A
        Of the projections.
    """

    def __init__(self, molecule: Molecule, box_px: int, pixel_A: float):
        volume = _density(molecule, box_px, pixel_A)
        size = fast_size(2 * box_px)
        centred = torch.zeros((size, size, size))
        low = size // 2 - box_px // 2
        part = slice(low, low + box_px)
        axis = (torch.arange(box_px) - box_px // 2) / size
        r = torch.sqrt(
            axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
        )
        centred[part, part, part] = volume / torch.sinc(r) ** 2
        whole = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(centred)))
        self._volume = torch.stack([whole.real, whole.imag])[None].contiguous()
        self._size = size

    def slices(self, rotations: np.ndarray, canvas: int) -> Tensor:
        """Return transforms of projections, `[n, canvas * (canvas / 2 + 1)]` complex64.

        The phase origin is at pixel 0; the inverse transform without a factor on the forward side
        (`irfft2`, norm "forward") gives sums of density along the beam.

        Parameters
        ----------
        rotations
            `[n, 3, 3]`: a point at r is seen at (A r)_x, (A r)_y.
        canvas
            Side of the projections, px; even.
        """
        x, y, inside = _plane(canvas)
        out = torch.zeros((len(rotations), x.numel()), dtype=torch.complex64)
        flat = torch.stack([x[inside], y[inside]], 1) * (self._size / canvas)
        for start in range(0, len(rotations), _BATCH):
            turned = torch.as_tensor(rotations[start : start + _BATCH], dtype=torch.float32)
            points = torch.einsum("pj,njk->npk", flat, turned[:, :2])
            # grid_sample: -1 and 1 are the first and the last voxel, order x, y, z.
            grid = (points + self._size // 2) * (2.0 / (self._size - 1)) - 1.0
            found = torch.nn.functional.grid_sample(
                self._volume, grid[None, None], mode="bilinear", align_corners=True
            )[0, :, 0]
            out[start : start + _BATCH, inside] = torch.complex(found[0], found[1])
        return out / float(canvas**2)


@lru_cache(maxsize=8)
def _plane(canvas: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return signed (x, y) of a half spectrum and which lie within Nyquist, flattened."""
    y = torch.fft.fftfreq(canvas, 1.0 / canvas)
    x = torch.arange(canvas // 2 + 1, dtype=torch.float32)
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    xx, yy = xx.reshape(-1), yy.reshape(-1)
    inside = (xx * xx + yy * yy <= (canvas / 2 - 1) ** 2).nonzero()[:, 0]
    return xx, yy, inside


def _density(molecule: Molecule, box: int, pixel_A: float) -> Tensor:
    """Return the density `[z, y, x]` on a cube, its origin at voxel box // 2."""
    fine = box * _SPLAT
    at = molecule.points_A * (_SPLAT / pixel_A) + fine // 2
    low = np.floor(at).astype(np.int64)
    part = at - low
    keep = ((low >= 0) & (low < fine - 1)).all(1)
    low, part, weights = low[keep], part[keep], molecule.weights[keep]
    grid = np.zeros(fine**3)
    for corner in range(8):
        bits = np.array([corner & 1, corner >> 1 & 1, corner >> 2 & 1])
        share = np.where(bits, part, 1.0 - part).prod(1) * weights
        x, y, z = (low + bits).T
        grid += np.bincount((z * fine + y) * fine + x, share, minlength=fine**3)
    spectrum = torch.fft.rfftn(torch.from_numpy(grid.reshape(fine, fine, fine)).float())
    half = box // 2
    rows = torch.cat([torch.arange(half), torch.arange(fine - half, fine)])
    spectrum = spectrum[rows][:, rows][:, :, : half + 1]
    q = torch.fft.fftfreq(box, pixel_A)
    qx = torch.arange(half + 1) / (box * pixel_A)
    q2 = q[:, None, None] ** 2 + q[None, :, None] ** 2 + qx**2
    blur = torch.exp(-0.25 * _BLUR_A2 * q2) - _ICE * torch.exp(-_HOLE_A2 * q2)
    blur = blur * (q2 < (0.5 / pixel_A) ** 2)
    return torch.fft.irfftn(spectrum * blur, s=(box, box, box))


def image_of(spectra: Tensor, canvas: int) -> Tensor:
    """Return images `[n, canvas, canvas]` of flat spectra; their origin is at pixel canvas // 2."""
    shaped = spectra.reshape(-1, canvas, canvas // 2 + 1)
    images = torch.fft.irfft2(shaped, s=(canvas, canvas), norm="forward")
    return torch.fft.fftshift(images, dim=(-2, -1))


def shift_phases(canvas: int, shifts_px: np.ndarray) -> Tensor:
    """Return what moves images by (x, y) px, `[n, canvas * (canvas / 2 + 1)]` complex64."""
    x, y, _ = _plane(canvas)
    moved = torch.as_tensor(shifts_px, dtype=torch.float32) * (-2.0 * math.pi / canvas)
    angle = moved[:, :1] * x + moved[:, 1:] * y
    return torch.polar(torch.ones_like(angle), angle)


def rotated_in_plane(rotations: np.ndarray, psi_deg: np.ndarray) -> np.ndarray:
    """Return rotations whose images are turned by psi, refinement.md's sense.

    The slice turned by psi has at j what the other has at A(psi)^T j.
    """
    psi = np.radians(np.broadcast_to(psi_deg, (len(rotations),)))
    c, s, z = np.cos(psi), np.sin(psi), np.zeros(len(psi))
    turn = np.array([[c, s, z], [-s, c, z], [z, z, z + 1.0]]).transpose(2, 0, 1)
    return turn @ rotations
