"""From records of jobs to what the network is given. Source: class-ranker.md 5.4 and 9.5."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from algorithms.ranker.constants import Constants, constants_of, network_input
from algorithms.ranker.features import GREY, grey_free
from algorithms.ranker.learning.recipe import Recipe
from algorithms.ranker.trainingset import records
from algorithms.ranker.trainingset.labels import LEAST_SCORE
from algorithms.ranker.trainingset.records import ClassRecords
from algorithms.ranker.types import RankerError

# A person's reference selection, and that of the truth: the labels that stand for good classes.
GOOD = (1, 5)

Jobs = Sequence[ClassRecords]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the network is given for some classes, before augmentation.

    Parameters
    ----------
    images
        `[n, 64, 64]` float32.
    vectors
        Normalised, not yet clipped `[n, 24]` float32.
    y
        Target scores `[n]` float32.
    job
        Place of the job of each class `[n]`.
    constants
        By which they were normalised.
    """

    images: np.ndarray
    vectors: np.ndarray
    y: np.ndarray
    job: np.ndarray
    constants: Constants

    def __len__(self) -> int:
        return len(self.y)

    def pivot(self) -> np.ndarray:
        """Return mean / std of the columns that follow the grey scale, 0 elsewhere `[24]`.

        A gain g on the averages turns their z into g z + (g - 1) pivot.
        """
        relative = np.array(self.constants.mean) / np.array(self.constants.std)
        return np.where(self.follows_gain(), relative, 0.0).astype(np.float32)

    def follows_gain(self) -> np.ndarray:
        """Return which columns a gain changes `[24]`."""
        out = np.zeros(len(self.constants.mean), bool)
        out[sorted(set(GREY) - set(self.constants.per_job) - set(self.constants.zeroed))] = True
        return out


def load(folder: Path, parts: Sequence[str] = records.PARTS) -> dict[str, list[ClassRecords]]:
    """Return the records of a set by part, in the order of their names; jobs of no class left out.

    Raises
    ------
    RankerError
        There is none, or a file is damaged.
    """
    found: dict[str, list[ClassRecords]] = {part: [] for part in parts}
    for path in records.listing(folder):
        job = records.read(path)
        if job.part in found and len(job):
            found[job.part].append(job)
    if not any(found.values()):
        raise RankerError(f"{folder} holds no records: make some with `coldstream ranker simulate`")
    return found


def separated(jobs_of: dict[str, list[ClassRecords]]) -> None:
    """Refuse a set whose parts share a family: tests would be of what was learnt.

    "second" is of the families of "test" by intention; real jobs have no family.
    """
    families = {
        part: {job.family for job in jobs_of.get(part, ()) if job.source == "simulated"}
        for part in ("train", "validation", "test", "second")
    }
    for one, other in (
        ("train", "validation"),
        ("train", "test"),
        ("train", "second"),
        ("validation", "test"),
        ("validation", "second"),
    ):
        shared = families[one] & families[other]
        if shared:
            raise RankerError(
                f"family {min(shared)} is in the parts {one} and {other}: make the set again"
            )


def digest(jobs: Jobs) -> str:
    """Return what tells sets of jobs apart: names, targets and images, SHA-256."""
    total = hashlib.sha256()
    for job in sorted(jobs, key=lambda one: one.job):
        total.update(job.job.encode())
        for array in (job.y, job.label, job.size, job.features.images, job.features.vector()):
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def constants(jobs: Jobs, recipe: Recipe) -> Constants:
    """Return robust constants of a training split."""
    if not jobs:
        raise RankerError("there is no job to train on: the set has none of part train")
    vectors = [job.features.vector() for job in jobs]
    if recipe.grey == "job":
        vectors = [
            grey_free(job.features, vector)[1] for job, vector in zip(jobs, vectors, strict=True)
        ]
    return constants_of(np.concatenate(vectors), grey=recipe.grey, zeroed=recipe.zeroed)


def inputs(jobs: Jobs, normalised_by: Constants) -> Inputs:
    """Return the network's input for all classes that have a target."""
    free = replace(normalised_by, clip=None)
    parts = [(network_input(job.features, free), np.isfinite(job.y)) for job in jobs]
    n = len(normalised_by.mean)
    return Inputs(
        images=np.concatenate(
            [images[known] for (images, _), known in parts] or [np.zeros((0, 64, 64), np.float32)]
        ),
        vectors=np.concatenate(
            [z[known] for (_, z), known in parts] or [np.zeros((0, n), np.float32)]
        ),
        y=np.concatenate([job.y[np.isfinite(job.y)] for job in jobs] or [np.zeros(0)]).astype(
            np.float32
        ),
        job=np.repeat(np.arange(len(jobs)), [int(known.sum()) for _, known in parts]),
        constants=normalised_by,
    )


def label_rule(job: ClassRecords) -> str:
    """Return the version of the rule by which the simulator labelled a job, else its source."""
    return str(json.loads(job.configuration).get("labels", job.source))


def good(job: ClassRecords) -> np.ndarray:
    """Return which classes the reference selects `[n]`: labels 1 and 5.

    None of a job whose score is at its floor: its best class is too coarse for any use, and the
    targets of all its classes are next to 0.
    """
    return np.isin(job.label, GOOD) & (not job.job_score <= LEAST_SCORE)
