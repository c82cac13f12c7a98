"""Domains that touch: chains of them, and whether surfaces are in contact."""

import math

import numpy as np
from scipy.spatial import KDTree

from algorithms.ranker.trainingset import domains

CONTACT_A = 4.5  # nearest points of two surfaces that touch
_IN_CONTACT = 0.05  # share of the points of a surface that fits
LOOKED_AT = 250  # points of a cloud


def subunit(
    rng: np.random.Generator, residues: int, elongation: float, variant: int = 0
) -> list[np.ndarray]:
    """Return the touching domains of a chain, `[n, 3]` each, around the origin.

    Parameters
    ----------
    rng
        What it is drawn from.
    residues
        In all.
    elongation
        0: as compact as can be; 1: in a row.
    variant
        Above 0: a homologue, which has one more domain.
    """
    count = max(1, round(residues / rng.uniform(130.0, 330.0)))
    shares = rng.dirichlet(np.full(count, 6.0))
    sizes = [max(40, round(residues * share)) for share in shares]
    sizes += [max(50, round(0.7 * sizes[0]))] * variant
    out: list[np.ndarray] = []
    for size in sizes:
        made = domains.domain(rng, size)
        if out:
            made = made + beside(rng, np.concatenate(out), made, elongation)
        out.append(made)
    middle = np.concatenate(out).mean(0)
    return [one - middle for one in out]


def beside(
    rng: np.random.Generator, there: np.ndarray, made: np.ndarray, elongation: float
) -> np.ndarray:
    """Return where a domain touches what is there: near the middle, or far from it."""
    tree, best, found = KDTree(there), math.inf, np.zeros(3)
    middle, few = there.mean(0), made[:: max(1, len(made) // LOOKED_AT)]
    for _ in range(12):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        reach = float((there - middle).max()) + 60.0
        low, high = 0.0, 2.0 * reach
        for _ in range(9):  # moves in from outside until it touches
            at = 0.5 * (low + high)
            low, high = (at, high) if touches(tree, few + middle + at * direction) else (low, at)
        score = high * (1.0 - 2.0 * elongation) + rng.uniform(0.0, 4.0)
        if score < best:
            best, found = score, middle + high * direction
    return found


def touches(tree: KDTree, points: np.ndarray) -> bool:
    """Tell whether a share of points is near to those of a tree: surfaces that fit a little."""
    near = tree.query(points, distance_upper_bound=CONTACT_A)[0] < CONTACT_A
    return bool(near.mean() > _IN_CONTACT)
