"""A model's figures on a part of the set: per job, and over jobs with 95 % intervals.

Source: class-ranker.md sections 9.4 and 9.6.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from algorithms.ranker.features import GREY, VECTOR
from algorithms.ranker.learning import metrics
from algorithms.ranker.learning.data import good
from algorithms.ranker.learning.thresholds import Scorer, Thresholds, known_size
from algorithms.ranker.trainingset.records import TAGS, UNKNOWN_LABEL, ClassRecords

LABELS = (1, 5, 2, 3, 4, 6, 0)
OUTCOMES = ("drop", "ask", "keep")
_LIMIT = 0.25
_STEPS = 5  # of the confusion matrix of scores

Row = dict[str, Any]


def evaluated(scorer: Scorer, jobs: Sequence[ClassRecords], thresholds: Thresholds) -> dict:
    """Return all figures of a model on some jobs, as JSON has them.

    Parameters
    ----------
    scorer
        The model.
    jobs
        Of one part.
    thresholds
        Chosen on validation jobs.
    """
    scores = [scorer(job) for job in jobs]
    pairs = list(zip(jobs, scores, strict=True))
    rows = [_job_row(job, s, thresholds) for job, s in pairs]
    return {
        "jobs": rows,
        "classes": int(sum(len(job) for job in jobs)),
        "summary": _summary(rows),
        "kinds": _kinds(pairs, thresholds.default),
        **_pooled(pairs, thresholds),
    }


def brief(scorer: Scorer, jobs: Sequence[ClassRecords], thresholds: Thresholds) -> Row:
    """Return the summary alone, for baselines."""
    return _summary([_job_row(job, scorer(job), thresholds) for job in jobs])


def grey_scale(scorer: Scorer, jobs: Sequence[ClassRecords], factor: float) -> float:
    """Return the largest change of a score when all averages are multiplied by a factor."""
    changes = [
        np.abs(scorer(replace(job, features=_scaled(job, factor))) - scorer(job)).max(initial=0.0)
        for job in jobs
    ]
    return float(max(changes, default=0.0))


def _scaled(job: ClassRecords, factor: float):
    found = job.features
    names = {VECTOR[column] for column in GREY} | {"Granulo"}
    columns = {
        name: values * factor if name in names else values for name, values in found.columns.items()
    }
    return replace(found, columns=columns, images=found.images * np.float32(factor))


def _job_row(job: ClassRecords, scores: np.ndarray, thresholds: Thresholds) -> Row:
    """Return the figures of one job; what a job cannot tell is NaN."""
    reference, known = good(job), np.isfinite(job.y)
    size = known_size(job)
    y, s = job.y[known], scores[known]
    selected = scores >= thresholds.default
    wrong, lost = metrics.particle_rates(selected, reference, size)
    best = metrics.best_threshold(scores, reference, size) if reference.any() else np.nan
    best_wrong, best_lost = metrics.particle_rates(scores >= best, reference, size)
    asked = (scores >= thresholds.drop) & (scores < thresholds.default)
    _, sure_lost = metrics.particle_rates(scores >= thresholds.drop, reference, size)
    whole = max(1.0, float(size.sum()))
    return {
        "job": job.job,
        "structure": job.structure,
        "classes": len(job),
        "job_score": job.job_score,
        "n": int(known.sum()),
        "sse": float(((y - s) ** 2).sum()),
        "sum_y": float(y.sum()),
        "sum_y2": float((y**2).sum()),
        "mse": float(((y - s) ** 2).mean()) if len(y) else np.nan,
        "variance": float(y.var()) if len(y) else np.nan,
        "rho": metrics.rank_correlation(y, s),
        "reference": float(size[reference].sum()) / whole,
        "kept": float(size[selected].sum()) / whole,
        "fpr": wrong,
        "fnr": lost,
        "oracle_threshold": best,
        "oracle_fpr": best_wrong,
        "oracle_fnr": best_lost,
        "asked": float(size[asked].sum()) / whole,
        "asked_classes": float(asked.mean()) if len(job) else 0.0,
        "outside_fpr": wrong,  # what is kept is not asked about
        "outside_fnr": sure_lost,
        **_truth(job, selected),
    }


def _truth(job: ClassRecords, selected: np.ndarray) -> Row:
    """Return purity and yield by truth tag, and what became of rare views."""
    if not np.isfinite(job.counts).all() or not len(job):
        return {"purity": np.nan, "yield": np.nan, "rare_lost": 0, "rare_classes": 0}
    selected = selected & (job.label != UNKNOWN_LABEL)
    kept, everything = job.counts[selected].sum(0), job.totals
    rare = job.rare > 0.5 * np.maximum(1.0, job.counts[:, 0])
    rare &= job.rare > 0.0
    return {
        "purity": float(kept[0] / kept.sum()) if kept.sum() else np.nan,
        "yield": float(kept[0] / everything[0]) if everything[0] else np.nan,
        "kept_by_tag": kept.tolist(),
        "all_by_tag": everything.tolist(),
        "rare_lost": int((rare & good(job) & ~selected).sum()),
        "rare_classes": int((rare & good(job)).sum()),
    }


def _summary(rows: list[Row]) -> Row:
    """Return figures over jobs, each with its interval."""
    if not rows:
        return {}
    sums = np.array([[row[name] for name in ("sse", "n", "sum_y", "sum_y2")] for row in rows])
    out: Row = {
        "mse": metrics.bootstrap(sums[:, :2], metrics.ratio),
        "r2": metrics.bootstrap(sums, metrics.determination),
        "variance": _variance(sums),
    }
    for name in (
        "rho", "fpr", "fnr", "oracle_fpr", "oracle_fnr", "asked", "asked_classes", "outside_fpr",
        "outside_fnr", "purity", "yield",
    ):  # fmt: skip
        out[name] = _mean(rows, name)
    judged = [row for row in rows if np.isfinite(row["fpr"])]
    for prefix in ("", "oracle_"):
        good_jobs = [max(row[f"{prefix}fpr"], row[f"{prefix}fnr"]) <= _LIMIT for row in judged]
        out[f"{prefix}jobs_within"] = float(np.mean(good_jobs)) if judged else np.nan
    return out | {
        "jobs": len(rows),
        "judged": len(judged),
        "worst_fpr": max((row["fpr"] for row in judged), default=np.nan),
        "worst_fnr": max((row["fnr"] for row in judged), default=np.nan),
        "kept_without_reference": _mean([r for r in rows if not np.isfinite(r["fpr"])], "kept"),
        "rare_lost": sum(row["rare_lost"] for row in rows),
        "rare_classes": sum(row["rare_classes"] for row in rows),
    }


def _variance(sums: np.ndarray) -> float:
    _, n, total, square = sums.sum(0)
    return float(square / n - (total / n) ** 2) if n else np.nan


def _mean(rows: list[Row], name: str) -> dict[str, float]:
    values = np.array([row[name] for row in rows], np.float64)
    values = values[np.isfinite(values)]
    return metrics.bootstrap(np.stack([values, np.ones_like(values)], 1), metrics.ratio)


def _kinds(pairs: list[tuple[ClassRecords, np.ndarray]], threshold: float) -> list[Row]:
    """Return of each kind: share kept, and how well good classes stand above those it rules."""
    told = [(job, s) for job, s in pairs if np.isfinite(job.counts).all()]
    if not told:
        return []
    # Where a label is unknown the particles are, too.
    counts = np.concatenate([job.counts * (job.label != UNKNOWN_LABEL)[:, None] for job, _ in told])
    scores = np.concatenate([s for _, s in told])
    reference = np.concatenate([good(job) for job, _ in told])
    totals = np.sum([job.totals for job, _ in told], axis=0)
    ruled = np.where(counts.sum(1) > 0.0, counts.argmax(1), -1)
    kept = counts[scores >= threshold].sum(0)
    return [
        {
            "kind": tag,
            "particles": float(totals[place]),
            "kept": float(kept[place] / totals[place]) if totals[place] else np.nan,
            "of_selected": float(kept[place] / kept.sum()) if kept.sum() else np.nan,
            "classes": int(((ruled == place) & ~reference).sum()),
            "auc": metrics.area_under_curve(
                scores[reference], scores[(ruled == place) & ~reference]
            ),
        }
        for place, tag in enumerate(TAGS)
    ]


def _pooled(pairs: list[tuple[ClassRecords, np.ndarray]], thresholds: Thresholds) -> Row:
    """Return calibration, confusion and the scatter of all classes."""
    y = np.concatenate([job.y for job, _ in pairs] or [np.zeros(0)])
    scores = np.concatenate([s for _, s in pairs] or [np.zeros(0)])
    labels = np.concatenate([job.label for job, _ in pairs] or [np.zeros(0, int)])
    known = np.isfinite(y)
    places = np.array([LABELS.index(one) if one in LABELS else len(LABELS) for one in labels], int)
    outcome = (scores >= thresholds.drop).astype(int) + (scores >= thresholds.default)
    levels = [np.clip((v[known] * _STEPS).astype(int), 0, _STEPS - 1) for v in (y, scores)]
    return {
        "calibration": metrics.calibration(y[known], scores[known]),
        "confusion": metrics.confusion(levels[0], levels[1], (_STEPS, _STEPS)).tolist(),
        "outcomes": metrics.confusion(places, outcome, (len(LABELS) + 1, len(OUTCOMES))).tolist(),
        "label_counts": [int((labels == label).sum()) for label in LABELS],
        "scatter": {
            "y": np.round(y[known], 4).tolist(),
            "score": np.round(scores[known], 4).tolist(),
            "label": labels[known].tolist(),
        },
    }
