"""Synthetic molecules: domains packed into subunits, subunits into assemblies with a point group.

Everything follows from the seed and the name of a shape. A molecule is a cloud of points; its
density is their sum, blurred, minus the ice that they displace (simulation.md section 3).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import KDTree

from algorithms.orientation import symmetry
from algorithms.ranker.trainingset import domains
from algorithms.ranker.trainingset.domains import RESIDUE_DA
from algorithms.ranker.trainingset.packing import LOOKED_AT, beside, subunit, touches

_WAYS = 14  # of placing a subunit that are tried
_NEIGHBOURS = 6  # copies that are looked at in packing


@dataclass(frozen=True, kw_only=True)
class Molecule:
    """A cloud of scattering points around the origin.

    Parameters
    ----------
    name, family, shape, symmetry
        What it is; homologous ones share the family.
    points_A
        `[n, 3]` (x, y, z).
    weights
        Of each point, 1 for half a residue `[n]`.
    parts
        Which part each point belongs to, from 0 `[n]`: what may be missing. -1 is lipid.
    """

    name: str
    family: str
    shape: str
    symmetry: str
    points_A: np.ndarray
    weights: np.ndarray
    parts: np.ndarray

    @property
    def diameter_A(self) -> float:
        """Twice the distance of the farthest points from the centre; a few stray ones are not."""
        return 2.0 * float(np.quantile(np.linalg.norm(self.points_A, axis=1), 0.998))

    @property
    def mass_kDa(self) -> float:
        """Of protein of as many points."""
        return 0.5e-3 * RESIDUE_DA * float(self.weights.sum())

    def only(self, keep: np.ndarray, shape: str) -> "Molecule":
        """Return some of the points, not moved."""
        return replace(
            self,
            shape=shape,
            points_A=self.points_A[keep],
            weights=self.weights[keep],
            parts=self.parts[keep],
        )


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is to be built: name, homologues, kind, point group, mass of an asymmetric unit."""

    name: str
    family: str
    kind: str
    group: str
    unit_kDa: float
    seed: int
    variant: int = 0


def build(shape: Shape) -> Molecule:
    """Return the molecule of a shape; a variant has other domains in part, or one more."""
    rng = np.random.default_rng((shape.seed, 77))
    maker: Callable[[np.random.Generator, Shape], tuple[np.ndarray, np.ndarray, np.ndarray]]
    maker = {"rna": _rna, "filament": _filament}.get(shape.kind, _assembly)
    points, weights, parts = maker(rng, shape)
    body = parts >= 0
    points = points - np.average(points[body], axis=0, weights=weights[body])
    return Molecule(
        name=shape.name,
        family=shape.family,
        shape=shape.kind,
        symmetry=shape.group,
        points_A=points,
        weights=weights,
        parts=parts,
    )


