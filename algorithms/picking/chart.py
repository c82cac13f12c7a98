"""A control chart: does a measure of each micrograph stay what it was at the beginning?

An exponentially weighted moving average (EWMA) of the measure is compared with limits that follow
from the first micrographs. Centre and spread are a median and a median absolute deviation, and each
value is brought within `CLIP` spreads first, so one empty hole or one sheet of carbon raises no
alarm, but several in a row do. Counts are taken as 2 sqrt(n + 3/8) and distances as logarithms,
whose spread does not depend on their size. An alarm ends when the average is back within half of
the limits.

Source: Roberts, Technometrics 1 (1959) 239; Lucas and Saccucci, Technometrics 32 (1990) 1;
Anscombe, Biometrika 35 (1948) 246.
"""

import math
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

# So many micrographs tell what is usual.
BASELINE = 40
# Weight of the newest micrograph: an average over about the last nine.
WEIGHT = 0.2
# Limits, in standard deviations of the average. Simulated on Poisson counts of 200: one false alarm
# in about 4500 micrographs, and a loss of 15 % of the particles is seen after 5.
LIMIT = 4.0
CLIP = 4.0
# Least spread: a grid where all is equal must not give alarms for the smallest change.
LEAST_SPREAD = {"count": 1.0, "distance": 0.05}

Kind = Literal["count", "distance"]


@dataclass
class Chart:
    """What the micrographs so far say; plain values, so that it can be stored.

    Parameters
    ----------
    kind
        A count per micrograph, or a distance above 0.
    first
        Transformed values of the baseline, until it is complete.
    centre, spread
        Of the baseline, transformed; 0 before.
    average
        EWMA, transformed.
    seen
        Micrographs after the baseline.
    is_alarm
        Whether the average is beyond the limits.
    """

    kind: Kind
    first: list[float] = field(default_factory=list)
    centre: float = 0.0
    spread: float = 0.0
    average: float = 0.0
    seen: int = 0
    is_alarm: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether the baseline is complete."""
        return self.spread > 0

    def add(self, value: float) -> None:
        """Take in the measure of one more micrograph.

        Raises
        ------
        ValueError
            A count below 0, a distance not above 0, or no number.
        """
        number = _transformed(self.kind, value)
        if not self.is_ready:
            self.first.append(number)
            if len(self.first) == BASELINE:
                self._begin()
            return
        self.seen += 1
        reach = CLIP * self.spread
        number = min(max(number, self.centre - reach), self.centre + reach)
        self.average += WEIGHT * (number - self.average)
        away = abs(self.average - self.centre)
        self.is_alarm = away > (0.5 if self.is_alarm else 1.0) * self._limit()

    def limits(self) -> tuple[float, float, float]:
        """Return (low, expected, high) of the moving average, in units of the measure."""
        reach = self._limit()
        low, high = self.centre - reach, self.centre + reach
        return tuple(_back(self.kind, value) for value in (low, self.centre, high))  # type: ignore[return-value]

    def current(self) -> float:
        """Return the moving average, in units of the measure."""
        return _back(self.kind, self.average)

    def _begin(self) -> None:
        self.centre = median(self.first)
        # 1.4826: of a normal distribution this is its standard deviation.
        spread = 1.4826 * median(abs(value - self.centre) for value in self.first)
        self.spread = max(spread, LEAST_SPREAD[self.kind])
        self.average = self.centre
        self.first = []

    def _limit(self) -> float:
        share = WEIGHT / (2 - WEIGHT) * (1 - (1 - WEIGHT) ** (2 * max(1, self.seen)))
        return LIMIT * self.spread * math.sqrt(share)


def _transformed(kind: Kind, value: float) -> float:
    if not math.isfinite(value) or value < 0 or (kind == "distance" and value == 0):
        raise ValueError(f"{value} is no {kind}")
    return 2 * math.sqrt(value + 0.375) if kind == "count" else math.log(value)


def _back(kind: Kind, number: float) -> float:
    if kind == "count":
        return max(0.0, (max(number, 0.0) / 2) ** 2 - 0.375)
    return math.exp(number)


def nearest_neighbour(x: list[float], y: list[float]) -> float | None:
    """Median distance of each point to its nearest neighbour, None of fewer than two.

    Parameters
    ----------
    x, y
        Coordinates `[n]`, any unit.
    """
    if len(x) < 2:
        return None
    from scipy.spatial import KDTree  # as slow to load as all the rest of this module

    points = list(zip(x, y, strict=True))
    distances, _ = KDTree(points).query(points, k=2)
    return float(median(distances[:, 1].tolist()))
