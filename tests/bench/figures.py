"""What a benchmark measures: figures with a unit, each beside what it is compared with."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["", "floor", "peer", "goal"]
# Of times and memory less is better, of rates and shares more.
LESS_IS_BETTER = ("s", "ms", "MB", "% of a core")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number.

    Parameters
    ----------
    what, value, unit
        The number.
    kind, against, reference
        What it is compared with: the least possible (floor), another program (peer), or what was
        promised (goal); `reference` is its number in the same unit.
    """

    what: str
    value: float
    unit: str
    kind: Kind = ""
    against: str = ""
    reference: float = math.nan

    @property
    def ratio(self) -> float:
        """Value over reference."""
        return self.value / self.reference if self.reference else math.nan

    @property
    def verdict(self) -> str:
        """The ratio in words."""
        ratio = self.ratio
        if not math.isfinite(ratio):
            return ""
        less = self.unit in LESS_IS_BETTER
        if self.kind == "goal":
            return "met" if (ratio <= 1) == less or ratio == 1 else "missed"
        if self.kind == "peer":
            return f"{1 / ratio if less else ratio:.2f} x as fast"
        return f"{ratio:.3g} x the floor" if self.kind == "floor" else ""


@dataclass(kw_only=True)
class Section:
    """The figures and notes of one benchmark."""

    name: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    took_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return plain types; not-a-number becomes None."""
        figures = [
            {key: _plain(value) for key, value in asdict(figure).items()}
            | {"ratio": _plain(figure.ratio), "verdict": figure.verdict}
            for figure in self.figures
        ]
        return asdict(self) | {"figures": figures}


@dataclass(kw_only=True)
class Bench:
    """What a benchmark is given: a folder of its own, and where its figures go.

    Parameters
    ----------
    section
        To be filled.
    folder
        Empty, on a local disk, removed afterwards.
    common
        Folder for what several benchmarks share.
    full
        Larger sizes.
    progress
        Shows a line of text.
    """

    section: Section
    folder: Path
    common: Path
    full: bool
    progress: Callable[[str], None]

    def add(self, what: str, value: float, unit: str) -> None:
        """Add a figure without comparison."""
        self.section.figures.append(Figure(what=what, value=float(value), unit=unit))

    def goal(self, what: str, value: float, unit: str, goal: float, where: str) -> None:
        """Add a figure with what was promised, and where."""
        self._compare(what, value, unit, "goal", where, goal)

    def floor(self, what: str, value: float, unit: str, floor: float, of: str) -> None:
        """Add a figure with the least it could be, and of what that is made up."""
        self._compare(what, value, unit, "floor", of, floor)

    def peer(self, what: str, value: float, unit: str, peer: float, name: str) -> None:
        """Add a figure with that of another program on the same data."""
        self._compare(what, value, unit, "peer", name, peer)

    def _compare(
        self, what: str, value: float, unit: str, kind: Kind, against: str, reference: float
    ) -> None:
        figure = Figure(
            what=what,
            value=float(value),
            unit=unit,
            kind=kind,
            against=against,
            reference=float(reference),
        )
        self.section.figures.append(figure)

    def note(self, text: str) -> None:
        """Add a sentence below the figures."""
        if text not in self.section.notes:
            self.section.notes.append(text)

    def say(self, text: str) -> None:
        """Show what is being done."""
        self.progress(text)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def median(values: Sequence[float]) -> float:
    """Return the median; not-a-number of none."""
    return float(np.median(values)) if values else math.nan


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile; not-a-number of none."""
    return float(np.percentile(values, share)) if values else math.nan
