"""VDAM over a set that grows while it is classified.

The schedule is not followed by the number of the iteration but by a *place* on it, 0 to its end.
Every iteration goes one place further. Particles that join move the place back to where the
particle-passes done so far are as many for each particle as the schedule has there: a set that
doubles has had half of the passes. So the steps become longer again and inactive classes may be
replaced, but the place is not taken back beyond the middle of the fall of the step size; and the
last phase is always done anew. The last place is the pass over all particles.

Source: docs/explanation/classification.md.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from algorithms.formats.star import Table
from algorithms.refine import joining, schedule
from algorithms.refine.run import WRITE_EVERY, Run, check
from algorithms.refine.sums import Sums
from algorithms.refine.types import DataSet, RefineError

# Iterations whose files stay, besides those after a pass over all particles.
KEEP = 2

# Reading a long table takes seconds: few new rows wait for others, for so many iterations at most.
LEAST_GROWTH, LEAST_EVERY = 0.005, 10


def passes(iterations: int, n: int, n_classes: int) -> np.ndarray:
    """Return the particle-passes for each particle at every place: `[iterations + 1]`."""
    sizes = [schedule.batch_size(at, iterations, n, n_classes) for at in range(1, iterations + 1)]
    return np.concatenate([[0.0], np.cumsum(sizes)]) / n


def moved_back(place: float, iterations: int, before: int, after: int, n_classes: int) -> float:
    """Return the place on the schedule after a set has grown.

    Parameters
    ----------
    place
        Where the run is.
    iterations
        Of the whole schedule.
    before, after
        Particles there were, and are.
    n_classes
        Of the run.
    """
    places = np.arange(iterations + 1)
    done = np.interp(place, places, passes(iterations, before, n_classes)) * before / after
    same = float(np.interp(done, passes(iterations, after, n_classes), places))
    ini, mid, _ = schedule.phases(iterations)
    return min(place, max(min(same, ini + mid), min(place, ini + mid // 4)))


class Stream(Run):
    """A run whose table of particles grows; between two iterations it takes in what has come.

    Parameters
    ----------
    arguments, named
        Those of `Run`.
    joined
        Is called when particles have come or gone.

    Raises
    ------
    RefineError
        The options ask for EM, or there is one class only.
    """

    def __init__(
        self,
        *arguments: Any,
        joined: Callable[[joining.Change], None] = lambda change: None,
        **named: Any,
    ):
        self._joined = joined
        self._taken_in = -LEAST_EVERY
        self._seen: tuple[int, int, int] | None = None
        super().__init__(*arguments, **named)
        if not self.options.gradient or self.options.n_classes < 2:
            raise RefineError("a set that grows is classified by VDAM, in two classes or more")

    @property
    def place(self) -> float:
        """Where on the schedule the run is."""
        return self.model.place

    @property
    def finished(self) -> bool:
        """Whether the pass over all particles is done and none has come since."""
        return self.model.place >= self.options.iterations

    def step(self) -> Sums:
        """Take in what has come, and do one iteration."""
        self.take_in()
        self.model.place += 1.0
        return super().step()

    def writes(self, number: int, size: int) -> bool:
        """Tell whether an iteration's files are written: every tenth, and after the last place."""
        return number % WRITE_EVERY == 0 or self.finished

    def write(self) -> Path:
        """Write the files of the present iteration; those that nobody was told of make room."""
        root = super().write()
        if self.finished:
            _mark(root).touch()
        sets = sorted(self.root.parent.glob(f"{self.root.name}_it*_optimiser.star"), key=_number)
        for path in sets[:-KEEP]:
            old = path.with_name(path.name.removesuffix("_optimiser.star"))
            if not _mark(old).exists():
                for file in (path, *old.parent.glob(f"{old.name}_*")):
                    file.unlink(missing_ok=True)
        return root

    def conclude(self) -> None:
        """Make the next iteration the pass over all particles."""
        self.model.place = max(self.model.place, self.options.iterations - 1.0)

    def take_in(self) -> None:
        """Let particles join that have come into the table, and drop those that have gone."""
        now, number = _identity(self._table), self.model.iteration
        if now == self._seen or (self._is_little(now) and number < self._taken_in + LEAST_EVERY):
            return
        self._taken_in = number
        before = joining.known(self.data, self._keys)
        self._blocks, self.data = self._read()
        self._keys = joining.keys_of(self._blocks["particles"])
        check(self.data, self.options)
        self._join(self.model, before)

    def _is_little(self, now: tuple[int, int, int]) -> bool:
        """Tell whether a table differs so little that it is not worth being read yet."""
        assert self._seen is not None  # noqa: S101
        return abs(now[1] - self._seen[1]) < LEAST_GROWTH * self._seen[1]

    def _read(self) -> tuple[dict[str, Table], DataSet]:
        self._seen = _identity(self._table)
        return super()._read()

    def _join(self, model: Any, before: joining.Known) -> joining.Change:
        change = super()._join(model, before)
        if change.came:
            counts = len(before.keys), len(before.keys) + change.came
            k, iterations = self.options.n_classes, self.options.iterations
            model.place = moved_back(model.place, iterations, *counts, k)
        if change.came or change.went:
            self._joined(change)
        return change

    def _takes(self, keys: np.ndarray) -> bool:
        return True

    def _is_last(self) -> bool:
        return self.finished

    def _batch(self, number: int) -> int:
        place, iterations = self.model.place, self.options.iterations
        return schedule.batch_size(place, iterations, len(self.data), self.options.n_classes)


def _mark(root: Path) -> Path:
    """Return the file that tells that an iteration is a result."""
    return root.with_name(f".{root.name}_whole")


def _number(path: Path) -> int:
    return int(path.name.split("_it")[-1].partition("_")[0])


def _identity(path: Path) -> tuple[int, int, int]:
    """Return what tells a file from what it was before."""
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns
