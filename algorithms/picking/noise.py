"""How restless a micrograph is around a place: carbon, ice crystals and gold exceed it.

Source: preprocessing.md section 4.1 (local-variance rejection).
"""

import numpy as np
import torch
from torch import Tensor

from algorithms.fourier import fast_size
from algorithms.picking.response import Level

# Blocks of this share of the diameter resolve the ring; of each, so many rows are looked at.
BLOCKS = 16
ROWS = 4


def ring_deviation(
    image: Tensor, level: Level, x_px: np.ndarray, y_px: np.ndarray, diameter_px: float
) -> np.ndarray:
    """Standard deviation `[n]` of the pixels between 0.5 and 1 x a diameter around places.

    Parameters
    ----------
    image
        Micrograph `[ny, nx]`.
    level
        Of it: the unit is its standard deviation.
    x_px, y_px
        Places `[n]`.
    diameter_px
        Of a particle.
    """
    if not len(x_px):
        return np.zeros(0)
    block = max(1, min(int(diameter_px / BLOCKS), *image.shape))
    moments = _moments(image, level, block)
    ny, nx = moments.shape[1:]
    # Padded, so that one side of the micrograph does not look at the other.
    reach = int(np.ceil(diameter_px / block))
    shape = (fast_size(ny + reach), fast_size(nx + reach))
    rows, columns = (
        torch.fft.fftfreq(n, 1 / n, device=image.device) * (block / diameter_px) for n in shape
    )
    distance = torch.sqrt(rows[:, None] ** 2 + columns[None, :] ** 2)
    ring = ((distance > 0.5) & (distance <= 1)).float()
    kernel = torch.fft.rfft2(ring)
    inside = torch.ones_like(moments[:1])
    sums = torch.fft.irfft2(
        torch.fft.rfft2(torch.cat([moments, inside]), s=shape) * kernel, s=shape
    )
    mean, square, count = sums.cpu().numpy()
    at = (
        (np.asarray(y_px) / block).astype(np.intp).clip(0, ny - 1),
        (np.asarray(x_px) / block).astype(np.intp).clip(0, nx - 1),
    )
    count = np.maximum(count[at], 0.5)
    variance = square[at] / count - (mean[at] / count) ** 2
    return np.sqrt(np.maximum(variance, 0))


def _moments(image: Tensor, level: Level, block: int) -> Tensor:
    """Block means `[2, ny // block, nx // block]` of the normalised values and their squares."""
    ny, nx = (max(1, side // block) for side in image.shape)
    step = max(1, block // ROWS)
    image = image[: ny * block, : nx * block]
    found = image.new_zeros((2, ny, nx), dtype=torch.float32)
    for first in range(0, ny, 16):
        last = min(first + 16, ny)
        rows = image[first * block : last * block].view(last - first, -1, image.shape[1])
        rows = level.normalised(rows[:, ::step])
        for target, values in zip(found, (rows, rows * rows), strict=True):
            sums = values.sum(1).view(last - first, nx, -1).mean(-1)
            target[first:last] = sums / rows.shape[1]
    return found
