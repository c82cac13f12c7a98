"""From what is true of the classes to labels and target scores.

Source: class-ranker.md section 9.3.

No cut-off here looks at a feature, at a class's size or at its estimated resolution. All were set
on training jobs and then frozen; VERSION tells which, and models name it.
"""

import json
from dataclasses import dataclass, replace

import numpy as np

from algorithms.ranker.targets import BASES
from algorithms.ranker.trainingset.records import TAGS, UNKNOWN_LABEL, ClassRecords
from algorithms.ranker.types import LEAST_PARTICLES

# 1 had blobs that nobody recognises among the labels 1 and 5; 2 measured w by another class than J,
# and labelled classes by particles that were no longer theirs.
VERSION = "3"
# Label 1: purity, offset in diameters, resolution beside that of the best class, A.
PURE, CENTRED, FINE, FINE_A = 0.8, 0.08, 1.6, 8.0
# Label 5.
MOSTLY_PURE, NEARLY_CENTRED, COARSE = 0.65, 0.12, 2.5
# Label 2: half of the particles are good, and the target is to be recognised.
HALF_PURE, RECOGNISED_A = 0.5, 40.0
# Label 3: more of the signal is a neighbour's.
CROWDED = 0.25
# Score of a job by its best class, A: 0 at the first, 1 at the second.
WORST_A, BEST_A, LEAST_SCORE = 25.0, 6.0, 0.05
RARE = 0.03  # views with a smaller share of the good particles
# A class holds at least so much of its share of the particles, or its table is of before.
CURRENT = 0.5

RULE = (
    f"rule {VERSION}: u = share of particles that show one intact, centred target; d = resolution "
    "(A) at which the average's ring correlation with the best noise-free projection of its "
    "members' views falls below 0.5; o = offset of that projection in diameters; d_best = finest d "
    f"of classes of more than {LEAST_PARTICLES:g} particles with u >= {MOSTLY_PURE:g} and "
    f"o <= {NEARLY_CENTRED:g}, where there is none with u >= {HALF_PURE:g}. "
    f"Unknown in a gradient job before its end where fewer than {CURRENT:g} of a class's share of "
    "the particles are in its table, which is then of a class that another one has replaced. "
    f"Label 0 unless a shell finer than {RECOGNISED_A:g} A correlates; "
    f"3 where neighbours carry more than {CROWDED:g} of the signal; "
    f"else 1: u >= {PURE:g}, o <= {CENTRED:g}, d <= max({FINE:g} d_best, {FINE_A:g}); "
    f"5: u >= {MOSTLY_PURE:g}, o <= {NEARLY_CENTRED:g}, d <= {COARSE:g} d_best; "
    f"2: u >= {HALF_PURE:g}, o <= {NEARLY_CENTRED:g}; 3: the rest. w = min(1, (d_best / d)^2), "
    f"0 of label 0, J = clip(({WORST_A:g} - d_best) / {WORST_A - BEST_A:g}, {LEAST_SCORE:g}, 1), "
    "y = J (base + 0.25 w), base 0.75, 0.5, 0.25, 0 of labels 1, 5, 2, 3; y = 0 of label 0."
)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is true of the classes of a job, `[n]` each.

    Parameters
    ----------
    counts
        Particles by tag `[n, 9]`.
    resolution_A
        Of the best match with a projection; inf: none.
    finest_A
        Finest shell in which a match correlates.
    offset
        Of the match, in diameters; NaN: none.
    neighbour
        Share of the signal that is of neighbours.
    size
        Particles of the class.
    stale
        Whether the particles are of a class that another one has replaced: nothing is known.
    """

    counts: np.ndarray
    resolution_A: np.ndarray
    finest_A: np.ndarray
    offset: np.ndarray
    neighbour: np.ndarray
    size: np.ndarray
    stale: np.ndarray

    @property
    def purity(self) -> np.ndarray:
        """Share of good particles."""
        return self.counts[:, TAGS.index("T")] / np.maximum(1.0, self.counts.sum(1))


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labels and scores of the classes of a job; UNKNOWN_LABEL and NaN where nothing is known."""

    label: np.ndarray
    w: np.ndarray
    y: np.ndarray
    job_score: float
    best_A: float