def _assembly(rng: np.random.Generator, shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return copies of a subunit around a point group's axes, perhaps in a membrane."""
    elongation = {"long": 0.9, "membrane": 0.55}.get(shape.kind, rng.uniform(0.0, 0.35))
    residues = round(1e3 * shape.unit_kDa / RESIDUE_DA)
    pieces = subunit(rng, residues, elongation, shape.variant)
    chain = np.concatenate(pieces)
    labels = np.repeat(np.arange(len(pieces)), [len(one) for one in pieces])
    operators = symmetry.operators(shape.group).numpy()
    chain = _placed(rng, chain, operators, shape)
    points = np.concatenate([chain @ one.T for one in operators])
    steps = len(pieces) if len(operators) == 1 or len(operators) > 12 else 1
    whose = labels if len(operators) == 1 else np.zeros(len(chain), np.int64)
    parts = np.concatenate([whose + steps * n for n in range(len(operators))])
    weights = np.ones(len(points))
    if shape.kind == "membrane":
        points, weights, parts = _in_membrane(rng, points, weights, parts)
    return points, weights, parts


def _lengthwise(points: np.ndarray) -> np.ndarray:
    """Return the rotation that brings the longest axis of points along z."""
    axes = np.linalg.svd(points - points.mean(0), full_matrices=False)[2]
    turn = axes[[1, 2, 0]]
    return (turn if np.linalg.det(turn) > 0 else turn * np.array([[1], [1], [-1]])).T


def _placed(
    rng: np.random.Generator, chain: np.ndarray, operators: np.ndarray, shape: Shape
) -> np.ndarray:
    """Return the subunit where its copies touch: of some ways, the one with most contacts."""
    if shape.kind == "membrane":
        chain = chain @ _lengthwise(chain)
    if len(operators) == 1:
        return chain
    best, found = math.inf, chain
    for _ in range(3 if shape.kind == "hollow" else _WAYS):
        turned = chain if shape.kind == "membrane" else chain @ domains.rotation(rng)
        direction = rng.normal(size=3)
        direction[2] *= {"C": 0.0, "D": 0.8}.get(shape.group[0], 1.0)
        direction /= np.linalg.norm(direction)
        placed = turned + _reach(turned, operators, direction) * direction
        spread = float(np.sqrt(np.square(placed).sum(1)).mean())
        if spread < best:
            best, found = spread, placed
    return found


def _reach(chain: np.ndarray, operators: np.ndarray, direction: np.ndarray) -> float:
    """Return how far from the centre a subunit first touches one of its copies, from outside."""
    # Copies in these directions come nearest.
    close = np.argsort(-(operators[1:] @ direction @ direction))[:_NEIGHBOURS] + 1
    some = chain[:: max(1, len(chain) // LOOKED_AT)]
    tree, size = KDTree(chain), float(np.linalg.norm(chain, axis=1).max())
    reach = size * (1.2 + 0.45 * math.sqrt(len(operators))) + 20.0
    for r in np.arange(0.0, reach, 3.0)[::-1]:
        copies = [(some + r * direction) @ operators[one].T - r * direction for one in close]
        if any(touches(tree, copy) for copy in copies):
            break
        reach = float(r)
    return reach


def _in_membrane(
    rng: np.random.Generator, points: np.ndarray, weights: np.ndarray, parts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points with a belt of lipids that covers a part of their length."""
    low, high = np.quantile(points[:, 2], (0.05, 0.95))
    height = rng.uniform(30.0, 38.0)
    middle = rng.uniform(low + 0.3 * height, max(low + 0.31 * height, 0.55 * (low + high)))
    moved = points - np.array([0.0, 0.0, middle])
    lipid, lipid_weights = domains.belt(rng, moved, height)
    return (
        np.concatenate([moved, lipid]),
        np.concatenate([weights, lipid_weights]),
        np.concatenate([parts, np.full(len(lipid), -1)]),
    )


def _rna(rng: np.random.Generator, shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a fold of nucleic acid, some with a protein bound."""
    pieces = domains.rna(rng, max(30, round(shape.unit_kDa / 0.66)))
    weights = [np.full(len(one), domains.RNA_WEIGHT) for one in pieces]
    for _ in range(int(rng.integers(0, 3)) + shape.variant):
        made = domains.domain(rng, 160)
        made = made + beside(rng, np.concatenate(pieces), made, 0.3)
        pieces.append(made)
        weights.append(np.ones(len(made)))
    parts = np.repeat(np.arange(len(pieces)), [len(one) for one in pieces])
    return np.concatenate(pieces), np.concatenate(weights), parts


def _filament(rng: np.random.Generator, shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a helix of subunits along z, much longer than a box."""
    chain = np.concatenate(subunit(rng, round(1e3 * shape.unit_kDa / RESIDUE_DA), 0.1))
    radius = rng.uniform(0.5, 1.3) * float(np.linalg.norm(chain, axis=1).max())
    twist = math.radians(rng.uniform(20.0, 170.0))
    rise = 2.0 * shape.unit_kDa * 1.4e3 / (math.pi * (2.0 * radius) ** 2) + 2.0
    count = int(700.0 / rise)
    out = []
    for n in range(count):
        c, s = math.cos(n * twist), math.sin(n * twist)
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        out.append(
            (chain + np.array([radius, 0.0, 0.0])) @ turn.T + [0.0, 0.0, (n - count / 2) * rise]
        )
    points = np.concatenate(out)
    return points, np.ones(len(points)), np.repeat(np.arange(count), len(chain))
