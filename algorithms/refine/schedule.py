"""VDAM's schedules: size of the mini-batches, step size, weight of the data.

Source: refinement.md section 4.1.
"""

import math
from typing import NamedTuple

# By the dimension of the references: the learning rate in the end, the most particles of a batch
# in the beginning, and the share, the least and the most in the end.
LAST_STEP = {2: 0.3, 3: 0.5}
FIRST_MOST = {2: 10_000, 3: 5_000}
LAST = {2: (0.05, 1_000, 100_000), 3: (0.1, 1_000, 50_000)}


class Phases(NamedTuple):
    """Iterations of the first, middle and last phase."""

    first: int
    middle: int
    last: int


def phases(iterations: int, first: float = 0.3, last: float = 0.2) -> Phases:
    """Return how many iterations each phase has."""
    if first + last > 0.9:
        first, last = (share / (first + last + 0.1) for share in (first, last))
    ini, fin = int(iterations * first), int(iterations * last)
    return Phases(ini, iterations - ini - fin, fin)


def batch_size(iteration: float, iterations: int, n: int, n_classes: int, dim: int = 2) -> int:
    """Return how many particles an iteration (from 1) takes; n: all of them.

    Parameters
    ----------
    iteration, iterations
        This one and the last.
    n
        Particles there are.
    n_classes
        With several, the last iteration takes all.
    dim
        Dimensions of the references; 3: of an initial model.
    """
    share, least, most = LAST[dim]
    first = int(min(max(0.005 * n, 200), FIRST_MOST[dim]))
    last = int(min(max(share * n, least), most))
    ini, mid, _ = phases(iterations)
    if iteration >= iterations and n_classes > 1:
        return n
    if iteration < ini:
        size = first
    elif iteration < ini + mid:
        size = first + round((iteration - ini) / mid * (last - first))
    else:
        size = last
    return min(size, n)


def step_size(iteration: float, iterations: int, first: float = 0.9, last: float = 0.3) -> float:
    """Return the learning rate of an iteration."""
    s = _fall(iteration, iterations, 2)
    return first * s + last * (1.0 - s)


def fudge(iteration: float, iterations: int, last: float) -> float:
    """Return T of an iteration: from 1 to its final value."""
    s = _fall(iteration, iterations, 4)
    return s + last * (1.0 - s)


def replaces(iteration: float, iterations: int) -> bool:
    """Tell whether inactive classes may be replaced."""
    ini, mid, _ = phases(iterations)
    return ini < iteration < ini + mid


def splits(iteration: float, iterations: int) -> bool:
    """Tell whether large classes may be split into empty ones: to the middle of the last phase.

    After that a split would not be refined any more.
    """
    ini, mid, fin = phases(iterations)
    return ini < iteration < ini + mid + fin // 2


def _fall(iteration: float, iterations: int, part: int) -> float:
    """Fall from 1 to 0 after the first phase, within a share of the middle one."""
    ini, mid, _ = phases(iterations)
    a = mid // part
    if a == 0:
        return 1.0 if iteration <= ini else 0.0
    exponent = (iteration - ini - a / 2.0) / (a / 4.0)
    return 1.0 / (1.0 + math.pow(10.0, min(max(exponent, -300.0), 300.0)))
