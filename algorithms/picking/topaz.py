"""What Topaz is given: micrographs scaled down by a whole factor, with mean 0 and deviation 1.

The same as `topaz preprocess --affine` makes, without Topaz.
Source: preprocessing.md section 4.2.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms import fourier

# Receptive field, px, of the smallest of Topaz's networks.
FIELD_PX = 71
LEAST_FACTOR = 4


@dataclass(frozen=True, kw_only=True)
class TopazSizes:
    """How Topaz sees a particle.

    Parameters
    ----------
    factor
        By which micrographs are scaled down.
    pick_radius_px, train_radius_px
        Of the small micrographs.
    """

    factor: int
    pick_radius_px: int
    train_radius_px: int


def topaz_sizes(pixel_size_A: float, diameter_A: float) -> TopazSizes:
    """Return the scale and radii that follow from the particle diameter.

    Raises
    ------
    ValueError
        Arguments that are not positive.
    """
    if not (pixel_size_A > 0 and diameter_A > 0):
        raise ValueError(f"pixel {pixel_size_A} A and diameter {diameter_A} A: both above 0")
    factor = max(LEAST_FACTOR, round(2 * diameter_A / (FIELD_PX * pixel_size_A)))
    small_A = pixel_size_A * factor
    return TopazSizes(
        factor=factor,
        pick_radius_px=max(1, round(diameter_A / (2 * small_A))),
        train_radius_px=max(1, round(diameter_A / (8 * small_A))),
    )


def preprocess(
    image: np.ndarray | Tensor, factor: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Return a micrograph `[ny // factor, nx // factor]` with mean 0 and deviation 1.

    Parameters
    ----------
    image
        `[ny, nx]`.
    factor
        Whole number from 1 on.
    device
        Where to compute.

    Raises
    ------
    ValueError
        Not two-dimensional, constant, with values that are not finite, or smaller than `factor`.
    """
    tensor = torch.as_tensor(image, device=device).to(torch.float32)
    if tensor.ndim != 2 or factor < 1 or min(tensor.shape) < 2 * factor:
        raise ValueError(f"an image of shape {tuple(tensor.shape)} cannot be scaled by {factor}")
    ny, nx = int(tensor.shape[0]), int(tensor.shape[1])
    small = fourier.resample(tensor, (ny // factor, nx // factor))
    deviation, mean = torch.std_mean(small.double(), correction=0)
    if not bool(deviation > 0):
        raise ValueError("the image is constant, or holds values that are not finite")
    return ((small.double() - mean) / deviation).float()
