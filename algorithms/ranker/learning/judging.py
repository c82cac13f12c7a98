"""A run judged on held-out jobs, against baselines and bars. Source: class-ranker.md 9.6."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from algorithms.ranker import weights
from algorithms.ranker.constants import network_input
from algorithms.ranker.learning import baselines, data, evaluation
from algorithms.ranker.learning.campaign import ABLATIONS, MODEL, JobsOf
from algorithms.ranker.learning.thresholds import Scorer, Thresholds, choose
from algorithms.ranker.learning.training import predicted
from algorithms.ranker.network import Head
from algorithms.ranker.trainingset.records import ClassRecords
from algorithms.ranker.types import RankerError
from algorithms.ranker.weights import Weights

PARTS = ("test", "second", "real")
GREY = (0.5, 2.0)
# The bars: of the error, of both rates in the mean and of each job, of a change by grey scale.
MSE, RATE, WORST, MOVES, RHO, SECOND = 0.02, 0.15, 0.25, 0.1, 0.8, 1.5
# Fewer test jobs with good classes prove nothing, whatever their figures.
LEAST_JOBS = 20


def scorer(of: Weights) -> Scorer:
    """Return the scores of weights as they are used, in numpy."""
    return lambda job: of.network(*network_input(job.features, of.constants)).astype(np.float64)


def judged(jobs_of: JobsOf, folder: Path) -> dict[str, Any]:
    """Return all figures of a run.

    Parameters
    ----------
    jobs_of
        The set by part; thresholds are chosen on its validation jobs.
    folder
        Of the run.
    """
    data.separated(jobs_of)
    used = weights.read(folder / MODEL)
    model, validation = scorer(used), jobs_of["validation"]
    thresholds = choose(model, validation)
    parts = {part: jobs_of[part] for part in PARTS if jobs_of.get(part)}
    if not parts:
        raise RankerError("the set has no jobs of the parts test, second or real")
    found = {part: evaluation.evaluated(model, jobs, thresholds) for part, jobs in parts.items()}
    rivals = _rivals(jobs_of, folder, used)
    rival_rows = {name: _rival(rival, validation, parts) for name, rival in rivals.items()}
    grey = {
        part: {f"{f:g}": evaluation.grey_scale(model, jobs, f) for f in GREY}
        for part, jobs in parts.items()
    }
    result = {
        "weights": used.digest,
        "thresholds": asdict(thresholds),
        "validation": evaluation.brief(model, validation, thresholds),
        "parts": found,
        "baselines": rival_rows,
        "grey_scale": grey,
        "cpu_s_per_100": _speed(model, [job for jobs in parts.values() for job in jobs]),
        "real_order": {job.job: _order(model(job), job) for job in parts.get("real", ())},
    }
    return result | {"bars": bars(result)}


def bars(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each bar: whether it is met, the figure and the limit; None where it is not known."""
    parts = {name: part["summary"] for name, part in result["parts"].items()}
    test, second = parts.get("test", {}), parts.get("second", {})

    def value(part: Mapping[str, Any], name: str) -> float:
        found = part.get(name, math.nan)
        return found["value"] if isinstance(found, Mapping) else found

    beaten = [
        value(parts[part], "mse") < value(row[part], "mse")
        for row in result["baselines"].values()
        for part in ("test", "second")
        if part in row and part in parts
    ]
    moves = max((m for part in result["grey_scale"].values() for m in part.values()), default=0.0)
    out = {
        "mse on test": (value(test, "mse"), MSE),
        "fpr in the mean": (value(test, "fpr"), RATE),
        "fnr in the mean": (value(test, "fnr"), RATE),
        "fpr of the worst job": (test.get("worst_fpr", math.nan), WORST),
        "fnr of the worst job": (test.get("worst_fnr", math.nan), WORST),
        "1 - rho on test": (1.0 - value(test, "rho"), 1.0 - RHO),
        "mse of part second over test": (value(second, "mse") / value(test, "mse"), SECOND),
        "share of baselines not beaten": (
            1.0 - float(np.mean(beaten)) if beaten else math.nan,
            0.0,
        ),
        "largest change by grey scale": (moves, MOVES),
        f"test jobs short of {LEAST_JOBS}": (
            float(max(0, LEAST_JOBS - test.get("judged", 0))),
            0.0,
        ),
    }
    return _met(out | _real_bars(result))


def _real_bars(result: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    out = {}
    for name, order in result["real_order"].items():
        out[f"{name}: good classes not above all others"] = (order["inverted"], 0.0)
        out[f"{name}: fnr"] = (_row(result, name)["fnr"], WORST)
    return out


def _met(bars: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "value": figure,
            "limit": limit,
            "met": bool(figure <= limit + 1e-12) if math.isfinite(figure) else None,
        }
        for name, (figure, limit) in bars.items()
    }


def is_met(found: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether all bars are met."""
    return all(bar["met"] is True for bar in found.values())


def _speed(model: Scorer, jobs: Sequence[ClassRecords]) -> float:
    """Return processor time of a hundred classes, features known."""
    started = time.process_time()
    classes = sum(len(model(job)) for job in jobs)
    return 100.0 * (time.process_time() - started) / max(1, classes)


def _row(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return next(row for row in result["parts"]["real"]["jobs"] if row["job"] == name)


def _order(scores: np.ndarray, job: ClassRecords) -> dict[str, Any]:
    """Return how many good classes a class that is not good stands above, and the scores."""
    reference = data.good(job)
    highest = scores[~reference].max(initial=-math.inf)
    return {
        "inverted": float((scores[reference] <= highest).sum()),
        "scores": {
            str(int(place) + 1): round(float(score), 4)
            for place, score in zip(job.features.places, scores, strict=True)
        },
        "good": [int(place) + 1 for place in job.features.places[reference]],
    }


def _rivals(jobs_of: JobsOf, folder: Path, used: Weights) -> dict[str, Scorer]:
    train = jobs_of["train"]
    if not train:
        return {}
    out = {
        "constant": baselines.constant(train),
        "class size": baselines.class_size(train),
        "distribution / resolution": baselines.distribution_over_resolution(train),
        "ridge on features": baselines.ridge(train, jobs_of["validation"], used.constants),
    }
    for head, name in ABLATIONS.items():
        if (folder / name).exists():
            out[f"{head} only"] = _headed(weights.read(folder / name), head)
    return out


def _headed(of: Weights, head: Head) -> Scorer:
    def scores(job: ClassRecords) -> np.ndarray:
        # Classes without a target are to be scored, too.
        images, z = network_input(job.features, of.constants)
        n = len(images)
        given = data.Inputs(
            images=images,
            vectors=z,
            y=np.zeros(n, np.float32),
            job=np.zeros(n, int),
            constants=of.constants,
        )
        return predicted(of.arrays, given, head)

    return scores


def _rival(
    rival: Scorer, validation: Sequence[ClassRecords], parts: Mapping[str, list[ClassRecords]]
) -> dict[str, Any]:
    thresholds: Thresholds = choose(rival, validation)
    return {
        "threshold": thresholds.default,
        **{part: evaluation.brief(rival, jobs, thresholds) for part, jobs in parts.items()},
    }
