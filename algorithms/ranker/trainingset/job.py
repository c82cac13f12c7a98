"""One job from its setting to its record. Source: class-ranker.md section 9."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from algorithms.ranker import inputs
from algorithms.ranker.features import Features
from algorithms.ranker.inputs import Classified
from algorithms.ranker.scoring import features_of
from algorithms.ranker.trainingset import classified, labels, stacks
from algorithms.ranker.trainingset.labels import Truth
from algorithms.ranker.trainingset.matching import NONE, Matcher
from algorithms.ranker.trainingset.records import TAGS, ClassRecords
from algorithms.ranker.trainingset.settings import Setting
from algorithms.ranker.trainingset.stacks import Stack
from algorithms.refine.types import Particles


@dataclass(frozen=True, kw_only=True)
class Made:
    """A job that was made: its record, and the averages of all its classes to look at."""

    records: ClassRecords
    averages: np.ndarray


def made(setting: Setting, folder: Path) -> Iterator[Made]:
    """Simulate, classify and label; yield each look at the job, the one at the end last.

    Parameters
    ----------
    setting
        What it is made from.
    folder
        Empty; where the stack and the classification's files are written.
    """
    stack = stacks.simulated(setting)
    last = classified.looks(setting)[-1]
    table = classified.write(setting, stack, folder)
    for number, (optimiser, particles) in zip(
        classified.looks(setting), classified.classify(setting, table), strict=True
    ):
        job = inputs.read(folder, optimiser)
        found = features_of(job, "coldstream")
        seen = setting if number == last else replace(setting, job=setting.job + "e", stop=number)
        yield Made(
            records=_records(seen, stack, particles, job, found), averages=job.classes.images
        )


def _records(
    setting: Setting, stack: Stack, particles: Particles, job: Classified, found: Features
) -> ClassRecords:
    truth = truth_of(setting, stack, particles, job, found.places)
    result = labels.labelled(truth)
    rare = labels.rare_views(stack.rotation, stack.tags == TAGS.index("T"))
    members = [particles.classes == place for place in found.places]
    told = json.loads(setting.text()) | {
        "labels": labels.VERSION,
        "finest_A": truth.finest_A.tolist(),
    }
    return ClassRecords(
        job=setting.job,
        structure=setting.structure,
        family=setting.family,
        part=setting.part,
        source="simulated",
        seed=setting.seed,
        configuration=json.dumps(told, sort_keys=True),
        features=found,
        size=truth.size,
        fraction=job.classes.fractions[found.places],
        resolution_A=job.classes.resolution_A[found.places],
        y=result.y,
        label=result.label,
        w=result.w,
        job_score=result.job_score,
        true_resolution_A=truth.resolution_A,
        offset=truth.offset,
        neighbour=truth.neighbour,
        counts=truth.counts,
        rare=np.array([float(rare[one].sum()) for one in members]),
        totals=np.bincount(stack.tags, minlength=len(TAGS)).astype(np.float64),
    )


def truth_of(
    setting: Setting, stack: Stack, particles: Particles, job: Classified, places: np.ndarray
) -> Truth:
    """Return what is true of some classes of a job, `places` from 0."""
    matcher = Matcher(stack.projector, setting.box_px, setting.pixel_A, setting.mask_A)
    counts, matches, neighbour = [], [], []
    for place in places:
        mine = particles.classes == place
        counts.append(np.bincount(stack.tags[mine], minlength=len(TAGS)))
        neighbour.append(float(stack.neighbour[mine].mean()) if mine.any() else 0.0)
        shown = np.flatnonzero(mine & stack.has_target)
        # Members that the classification is sure of come first.
        shown = shown[np.argsort(-particles.pmax[shown], kind="stable")][: max(8, len(shown) // 2)]
        average = job.classes.images[place]
        psi = particles.psi_deg[shown]
        matches.append(matcher.match(average, stack.rotation[shown], psi) if len(shown) else NONE)
    size = np.array([float(sum(one)) for one in counts])
    is_early = setting.gradient and setting.stop < setting.iterations
    return Truth(
        counts=np.array(counts, np.float64).reshape(-1, len(TAGS)),
        resolution_A=np.array([one.resolution_A for one in matches]),
        finest_A=np.array([one.finest_A for one in matches]),
        offset=np.array([one.offset_px for one in matches]) / setting.diameter_px,
        neighbour=np.array(neighbour),
        size=size,
        stale=is_early & labels.is_stale(size, job.classes.fractions[places], len(stack.tags)),
    )