def labelled(truth: Truth) -> Labelled:
    """Return labels, target scores and the score of the job."""
    best = best_resolution_A(truth)
    label = labels(truth, best)
    job_score, finer = LEAST_SCORE, np.zeros(len(label))
    if np.isfinite(best):
        job_score = float(np.clip((WORST_A - best) / (WORST_A - BEST_A), LEAST_SCORE, 1.0))
        d = truth.resolution_A
        finer = np.minimum(1.0, best / np.where(d > best, d, max(best, 1e-9))) ** 2
    base = np.array([BASES.get(int(one), 0.0) for one in label])
    w = np.where(label > 0, finer, 0.0)
    y = np.where(label > 0, job_score * (base + 0.25 * w), 0.0)
    return Labelled(
        label=np.where(truth.stale, UNKNOWN_LABEL, label),
        w=np.where(truth.stale, np.nan, w),
        y=np.where(truth.stale, np.nan, y),
        job_score=job_score,
        best_A=best,
    )


def is_stale(size: np.ndarray, fraction: np.ndarray, particles: float) -> np.ndarray:
    """Return which classes of a gradient job before its end have particles of before `[n]`.

    Each iteration sees a part of the particles. A class that was refilled from another one keeps
    the particles of the class that it replaced until they are seen again.

    Parameters
    ----------
    size
        Particles of each class in the table `[n]`.
    fraction
        rlnClassDistribution `[n]`.
    particles
        Of the job.
    """
    return size < CURRENT * fraction * particles


def best_resolution_A(truth: Truth) -> float:
    """Return the resolution of the best class: of those that may be used, else of others."""
    offset = np.nan_to_num(truth.offset, nan=np.inf)
    known = np.isfinite(truth.resolution_A) & (truth.size > LEAST_PARTICLES) & ~truth.stale
    for purity, centred in ((MOSTLY_PURE, NEARLY_CENTRED), (HALF_PURE, np.inf)):
        fit = known & (truth.purity >= purity) & (offset <= centred)
        if fit.any():
            return float(truth.resolution_A[fit].min())
    return np.inf


def relabelled(one: ClassRecords) -> ClassRecords:
    """Return a simulated job's record with the labels of the present rule."""
    told = json.loads(one.configuration)
    is_early = told["gradient"] and told["stop"] < told["iterations"]
    truth = Truth(
        counts=one.counts,
        resolution_A=one.true_resolution_A,
        finest_A=np.array(told["finest_A"]),
        offset=one.offset,
        neighbour=one.neighbour,
        size=one.size,
        stale=is_early & is_stale(one.size, one.fraction, one.totals.sum()),
    )
    found = labelled(truth)
    return replace(
        one,
        label=found.label,
        w=found.w,
        y=found.y,
        job_score=found.job_score,
        configuration=json.dumps(told | {"labels": VERSION}, sort_keys=True),
    )


def labels(truth: Truth, best_A: float) -> np.ndarray:
    """Return the label of each class, given the resolution of the best one."""
    purity, d = truth.purity, truth.resolution_A
    offset = np.nan_to_num(truth.offset, nan=np.inf)
    recognised = truth.finest_A <= RECOGNISED_A
    usable = recognised & np.isfinite(d)
    crowded = truth.neighbour > CROWDED
    limit = max(FINE * best_A, FINE_A) if np.isfinite(best_A) else 0.0
    good = usable & (purity >= PURE) & (offset <= CENTRED) & (d <= limit)
    fair = usable & (purity >= MOSTLY_PURE) & (offset <= NEARLY_CENTRED) & (d <= COARSE * best_A)
    weak = (purity >= HALF_PURE) & recognised & (offset <= NEARLY_CENTRED)
    seen = recognised & ((purity < HALF_PURE) | (offset > NEARLY_CENTRED))
    # In turn, the first that holds: where neighbours carry the signal a class is not to be used.
    tests = (
        (recognised & crowded, 3),
        (good, 1),
        (fair, 5),
        (weak, 2),
        (seen, 3),
    )
    out = np.zeros(len(purity), np.int64)
    for holds, label in reversed(tests):
        out[holds] = label
    return out


def rare_views(rotations: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Return which good particles are seen from a direction that few others are `[n]`.

    Parameters
    ----------
    rotations
        Of the particles `[n, 3, 3]`; the third row is the direction of view.
    good
        Which are good `[n]`.
    """
    from algorithms.orientation import euler, healpix

    poles = euler.directions(*healpix.pixels(0)).numpy()
    bins = (rotations[:, 2] @ poles.T).argmax(1)
    count = np.bincount(bins[good], minlength=len(poles))
    return good & (count[bins] < RARE * max(1, int(good.sum())))
