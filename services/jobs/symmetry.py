"""The symmetry of an initial model: the largest class, laid along a group's axes and averaged.

What `relion_align_symmetry --select_largest_class --apply_sym` does after RELION's own run.

Source: refinement.md section 6.
"""

from dataclasses import dataclass

import torch

from algorithms.maps import symmetry_align
from algorithms.maps.selfrotation import SelfRotation
from algorithms.orientation import symmetry
from algorithms.refine import written
from algorithms.refine.types import Model

DOUBTFUL = 0.25  # correlation of the operator that fits worst


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A class and what became of it.

    Parameters
    ----------
    number
        Of the class, from 1.
    share
        Of the particles.
    volume
        `[N, N, N]` float32.
    worst
        Correlation of the map with itself after the operator that fits worst; 1 for C1.
    """

    number: int
    share: float
    volume: torch.Tensor
    worst: float

    @property
    def is_doubtful(self) -> bool:
        """Whether the map hardly has the symmetry."""
        return self.worst < DOUBTFUL


def largest_class(
    model: Model, group: str, diameter_A: float, most_A: float = 0.0, *, keep_centre: bool = False
) -> Chosen:
    """Return the class of most particles, along the axes of a group and averaged over it.

    Parameters
    ----------
    model
        After its last iteration.
    group
        Point group; C1 leaves the map as it is.
    diameter_A
        Of the particle.
    most_A
        Finest details that are compared [--maxres]; 0: the resolution of the class.
    keep_centre
        The axes go through the middle of the box already [--keep_centre].

    Raises
    ------
    SymmetryError
        There is no such group.
    """
    row = int(torch.argmax(model.fractions))
    volume, worst = model.references[row].float(), 1.0
    if symmetry.order(group) > 1:
        resolution = float(written.estimated_resolution_A(model)[row])
        map_ = SelfRotation(
            volume, model.pixel_A, max(resolution, most_A), diameter_A, with_shape=True
        )
        found = symmetry_align.aligned(volume, model.pixel_A, group, map_, keep_centre=keep_centre)
        volume, worst = found.volume, found.worst
    return Chosen(number=row + 1, share=float(model.fractions[row]), volume=volume, worst=worst)
