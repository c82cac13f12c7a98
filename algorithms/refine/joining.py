"""What is known of particles, taken over into another table of them: a larger one, or the same.

Rows are found by the name of their image, groups and optics groups by their names. So a table may
grow, lose rows and change its order while it is classified, and each particle is there once.

Source: docs/explanation/classification.md.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import torch

from algorithms.formats.star import Table
from algorithms.refine.types import DataSet, Model, RefineError

# Columns that iterations set.
WRITTEN = (
    "rot_deg", "tilt_deg", "psi_deg", "offset_A", "classes", "norm", "log_likelihood", "pmax",
    "significant",
)  # fmt: skip
NO_CLASS = -1


class Known(NamedTuple):
    """What is known of particles.

    `keys` [n] stand for the names of their images, `columns` are those of `WRITTEN`, `optics` are
    the names of the optics groups in the order of the model's noise.
    """

    keys: np.ndarray
    columns: dict[str, np.ndarray]
    optics: list[str]


class Change(NamedTuple):
    """How many particles came, and how many are not there any more."""

    came: int
    went: int


def keys_of(rows: Table) -> np.ndarray:
    """Return a number for each particle that tells it from the others, from its image's name."""
    names = rows.strings("rlnImageName")
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), np.int64)


def known(data: DataSet, keys: np.ndarray) -> Known:
    """Return what is known of the particles of a data set."""
    columns = {name: getattr(data.particles, name) for name in WRITTEN}
    return Known(keys, columns, [group.name for group in data.optics])


def join(model: Model, before: Known, data: DataSet, keys: np.ndarray, names: list[str]) -> Change:
    """Take what is known over into a data set as it is read, and make room in the model.

    A particle that is new keeps its row's pose, has no class yet, and the norm that changes
    nothing. A new group begins with the scale 1, a new optics group with the noise of the others.

    Parameters
    ----------
    model
        Its groups, scales and noise spectra are extended.
    before
        What is known.
    data
        The particles now; changed.
    keys
        Of these particles.
    names
        Of the groups that the particles' numbers count.

    Raises
    ------
    RefineError
        The images have another size or pixel than the references, or one is there twice.
    """
    _check(model, data)
    old, is_old = _rows(before.keys, keys)
    particles = data.particles
    particles.classes[~is_old] = NO_CLASS
    particles.norm[~is_old] = model.mean_norm
    for name, values in before.columns.items():
        getattr(particles, name)[is_old] = values[old[is_old]]
    _join_groups(model, data, names)
    _join_optics(model, before.optics, data)
    return Change(int((~is_old).sum()), len(before.keys) - int(is_old.sum()))


def _rows(before: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the old row of each particle, and whether it has one."""
    if np.array_equal(before, keys):
        return np.arange(len(keys)), np.ones(len(keys), bool)
    first, counts = np.unique(keys, return_index=True, return_counts=True)[1:]
    if len(first) < len(keys):
        number = first[counts > 1][0] + 1
        raise RefineError(f"the image of particle {number} is in the table twice: remove a row")
    order = np.argsort(before)
    old = order[np.searchsorted(before[order], keys).clip(max=len(order) - 1)]
    return old, before[old] == keys


def _check(model: Model, data: DataSet) -> None:
    is_same = abs(data.pixel_A / model.pixel_A - 1.0) < 1e-4
    if data.images.box != model.box or not is_same:
        raise RefineError(
            f"the particles have {data.images.box} px of {data.pixel_A:g} A now, the classes "
            f"{model.box} px of {model.pixel_A:g} A: begin a new job"
        )


def _join_groups(model: Model, data: DataSet, names: list[str]) -> None:
    numbers = {name: number for number, name in enumerate(model.group_names)}
    new = [name for name in names if name not in numbers]
    numbers |= {name: len(numbers) + number for number, name in enumerate(new)}
    model.group_names = [*model.group_names, *new]
    model.scales = torch.cat([model.scales, torch.ones(len(new), dtype=model.scales.dtype)])
    data.particles.group = np.array([numbers[name] for name in names], np.int64)[
        data.particles.group
    ]


def _join_optics(model: Model, before: list[str], data: DataSet) -> None:
    after = [group.name for group in data.optics]
    if after == before:
        return
    rows = {name: model.noise[number] for number, name in enumerate(before)}
    mean = model.noise.mean(0)
    model.noise = torch.stack([rows.get(name, mean) for name in after])
