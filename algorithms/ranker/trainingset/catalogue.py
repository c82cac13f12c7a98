"""Which structures there are: the shapes of synthetic ones, and those read from files.

Homologues (variants of a seed, states of one protein, ribosomes) share a family: parts of the
training set are divided by it.
"""

from functools import lru_cache

import numpy as np

from algorithms.ranker.trainingset.molecules import Molecule, Shape, build
from algorithms.simulate.specimen import load_specimen

SEED = 20_812
# Kind, how many families, point groups in turn, kDa of an asymmetric unit from and to.
_KINDS = (
    ("small", 9, ("C1",), 20.0, 65.0),
    ("globular", 11, ("C1",), 80.0, 450.0),
    ("long", 7, ("C1", "C1", "C2"), 60.0, 260.0),
    ("ring", 12, ("C2", "C3", "C4", "C5", "C6", "C7", "C8"), 18.0, 90.0),
    ("hollow", 6, ("C8", "C11", "C14", "D6", "D7"), 14.0, 50.0),
    ("dihedral", 10, ("D2", "D3", "D4", "D5", "D2", "D3", "D7"), 16.0, 80.0),
    ("cage", 8, ("T", "O", "O", "T"), 14.0, 45.0),
    ("capsid", 5, ("I",), 14.0, 55.0),
    ("membrane", 12, ("C1", "C3", "C4", "C2", "C5", "C1"), 45.0, 110.0),
    ("rna", 6, ("C1",), 50.0, 260.0),
    ("filament", 4, ("C1",), 20.0, 45.0),
)
# Each of so many families has a second member.
_EVERY = 6
NEGATIVE = "filament"  # never a target
RIBOSOME = "ribosome30S"


def shapes() -> list[Shape]:
    """Return all synthetic shapes; always the same."""
    rng, out = np.random.default_rng(SEED), []
    for kind, families, groups, low, high in _KINDS:
        for n in range(families):
            unit = low * (high / low) ** ((n + rng.random()) / families)
            name, seed = f"{kind}{n + 1:02d}", int(rng.integers(1 << 30))
            group = groups[n % len(groups)]
            for variant in range(2 if len(out) % _EVERY == 0 and kind != NEGATIVE else 1):
                out.append(
                    Shape(
                        name=name + "b" * variant,
                        family=name,
                        kind=kind,
                        group=group,
                        unit_kDa=unit,
                        seed=seed,
                        variant=variant,
                    )
                )
    return out


def names() -> dict[str, str]:
    """Return the family of each structure that can be a target, by name, synthetic ones first."""
    found = {one.name: one.family for one in shapes() if one.kind != NEGATIVE}
    return found | {RIBOSOME: "ribosome"}


def negatives() -> list[str]:
    """Return the names of structures that are never a target."""
    return [one.name for one in shapes() if one.kind == NEGATIVE]


@lru_cache(maxsize=128)
def molecule(name: str) -> Molecule:
    """Return a structure.

    Raises
    ------
    KeyError
        There is none of the name.
    """
    if name == RIBOSOME:
        return _ribosome()
    return build({one.name: one for one in shapes()}[name])


def _ribosome() -> Molecule:
    """Return the 30S subunit that is shipped, two points for about a residue."""
    specimen = load_specimen()
    rng = np.random.default_rng(SEED)
    atoms = rng.permutation(len(specimen.positions_A))[: len(specimen.positions_A) // 4]
    points = specimen.positions_A[atoms]
    parts = np.floor((points[:, 2] - points[:, 2].min()) / 40.0).astype(np.int64)
    return Molecule(
        name=RIBOSOME,
        family="ribosome",
        shape="ribosome",
        symmetry="C1",
        points_A=points - points.mean(0),
        weights=np.full(len(points), 1.25),
        parts=parts,
    )
