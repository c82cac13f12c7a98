"""After a selection: averages with their mass in the middle, and particles in other groups.

The original refuses both together with automatic selection; its interactive one has them.
Source: class-ranker.md section 6 (recentring and regrouping).
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from algorithms.formats.star import StarError, Table
from algorithms.ranker.types import RankerError

LEAST_IN_GROUP = 10


def recentred(images: np.ndarray) -> np.ndarray:
    """Return averages moved so that the centre of mass of their positive pixels is the origin.

    Pixels between are linear; what leaves on one side comes in on the other. Particle origins do
    not change.

    Parameters
    ----------
    images
        `[k, n, n]`; the origin is pixel n // 2.
    """
    moved = images.copy()
    axis = np.arange(images.shape[-1]) - images.shape[-1] // 2
    for place, image in enumerate(images):
        mass = np.maximum(np.nan_to_num(image.astype(np.float64)), 0.0)
        total = mass.sum()
        if total > 0.0:
            shift = [-(mass.sum(other) @ axis) / total for other in (1, 0)]
            moved[place] = ndimage.shift(image, shift, order=1, mode="grid-wrap")
    return moved


def regrouped(particles: Table, n_groups: int) -> Table:
    """Return particles in about `n_groups` groups of neighbours in intensity scale.

    Parameters
    ----------
    particles
        Rows of a data table; old groups are told apart by rlnGroupNumber, rlnGroupName or
        rlnMicrographName, what it has of these.
    n_groups
        How many groups are wanted in all.

    Raises
    ------
    RankerError
        Groups would have fewer than 10 particles, or the rows tell no groups.
    """
    n = len(particles)
    size = n // max(1, n_groups)
    if n_groups < 1 or size < LEAST_IN_GROUP:
        raise RankerError(
            f"nr_groups {n_groups} of {n} particles makes groups of {size}: at least "
            f"{LEAST_IN_GROUP} are needed; ask for fewer groups"
        )
    new = _assigned(*_old_groups(particles), size)
    width = max(3, len(str(max(new, default=0))))
    columns = {k: v for k, v in particles.columns.items() if k != "rlnGroupNumber"}
    columns["rlnGroupName"] = [f"group_{number:0{width}d}" for number in new]
    return Table(columns)


def _old_groups(particles: Table) -> tuple[list[tuple[int, str]], np.ndarray]:
    """Return (optics group, old group) and scale of each row."""
    labels = ("rlnGroupNumber", "rlnGroupName", "rlnMicrographName")
    label = next((one for one in labels if one in particles.columns), None)
    if label is None:
        raise RankerError(f"the particles cannot be regrouped: they have none of {labels}")
    n = len(particles)
    try:
        optics = (
            particles.ints("rlnOpticsGroup") if "rlnOpticsGroup" in particles.columns else [1] * n
        )
        scale = np.ones(n)
        if "rlnGroupScaleCorrection" in particles.columns:
            scale = particles.floats("rlnGroupScaleCorrection")
    except StarError as error:
        raise RankerError(f"the particles cannot be regrouped: {error}") from error
    names = particles.strings(label)
    return [(int(o), name) for o, name in zip(optics, names, strict=True)], scale


def _assigned(old: Sequence[tuple[int, str]], scale: np.ndarray, size: int) -> list[int]:
    """Return the new group, from 1, of each row.

    When the running total exceeds the size, the old group that made it so is the first of the next
    new one, and the total starts at 0.
    """
    rows: dict[tuple[int, str], list[int]] = {}
    for row, group in enumerate(old):
        rows.setdefault(group, []).append(row)
    scales = {group: float(scale[members].mean()) for group, members in rows.items()}
    new, number, total, last = [0] * len(old), 0, 0, None
    for group in sorted(rows, key=lambda one: (one[0], scales[one], rows[one][0])):
        total += len(rows[group])
        if group[0] != last:
            number, total, last = number + 1, len(rows[group]), group[0]
        elif total > size:
            number, total = number + 1, 0
        for row in rows[group]:
            new[row] = number
    return new
