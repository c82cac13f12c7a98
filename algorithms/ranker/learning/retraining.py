"""Training that goes on with a facility's own decisions, and the guard before it is accepted.

Source: class-ranker.md sections 9.4 and 9.5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from algorithms.ranker.learning import data, evaluation
from algorithms.ranker.learning.judging import scorer
from algorithms.ranker.learning.recipe import OURS, Recipe
from algorithms.ranker.learning.thresholds import Scorer, Thresholds
from algorithms.ranker.learning.training import Told, train
from algorithms.ranker.trainingset.records import ClassRecords
from algorithms.ranker.types import RankerError
from algorithms.ranker.weights import Weights, dumps, loads

# Short and gentle: it starts from weights that know most already.
RECIPE = replace(OURS, epochs=8, rate=1e-4, keeps_best=False)
# Own jobs make up at least this share of the classes seen, repeated at most so often.
SHARE, MOST_REPEATS = 0.2, 8
# The jobs of every so manieth own session are held out, to tell whether it helped; none of fewer
# sessions than twice that. Jobs of one session show the same sample.
HELD_OUT = 5
# "Not worse": the error by at most this share of it, the rates by at most so much.
ERROR_SHARE, RATE = 0.02, 0.01


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a retraining gave.

    Parameters
    ----------
    accepted
        Whether it is not worse on the frozen test list.
    content
        The new weights' file.
    figures
        Before and after: on the test list, and on own jobs held out.
    reasons
        What speaks against it.
    """

    accepted: bool
    content: bytes
    figures: dict[str, dict[str, float]]
    reasons: list[str]


def retrain(
    base: Weights,
    jobs_of: dict[str, list[ClassRecords]],
    own: Sequence[ClassRecords],
    *,
    recipe: Recipe = RECIPE,
    state: Path | None = None,
    told: Told | None = None,
) -> Outcome:
    """Train weights further with own jobs among those of the set.

    Parameters
    ----------
    base
        The weights to start from; theirs are constants, thresholds and test list.
    jobs_of
        The set by part; its test jobs must be those that the weights were released with.
    own
        Jobs with a facility's decisions as targets.
    recipe
        Of the training.
    state, told
        See `training.train`.
    """
    test = _frozen_test(base, jobs_of)
    own = [job for job in own if np.isfinite(job.y).any()]
    if not own:
        raise RankerError("no own job has a class with a target: decide on some classes first")
    held, learnt = held_out(own)
    mixed = [*jobs_of["train"], *_repeated(learnt, jobs_of["train"])]
    recipe = replace(recipe, width=base.arrays["cnn_layers.0.weight"].shape[0])
    trained = train(
        data.inputs(mixed, base.constants), recipe, start=base.arrays, state=state, told=told
    )
    card = dict(base.card) | {
        "retrained": {
            "from": base.digest,
            "own_jobs": len(learnt),
            "own_classes": sum(len(job) for job in learnt),
            "recipe": asdict(recipe),
        }
    }
    content = dumps(trained.arrays, base.constants, card)
    new = loads(content, "new weights")
    figures = {
        f"{part}, {when}": _figures(scorer(of), jobs, thresholds_of(base.card))
        for part, jobs in (("test", test), ("own, held out", held))
        for when, of in (("before", base), ("after", new))
        if jobs
    }
    reasons = worse(figures["test, before"], figures["test, after"])
    return Outcome(accepted=not reasons, content=content, figures=figures, reasons=reasons)


def held_out(
    own: Sequence[ClassRecords],
) -> tuple[list[ClassRecords], list[ClassRecords]]:
    """Return own jobs that are held out, and the others; a family is never in both."""
    families = list(dict.fromkeys(job.family for job in own))
    chosen = set(families[::HELD_OUT]) if len(families) >= 2 * HELD_OUT else set()
    return (
        [job for job in own if job.family in chosen],
        [job for job in own if job.family not in chosen],
    )


def worse(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """Return in what the figures after are worse than those before; nothing when in none."""
    limits = {
        "mse": before["mse"] * (1.0 + ERROR_SHARE),
        "fpr": before["fpr"] + RATE,
        "fnr": before["fnr"] + RATE,
    }
    return [
        f"{name} {after[name]:.4f} instead of {before[name]:.4f}, at most {limit:.4f}"
        for name, limit in limits.items()
        if not after[name] <= limit
    ]


def thresholds_of(card: Mapping[str, Any]) -> Thresholds:
    """Return the thresholds that a card names.

    Raises
    ------
    RankerError
        It names none.
    """
    try:
        return Thresholds(
            **{one.name: float(card["thresholds"][one.name]) for one in fields(Thresholds)}
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RankerError(
            "the card of the weights has no thresholds: evaluate and export them first"
        ) from error


def _frozen_test(base: Weights, jobs_of: dict[str, list[ClassRecords]]) -> list[ClassRecords]:
    """Return the test jobs; refuse others than those that the weights were released with."""
    try:
        wanted = list(base.card["splits"]["test"]["jobs"])
    except (KeyError, TypeError) as error:
        raise RankerError(
            f"the card of {base.source} has no list of test jobs: retraining has nothing to be "
            "judged by"
        ) from error
    there = {job.job: job for job in jobs_of["test"]}
    missing = [name for name in wanted if name not in there]
    if missing:
        raise RankerError(
            f"the set lacks test job {missing[0]} and {len(missing) - 1} more of the list that "
            f"{base.source} was released with: make that set with `coldstream ranker simulate`"
        )
    return [there[name] for name in wanted]


def _repeated(own: Sequence[ClassRecords], others: Sequence[ClassRecords]) -> list[ClassRecords]:
    mine, rest = sum(len(job) for job in own), sum(len(job) for job in others)
    times = int(np.clip(round(SHARE / (1.0 - SHARE) * rest / max(1, mine)), 1, MOST_REPEATS))
    return list(own) * times


def _figures(
    model: Scorer, jobs: Sequence[ClassRecords], thresholds: Thresholds
) -> dict[str, float]:
    found = evaluation.brief(model, jobs, thresholds)
    names = ("mse", "fpr", "fnr", "rho")
    return {name: found[name]["value"] for name in names}
