"""Where a class average is protein, and where solvent. Source: class-ranker.md 2.3 and 3."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from algorithms.ranker.resampling import GRID_A

PI = 3.14  # the program's
CORE = 0.36  # (0.6 R)^2 / R^2
RING = 0.95
WHITE = 0.05  # of the deviation of the filtered image
LEAST_CORE = 0.1  # of the core's area, for protein

_IN_PLANE = np.zeros((3, 3, 3), bool)
_IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class Circle:
    """The circle of the particle on the features' grid.

    Parameters
    ----------
    size
        Edge of the grid, px; even.
    radius
        R, px of the grid.
    """

    size: int
    radius: float

    @classmethod
    def of(cls, size: int, diameter_A: float) -> "Circle":
        """Return the circle of a mask; not wider than the box."""
        return cls(size, min(size / 2.0, diameter_A / (2.0 * GRID_A)))

    @cached_property
    def x(self) -> np.ndarray:
        """Columns from the origin, px of the grid `[1, m]`."""
        return (np.arange(self.size) - self.size // 2)[None].astype(np.float64)

    @cached_property
    def r2(self) -> np.ndarray:
        """Square of the distance from the origin `[m, m]`."""
        return self.x**2 + self.x.T**2

    @cached_property
    def disc(self) -> np.ndarray:
        """Pixels of the circle `[m, m]`."""
        return self.r2 <= self.radius**2

    @cached_property
    def core(self) -> np.ndarray:
        """Pixels of the inner 0.6 R."""
        return self.r2 <= CORE * self.radius**2

    @cached_property
    def ring(self) -> np.ndarray:
        """Pixels of the outer 5 %."""
        return self.disc & (self.r2 >= (RING * self.radius) ** 2)

    @cached_property
    def rim(self) -> np.ndarray:
        """Pixels whose distance rounds to R."""
        return np.floor(np.sqrt(self.r2) + 0.5) == np.floor(self.radius + 0.5)


@dataclass(frozen=True)
class Masks:
    """Pixels of the protein and of the solvent `[K, m, m]`; scattered signal `[K]`."""

    protein: np.ndarray
    solvent: np.ndarray
    scattered: np.ndarray


def masks_of(filtered: np.ndarray, circle: Circle) -> Masks:
    """Return the masks of images.

    Parameters
    ----------
    filtered
        Low-passed at 25 A on the features' grid, `[K, m, m]`.
    circle
        Of the particle.
    """
    threshold = WHITE * filtered.std((1, 2), keepdims=True)
    white = (filtered > threshold) & circle.disc
    labels = np.zeros(white.shape, np.int32)
    n = int(ndimage.label(white, structure=_IN_PLANE, output=labels))  # type: ignore[arg-type]
    core = np.bincount(labels[:, circle.core].ravel(), minlength=n + 1)
    large = core > LEAST_CORE * PI * CORE * circle.radius**2
    small = ~large & (core > 0)
    large[0] = small[0] = False  # what is not white
    protein = large[labels]
    p, q = protein.sum((1, 2)), small[labels].sum((1, 2))
    return Masks(protein, circle.disc & ~protein, q / (q + p + 1.0))
