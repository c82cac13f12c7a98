"""What is known of a set of class averages, and what can be wrong with it.

Source: class-ranker.md section 1.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

# Classes of so many particles or fewer are not scored.
LEAST_PARTICLES = 10.0
UNSCORED = -999.0

# "relion": every number as RELION's program makes it, for its weights. "coldstream": without its
# accidents (the remarks "do better" of the specification), for weights of our own.
Mode = Literal["relion", "coldstream"]


class RankerError(ValueError):
    """Classes or weights that cannot be used; the message names file, field and remedy."""


@dataclass(frozen=True, kw_only=True)
class ClassSet:
    """The class averages of one iteration, and what its model says of them.

    Parameters
    ----------
    images
        `[K, n, n]` float32, protein bright, row 0 at the bottom; grey scale as Class2D writes it.
    names
        rlnReferenceImage of each class, `000001@path.mrcs`.
    pixel_A
        Pixel size of the averages, A.
    diameter_A
        Of the particle mask, A.
    n_particles
        Rows in the particles' table.
    fractions
        rlnClassDistribution `[K]`.
    accuracy_deg, accuracy_A
        `[K]`, A; above 99: not known.
    resolution_A
        Estimated resolution `[K]`, A.
    remarks
        What people should be told about the input.
    """

    images: np.ndarray
    names: list[str]
    pixel_A: float
    diameter_A: float
    n_particles: int
    fractions: np.ndarray
    accuracy_deg: np.ndarray
    accuracy_A: np.ndarray
    resolution_A: np.ndarray
    remarks: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def box(self) -> int:
        """Edge of the averages, px."""
        return int(self.images.shape[-1])

    @cached_property
    def sizes(self) -> np.ndarray:
        """Particles in each class, a real number `[K]`."""
        return self.fractions * self.n_particles

    @cached_property
    def finite(self) -> np.ndarray:
        """Which averages have only finite pixels `[K]`."""
        flat = self.images.reshape(len(self.images), -1)
        return np.isfinite(flat.min(1)) & np.isfinite(flat.max(1))

    @cached_property
    def scored(self) -> np.ndarray:
        """Return the places, from 0, of the classes that get a score: large enough and usable."""
        known = [self.accuracy_deg, self.accuracy_A, self.resolution_A, self.sizes]
        usable = self.finite & np.isfinite(known).all(0) & (self.resolution_A > 0.0)
        return np.flatnonzero(usable & (self.sizes > LEAST_PARTICLES))

    def take(self, places: np.ndarray) -> "ClassSet":
        """Return some of the classes."""
        return replace(
            self,
            images=self.images[places],
            names=[self.names[place] for place in places],
            fractions=self.fractions[places],
            accuracy_deg=self.accuracy_deg[places],
            accuracy_A=self.accuracy_A[places],
            resolution_A=self.resolution_A[places],
        )
