"""What an E-step adds up over particles.

Source: refinement.md sections 1.7, 2.2, 3.1, 4.2 and 9.3.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(kw_only=True)
class Sums:
    """Sums over particles; float64, but for the images, which have the E-step's precision.

    Parameters
    ----------
    data, weight
        `[H, K, f, Q]` for H halves of the particles, complex and real, at the inner pixels of
        every fine rotation; in three dimensions `[H, K, voxels]`. float32, or float64 to check.
    classes
        Weight of each class `[K]`.
    directions
        3D: of each class and direction, `[K, D]`.
    offsets
        Weighted offsets of each class (x, y) in A, `[K, 2]`.
    offset_square
        Weighted square of the distance from the prior, A^2.
    noise
        Power of the residuals on each shell for each optics group, `[O, S]`.
    optics
        Weight of each optics group `[O]`.
    norm
        Sum of the particles' norms.
    cross, self
        Of each group of particles, for its scale, `[G]`.
    total
        Sum of all weights.
    log_likelihood, pmax
        Sums over the particles.
    """

    data: Tensor
    weight: Tensor
    classes: Tensor
    directions: Tensor
    offsets: Tensor
    offset_square: Tensor
    noise: Tensor
    optics: Tensor
    norm: Tensor
    cross: Tensor
    self: Tensor
    total: Tensor
    log_likelihood: Tensor
    pmax: Tensor
    particles: Tensor

    @classmethod
    def empty(
        cls,
        images: tuple[int, ...],
        n_directions: int,
        optics: int,
        groups: int,
        shells: int,
        like: Tensor,
    ) -> "Sums":
        """Return sums of nothing; those of images have the type of `like`, all its device.

        `images` is `[H, K, ...]`.
        """
        device, n_classes = like.device, images[1]

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(
            data=torch.zeros(images, dtype=like.dtype.to_complex(), device=device),
            weight=torch.zeros(images, dtype=like.dtype, device=device),
            classes=zeros(n_classes),
            directions=zeros(n_classes, n_directions),
            offsets=zeros(n_classes, 2),
            offset_square=zeros(1),
            noise=zeros(optics, shells),
            optics=zeros(optics),
            norm=zeros(1),
            cross=zeros(groups),
            self=zeros(groups),
            total=zeros(1),
            log_likelihood=zeros(1),
            pmax=zeros(1),
            particles=zeros(1),
        )

    def tensors(self) -> list[Tensor]:
        """Return all sums, in an order that is always the same."""
        return [getattr(self, field.name) for field in fields(type(self))]
