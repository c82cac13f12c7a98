"""A run: the network, its ablations and its learning curve, from the training jobs of a set.

Everything lies in one folder; a run that was killed goes on where it was. Only training and
validation jobs are looked at. Source: class-ranker.md sections 5.4, 9.4 and 9.5.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from algorithms.formats.atomic import atomic_write
from algorithms.ranker import weights
from algorithms.ranker.learning import data
from algorithms.ranker.learning.recipe import Recipe
from algorithms.ranker.learning.training import Trained, predicted, train
from algorithms.ranker.network import Head
from algorithms.ranker.trainingset.records import ClassRecords
from algorithms.ranker.types import RankerError

MODEL, TRAINING = "model.safetensors", "training.json"
ABLATIONS: dict[Head, str] = {"images": "images.safetensors", "features": "features.safetensors"}
CURVE = (0.25, 0.5)
# A smaller set is gone through more often, so that it is not the steps that lack.
_MOST_REPEATS = 2

JobsOf = dict[str, list[ClassRecords]]
# What is trained, epoch, epochs, errors.
Told = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run trains.

    Parameters
    ----------
    recipe
        Of the model.
    ablations
        Networks that look at images only and at features only.
    curve
        Networks from 25 and 50 % of the training jobs.
    """

    recipe: Recipe
    ablations: bool = True
    curve: bool = True


def run(jobs_of: JobsOf, plan: Plan, folder: Path, told: Told = lambda *_: None) -> dict[str, Any]:
    """Train all that a plan asks for and return what `training.json` then holds.

    Parameters
    ----------
    jobs_of
        The set by part.
    plan
        What to train.
    folder
        For the results; made when missing.
    told
        Called after each epoch.
    """
    data.separated(jobs_of)
    recipe, train_jobs = plan.recipe, jobs_of["train"]
    if not (train_jobs and jobs_of["validation"]):
        raise RankerError("the set needs jobs of part train and of part validation")
    folder.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    about = {
        "recipe": asdict(recipe),
        "splits": splits(jobs_of),
        "training_set": training_set(jobs_of),
    }
    made = _Made(jobs_of, folder, about, told)
    main = made.model(MODEL, recipe, train_jobs)
    about |= {
        "history": main.history,
        "epoch": main.epoch,
        "validation": made.error(main, recipe, train_jobs),
    }
    if plan.ablations:
        about["ablations"] = {
            head: made.validated(name, replace(recipe, head=head), train_jobs)
            for head, name in ABLATIONS.items()
        }
    if plan.curve:
        about["curve"] = [*_curve(made, recipe, train_jobs), _point(train_jobs, about)]
    about["cpu_s"] = round(time.process_time() - started, 1)
    atomic_write(folder / TRAINING, json.dumps(about, indent=1))
    return about


def splits(jobs_of: JobsOf) -> dict[str, Any]:
    """Return the jobs and families of each part; what a later training is held to."""
    return {
        part: {
            "jobs": [job.job for job in jobs],
            "families": sorted({job.family for job in jobs}),
            "classes": sum(len(job) for job in jobs),
        }
        for part, jobs in jobs_of.items()
        if jobs
    }


def training_set(jobs_of: JobsOf) -> dict[str, Any]:
    """Return what tells the set apart."""
    everything = [job for jobs in jobs_of.values() for job in jobs]
    return {
        "sha256": {part: data.digest(jobs) for part, jobs in jobs_of.items() if jobs},
        "jobs": len(everything),
        "classes": sum(len(job) for job in everything),
        "structures": len({job.structure for job in everything}),
        "sources": sorted({job.source for job in everything}),
        "label_rules": sorted({data.label_rule(job) for job in everything}),
    }


class _Made:
    """Trains networks into a folder."""

    def __init__(self, jobs_of: JobsOf, folder: Path, about: dict[str, Any], told: Told):
        self._validation_jobs, self._folder = jobs_of["validation"], folder
        self._about, self._told = about, told

    def model(self, name: str, recipe: Recipe, jobs: list[ClassRecords]) -> Trained:
        """Train one network and write it as a file of weights."""
        constants = data.constants(jobs, recipe)
        title = name.partition(".")[0]
        trained = train(
            data.inputs(jobs, constants),
            recipe,
            data.inputs(self._validation_jobs, constants),
            state=self._folder / f".{title}.state",
            told=lambda *entry: self._told(title, *entry),
        )
        card = provisional(self._about)
        weights.write(self._folder / name, trained.arrays, constants, card)
        return trained

    def error(self, trained: Trained, recipe: Recipe, jobs: list[ClassRecords]) -> float:
        """Return the error on validation jobs."""
        held = data.inputs(self._validation_jobs, data.constants(jobs, recipe))
        scores = predicted(trained.arrays, held, recipe.head)
        return float(((scores - held.y) ** 2).mean())

    def validated(self, name: str, recipe: Recipe, jobs: list[ClassRecords]) -> float:
        """Train one network and return its error on validation jobs."""
        return self.error(self.model(name, recipe, jobs), recipe, jobs)


def provisional(about: dict[str, Any]) -> dict[str, Any]:
    """Return the card of weights that nobody has judged yet."""
    return {
        "training_set": about["training_set"],
        "label_rule": "see export",
        "splits": about["splits"],
        "metrics": {},
        "limits": "not evaluated: run `coldstream ranker evaluate` and `export`",
        "licence": "CC0-1.0",
        "status": "experimental",
    }


def _curve(made: _Made, recipe: Recipe, jobs: list[ClassRecords]) -> list[dict[str, float]]:
    order = np.random.default_rng(recipe.seed).permutation(len(jobs))
    points = []
    for share in CURVE:
        chosen = [jobs[place] for place in sorted(order[: max(1, round(share * len(jobs)))])]
        repeats = min(_MOST_REPEATS, 1.0 / share)
        longer = replace(recipe, epochs=max(1, round(recipe.epochs * repeats)))
        error = made.validated(f"curve{round(100 * share)}.safetensors", longer, chosen)
        points.append(_point(chosen, {"validation": error}))
    return points


def _point(jobs: list[ClassRecords], about: dict[str, Any]) -> dict[str, float]:
    return {
        "jobs": len(jobs),
        "classes": sum(len(job) for job in jobs),
        "validation": about["validation"],
    }
