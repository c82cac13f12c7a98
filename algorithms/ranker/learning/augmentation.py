"""What a batch is changed by, so that a network learns what does not matter.

Source: class-ranker.md sections 5.4 and 9.4.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from algorithms.ranker.learning.recipe import Recipe


@dataclass(frozen=True)
class Gain:
    """How a factor of the grey scale changes normalised features.

    Parameters
    ----------
    follows
        Which columns it changes `[24]`.
    pivot
        Their mean / std `[24]`.
    """

    follows: Tensor
    pivot: Tensor

    def applied(self, z: Tensor, factors: Tensor) -> Tensor:
        """Return features `[n, 24]` of averages multiplied by factors `[n]`."""
        g = factors[:, None]
        return torch.where(self.follows, g * z + (g - 1.0) * self.pivot, z)


def augmented(
    images: Tensor, z: Tensor, recipe: Recipe, gain: Gain, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return changed images `[n, 1, 64, 64]` and features `[n, 24]`."""
    n = len(images)
    if recipe.gain > 1.0:
        reach = math.log(recipe.gain)
        factors = torch.exp((2.0 * torch.rand(n, generator=random) - 1.0) * reach)
        images, z = images * factors[:, None, None, None], gain.applied(z, factors)
    if recipe.turns == "quarter":
        return _quarter_turns(images, random), z
    if recipe.turns == "batch":
        angle = 2.0 * math.pi * torch.rand(1, generator=random).expand(n)
        mirrored = (torch.rand(1, generator=random) < 0.5).expand(n)
        return turned(images, angle, mirrored), z
    if recipe.turns == "any":
        angle = 2.0 * math.pi * torch.rand(n, generator=random)
        return turned(images, angle, torch.rand(n, generator=random) < 0.5), z
    return images, z


def turned(images: Tensor, angles: Tensor, mirrored: Tensor) -> Tensor:
    """Return images turned about pixel (n/2, n/2) and then mirrored, bilinear, zeros outside.

    Parameters
    ----------
    images
        `[n, 1, s, s]`.
    angles
        Radians `[n]`.
    mirrored
        Left and right exchanged `[n]`.
    """
    sign = torch.where(mirrored, -1.0, 1.0)
    cosine, sine = torch.cos(angles), torch.sin(angles)
    # In units of half the edge the origin, pixel s/2, lies at 1/s.
    origin = 1.0 / images.shape[-1]
    rows = torch.stack(
        [
            torch.stack([sign * cosine, -sine, origin * (1.0 - sign * cosine + sine)], 1),
            torch.stack([sign * sine, cosine, origin * (1.0 - sign * sine - cosine)], 1),
        ],
        dim=1,
    )
    grid = affine_grid(rows, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _quarter_turns(images: Tensor, random: torch.Generator) -> Tensor:
    """Return each image as one of its eight turns and mirrors about pixel (n/2, n/2)."""
    chosen = torch.rand(3, len(images), generator=random) < 0.5
    changes = (
        lambda one: one.transpose(2, 3),
        lambda one: one.flip(3).roll(1, 3),
        lambda one: one.flip(2).roll(1, 2),
    )
    for which, change in zip(chosen, changes, strict=True):
        images = torch.where(which[:, None, None, None], change(images), images)
    return images
