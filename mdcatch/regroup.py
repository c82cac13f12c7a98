"""Optics groups from all exposures of a session at once: what is offered at its end. Pure.

Single linkage of the beam shifts of each class and acquisition area, cut at the widest gap of the
merge distances that lies below the spacing of the lattice. On the fly an early exposure may have
opened a group too many, or joined one that later exposures show to be two.

Source: acquisition.md section 2.8 (a), (b), (e).
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

# The gap is looked for between these shares of the spacing: jitter lies below, neighbours above.
LOWEST, HIGHEST = 0.05, 0.95


class Member(NamedTuple):
    """One exposure: its group now, the class it belongs to (any number), area, beam shift."""

    movie: str
    group: int
    kind: int
    area: str
    shift: tuple[float, float] | None


def regroup(
    members: Sequence[Member],
    threshold: float | None,
    spacing: float | None,
    count: int | None,
    last: int = 0,
) -> dict[str, int]:
    """Return the group of each movie, by number; groups keep the number most of them have now.

    Parameters
    ----------
    members
        All exposures.
    threshold
        By which they were grouped on the fly; None: by area alone.
    spacing
        Distance of neighbouring groups, if it is known.
    count
        Number of groups in each area that a person knows of.
    last
        Highest number that is given away; new groups are numbered from there.
    """
    sets: dict[tuple[int, str], list[Member]] = defaultdict(list)
    for member in members:
        sets[member.kind, member.area].append(member)
    trees = {key: _merges(found) for key, found in sets.items()}
    if threshold is not None and spacing is not None:
        distances = [d for tree in trees.values() for d, _, _ in tree]
        threshold = _cut(distances, spacing) or threshold
    clusters: list[list[Member]] = []
    for key, found in sets.items():
        clusters += _clusters(found, trees[key], threshold, count)
    return _numbered(clusters, max([last, *(m.group for m in members)]))


def _merges(members: list[Member]) -> list[tuple[float, int, int]]:
    """Return (distance, from, to) of the minimum spanning tree (Prim), in the order of distance."""
    shifts = [m.shift for m in members]
    if len(members) < 2 or None in shifts:
        return []
    points = np.array(shifts, dtype=np.float64)
    nearest = np.full(len(points), np.inf)
    origin = np.zeros(len(points), dtype=np.int64)
    outside = np.ones(len(points), dtype=bool)
    at, edges = 0, []
    for _ in range(len(points) - 1):
        outside[at] = False
        distance = np.hypot(*(points - points[at]).T)
        closer = outside & (distance < nearest)
        nearest[closer], origin[closer] = distance[closer], at
        nearest[at] = np.inf
        at = int(np.argmin(nearest))
        edges.append((float(nearest[at]), int(origin[at]), at))
    return sorted(edges)


def _cut(distances: list[float], spacing: float) -> float | None:
    """Return the middle of the widest gap, by ratio, below the spacing."""
    low, high = LOWEST * spacing, HIGHEST * spacing
    inside = sorted({low, high, *(d for d in distances if low < d < high)})
    gaps = [(b / a, (a * b) ** 0.5) for a, b in pairwise(inside)]
    return max(gaps)[1] if gaps else None


def _clusters(
    members: list[Member],
    merges: list[tuple[float, int, int]],
    threshold: float | None,
    count: int | None,
) -> list[list[Member]]:
    if count is not None:
        kept = merges[: max(0, len(members) - count)]
    elif threshold is not None:
        kept = [merge for merge in merges if merge[0] <= threshold]
    else:
        return [members]
    if not merges and len(members) > 1:
        return [members]  # no beam shifts: the area is all that is known
    parent = list(range(len(members)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    for _, a, b in kept:
        parent[root(a)] = root(b)
    found: dict[int, list[Member]] = defaultdict(list)
    for number, member in enumerate(members):
        found[root(number)].append(member)
    return list(found.values())


def _numbered(clusters: list[list[Member]], last: int) -> dict[str, int]:
    """Give each cluster the number most of its members have; a number is given once."""
    claims = []
    for place, cluster in enumerate(clusters):
        for number, votes in Counter(member.group for member in cluster).items():
            claims.append((-votes, number, place))
    numbers: dict[int, int] = {}
    taken: set[int] = set()
    for _, number, place in sorted(claims):
        if place not in numbers and number not in taken:
            numbers[place] = number
            taken.add(number)
    for place in range(len(clusters)):
        if place not in numbers:
            last += 1
            numbers[place] = last
    return {m.movie: numbers[place] for place, cluster in enumerate(clusters) for m in cluster}
