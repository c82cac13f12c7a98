"""Which classes are kept, given their scores. Source: class-ranker.md section 6."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from algorithms.ranker.types import UNSCORED, ClassSet, RankerError

DEFAULT_THRESHOLD = 0.15
Outcome = Literal["keep", "drop", "ask"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is kept; names in brackets are RELION's.

    Parameters
    ----------
    low, high
        Classes with scores between the two, both included, are kept [--min_score, --max_score].
    ask
        Classes from here up to `low` are neither kept nor dropped: a person is asked. None: none.
    relative
        `low`, `high` and `ask` are fractions of the highest score [--relative_thresholds].
    least_particles, least_classes
        Classes are added by descending score until there are so many; -1: no such rule.
    automatic
        False: what the rules would keep is asked about, and only a person keeps classes.
    """

    low: float = DEFAULT_THRESHOLD
    high: float = 999.0
    ask: float | None = None
    relative: bool = False
    least_particles: int = -1
    least_classes: int = -1
    automatic: bool = True

    def __post_init__(self):
        if self.low > self.high or (self.ask is not None and self.ask > self.low):
            raise RankerError(
                f"thresholds must be in the order ask <= low <= high; they are "
                f"{self.ask}, {self.low:g}, {self.high:g}"
            )


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What a person decided of single classes of one stack of averages.

    Parameters
    ----------
    stack
        `stack_digest` of the averages that the person saw.
    kept
        Class number, from 1 -> whether it is kept.
    """

    stack: str
    kept: Mapping[int, bool] = field(default_factory=dict)

    def for_stack(self, stack: str) -> dict[int, bool]:
        """Return the decisions when they are of this stack; none of another."""
        return dict(self.kept) if stack == self.stack else {}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The outcome.

    Parameters
    ----------
    outcomes
        Of each class `[K]`.
    order
        The kept classes, from 0: first those above the threshold in the order of the classes, then
        those added.
    reasons
        Why, one word of each class: `score`, `minimum`, `person`, `unscored`.
    low
        Threshold in use, after relative thresholds.
    warnings
        What people must see.
    """

    outcomes: list[Outcome]
    order: list[int]
    reasons: list[str]
    low: float
    warnings: list[str]

    def flags(self) -> list[int]:
        """Return 1 for kept classes and 0 for others, in the order of the classes."""
        return [int(outcome == "keep") for outcome in self.outcomes]


def select(
    scores: np.ndarray,
    sizes: np.ndarray,
    rules: Rules | None = None,
    decided: Mapping[int, bool] | None = None,
) -> Selection:
    """Decide which classes to keep.

    Parameters
    ----------
    scores
        Of each class; UNSCORED where it has none `[K]`.
    sizes
        Particles in each class, real numbers `[K]`.
    rules
        Thresholds and minima.
    decided
        Class number, from 1 -> whether a person keeps it: stands above all rules.
    """
    rules = rules or Rules()
    decided = {number - 1: kept for number, kept in (decided or {}).items()}
    sizes = np.nan_to_num(sizes)
    unknown = [place + 1 for place in decided if not 0 <= place < len(scores)]
    if unknown:
        raise RankerError(f"there is no class {unknown[0]}: the classes are 1 to {len(scores)}")
    is_scored = scores != UNSCORED
    low, high, ask, warnings = _thresholds(rules, scores[is_scored])
    reasons = ["score" if one else "unscored" for one in is_scored]
    order: list[int] = []
    for place, score in enumerate(scores):
        if place in decided:
            reasons[place] = "person"
        if decided.get(place, bool(is_scored[place] and low <= score <= high)):
            order.append(place)
    barred = set(order) | set(decided) | set(np.flatnonzero(~is_scored).tolist())
    for place in _added(scores, sizes, order, barred, rules):
        order.append(place)
        reasons[place] = "minimum"
    asked = set(np.flatnonzero(is_scored & (scores >= ask) & (scores < low)).tolist())
    if not rules.automatic:
        asked |= set(order)
        order = [place for place in order if place in decided]
    kept, open_ = set(order), asked - set(decided)
    outcomes: list[Outcome] = [
        "keep" if place in kept else "ask" if place in open_ else "drop"
        for place in range(len(scores))
    ]
    warnings += _unmet(order, sizes, rules, int(is_scored.sum()))
    return Selection(outcomes=outcomes, order=order, reasons=reasons, low=low, warnings=warnings)


def adaptive_threshold(
    scores: Sequence[float] | np.ndarray, quantile: float, bounds: tuple[float, float]
) -> float:
    """Return a threshold that follows a session: a quantile of the scores of all of its classes.

    Parameters
    ----------
    scores
        Of all scored classes of the session so far.
    quantile
        Share of the classes below the threshold, 0 to 1.
    bounds
        The threshold never leaves them: a session of nothing but ice keeps nothing.

    Raises
    ------
    RankerError
        The quantile or the bounds are out of order.
    """
    low, high = bounds
    if not (0.0 <= quantile <= 1.0 and low <= high):
        raise RankerError(
            f"quantile {quantile:g} and bounds {low:g}, {high:g}: the quantile must be between "
            "0 and 1, and the bounds in order"
        )
    known = np.asarray(scores, np.float64)
    known = known[(known != UNSCORED) & np.isfinite(known)]
    return float(np.clip(np.quantile(known, quantile), low, high)) if len(known) else high


def stack_digest(classes: ClassSet) -> str:
    """Return what tells these averages from others: SHA-256 of all pixels."""
    digest = hashlib.sha256(repr(classes.images.shape).encode())
    digest.update(np.ascontiguousarray(classes.images, "<f4").tobytes())
    return digest.hexdigest()


def _thresholds(rules: Rules, scores: np.ndarray) -> tuple[float, float, float, list[str]]:
    """Return low, high, ask and warnings."""
    low, high = rules.low, rules.high
    ask = low if rules.ask is None else rules.ask
    if not rules.relative:
        return low, high, ask, []
    best = float(scores.max(initial=0.0))
    if best <= 0.0:
        return np.inf, np.inf, np.inf, ["no score is above 0: relative thresholds select nothing"]
    return low * best, high * best, ask * best, []


def _added(
    scores: np.ndarray, sizes: np.ndarray, order: list[int], barred: set[int], rules: Rules
) -> list[int]:
    """Return the classes that the minima ask for, by descending score, until both hold."""
    count, n = _count(sizes, order), len(order)
    added = []
    for place in np.argsort(-scores, kind="stable").tolist():
        if count >= rules.least_particles and n >= rules.least_classes:
            break
        if place not in barred:
            added.append(place)
            count, n = int(count + sizes[place]), n + 1
    return added


def _count(sizes: np.ndarray, order: Sequence[int]) -> int:
    """Return the particles of some classes as RELION counts: cut to a whole number each time."""
    count = 0
    for place in order:
        count = int(count + sizes[place])
    return count


def _unmet(order: list[int], sizes: np.ndarray, rules: Rules, scored: int) -> list[str]:
    warnings = []
    if not (order or rules.automatic):
        return ["automatic selection is off: a person keeps classes, or nothing goes on from here"]
    if not order:
        warnings.append(
            f"no class is selected of {scored} that have a score: nothing can go on from here; "
            "lower the threshold, or look at the classes"
        )
    count = _count(sizes, order)
    if count < rules.least_particles:
        warnings.append(f"{count} particles are selected, fewer than {rules.least_particles}")
    if len(order) < rules.least_classes:
        warnings.append(f"{len(order)} classes are selected, fewer than {rules.least_classes}")
    return warnings
