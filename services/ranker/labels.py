"""What people decide of classes, kept as labelled data for retraining.

One file for each stack of averages, with all of its scored classes: some of their numbers are
normalised within it. Source: class-ranker.md section 9.2, users.md W23.
"""

import json
from pathlib import Path

import numpy as np

from algorithms.ranker.targets import BASES
from algorithms.ranker.trainingset.records import SUFFIX, TAGS, UNKNOWN_LABEL, ClassRecords, write
from services.kit.paths import Layout
from services.ranker.scoring import Ranked, features_of

KEPT_LABEL, DROPPED_LABEL = 1, 0


def folder(layout: Layout) -> Path:
    """Return where the labelled data of a project are."""
    return layout.hidden / "labels"


def save(layout: Layout, ranked: Ranked, decided: dict[int, bool]) -> None:
    """Write what people have decided of a stack; remove it when all is taken back.

    Parameters
    ----------
    layout, ranked
        The project, and the classes.
    decided
        Class number, from 1 -> kept.
    """
    path = folder(layout) / f"{ranked.stack[:16]}{SUFFIX}"
    if decided:
        write(path, _records(layout, ranked, decided))
    else:
        path.unlink(missing_ok=True)


def _records(layout: Layout, ranked: Ranked, decided: dict[int, bool]) -> ClassRecords:
    job, classes = ranked.job, ranked.job.classes
    found, _ = features_of(layout, job, ranked.stack, "coldstream")
    places, n = found.places, len(found)
    unknown = np.full(n, np.nan)
    y, label = unknown.copy(), np.full(n, UNKNOWN_LABEL, np.int64)
    for row, place in enumerate(places.tolist()):
        if place + 1 in decided:
            label[row] = KEPT_LABEL if decided[place + 1] else DROPPED_LABEL
            # The share of the target that does not hang on a resolution that nobody knows.
            y[row] = BASES[KEPT_LABEL] if decided[place + 1] else 0.0
    about = {"optimiser": job.optimiser, "stack": ranked.stack, "classes": len(classes)}
    return ClassRecords(
        job=ranked.stack[:16],
        structure="unknown",
        family=f"session {layout.project.name}",
        part="real",
        source="override",
        seed=0,
        configuration=json.dumps(about, sort_keys=True),
        features=found,
        size=classes.sizes[places],
        fraction=classes.fractions[places],
        resolution_A=classes.resolution_A[places],
        y=y,
        label=label,
        w=unknown,
        job_score=float("nan"),
        true_resolution_A=unknown,
        offset=unknown,
        neighbour=unknown,
        counts=np.full((n, len(TAGS)), np.nan),
        rare=unknown,
        totals=np.full(len(TAGS), np.nan),
    )
