"""The list of jobs: which structure goes to which part, and what each job is drawn to be.

Parts are divided by family before anything is made: 70, 15 and 15 of 100 families. Job n of a plan
follows from the seed and n alone, and of every ten jobs six train, so any first jobs of a plan
are a set that can be used.

Source: class-ranker.md sections 9.2 and 9.4.
"""

import math
from importlib import resources
from typing import Any

import numpy as np

from algorithms.fourier import fast_size
from algorithms.ranker.trainingset import catalogue
from algorithms.ranker.trainingset.records import TAGS
from algorithms.ranker.trainingset.settings import Setting

SEED = 9
JOBS = 400
# Parts of jobs in turn: twelve, three, three and two of twenty.
_TURNS = (
    "train", "train", "test", "train", "validation", "train", "train", "second", "train", "train",
    "validation", "train", "test", "train", "train", "validation", "train", "test", "train",
    "second",
)  # fmt: skip
_SPLIT = (0.70, 0.15)  # of the families: training, validation; the rest is for tests
_PIXELS_A = (2.6, 6.5)
_BOXES = (40, 64)
FILE = "split.txt"
# Filaments that contaminate, by part, as places among them all.
_FILAMENTS = {"train": (0, 1), "validation": (2,), "test": (3,), "second": (3,)}


def split() -> dict[str, str]:
    """Return the part of each family: train, validation or test; kinds are spread evenly."""
    rng = np.random.default_rng(SEED)
    families = list(dict.fromkeys(catalogue.names().values()))
    groups: dict[str, list[str]] = {}
    for family in families:
        groups.setdefault(family.rstrip("0123456789"), []).append(family)
    # Families in an order that has each kind evenly spread; every seventh or so is kept back.
    placed = []
    for members in groups.values():
        order = rng.permutation(len(members))
        placed += [
            ((rank + rng.random()) / len(members), members[i]) for rank, i in enumerate(order)
        ]
    ranked = [family for _, family in sorted(placed)]
    train, validation = (round(share * len(ranked)) for share in _SPLIT)
    names = ["train"] * train + ["validation"] * validation
    names += ["test"] * (len(ranked) - len(names))
    return dict(sorted(zip(ranked, names, strict=True)))


def written_split() -> str:
    """Return the split as it is written down in the package."""
    return resources.files("algorithms.ranker.trainingset").joinpath("data", FILE).read_text()


def split_text() -> str:
    """Return the text that `written_split` must have: family, part, its structures."""
    names, rows = catalogue.names(), []
    for family, part in split().items():
        members = " ".join(name for name, of in names.items() if of == family)
        rows.append(f"{family:14s} {part:12s} {members}")
    return "\n".join(rows) + "\n"


def default_plan(jobs: int = JOBS, seed: int = SEED) -> list[Setting]:
    """Return the settings of the first jobs of the plan of a seed."""
    return [job_of(number, seed) for number in range(jobs)]


def part_of(number: int) -> str:
    """Return the part of job `number`, from 0."""
    return _TURNS[number % len(_TURNS)]


def job_of(number: int, seed: int = SEED) -> Setting:
    """Return what job `number`, from 0, is made from."""
    part = part_of(number)
    structures = _structures("test" if part == "second" else part)
    order = np.random.default_rng((seed, len(part))).permutation(len(structures))
    turn = number // len(_TURNS) * _TURNS.count(part) + _TURNS[: number % len(_TURNS)].count(part)
    structure = structures[int(order[turn % len(structures)])]
    return _drawn(number, seed, part, structure)


def _structures(part: str) -> list[str]:
    parts = split()
    return [name for name, family in catalogue.names().items() if parts[family] == part]


def _drawn(number: int, seed: int, part: str, structure: str) -> Setting:
    """Draw a job."""
    rng = np.random.default_rng((seed, number))
    target = catalogue.molecule(structure)
    diameter, second = max(40.0, target.diameter_A), part == "second"
    box, pixel = _box(rng, diameter, second)
    is_dense = bool(rng.random() < 0.05)
    return Setting(
        job=f"sim{number:05d}",
        structure=structure,
        family=target.family,
        part=part,
        seed=int(np.random.default_rng((seed, number, 1)).integers(1 << 31)),
        other=_others(rng, part, structure, target.family),
        box_px=box,
        pixel_A=pixel,
        particles=round(900 * math.exp(rng.uniform(0.0, math.log(2.3)))),
        diameter_A=diameter,
        mask=1.08 * _mask(rng),
        shares=_shares(rng, is_dense),
        is_dense=is_dense,
        neighbour=float(rng.uniform(0.88, 1.08) if is_dense else rng.uniform(0.7, 1.2)),
        is_second=second,
        zero_mask=not second,
        fudge=2.0,
        **_imaging(rng),
        **_classification(rng, second),
    )


def _imaging(rng: np.random.Generator) -> dict[str, Any]:
    """Draw noise, views and optics."""
    middle, reach = rng.uniform(7_000.0, 22_000.0), rng.uniform(2_000.0, 8_000.0)
    has_plate, is_wrong = rng.random() < 0.05, rng.random() < 0.05
    return {
        "snr": float(10.0 ** rng.uniform(-0.6, 0.85)),
        "envelope_A2": float(rng.uniform(50.0, 220.0)),
        "colour": float(rng.uniform(0.15, 0.75)),
        "colour_A": float(rng.uniform(8.0, 40.0)),
        "concentration": float(math.exp(rng.uniform(math.log(1.0), math.log(60.0)))),
        "modes": int(rng.choice((0, 1, 2, 3), p=(0.3, 0.25, 0.25, 0.2))),
        "jitter": float(rng.uniform(0.0, 0.05)),
        "voltage_kV": float(rng.choice((200.0, 300.0))),
        "defocus_A": (max(5_000.0, middle - reach), middle + reach),
        "astigmatism_A": float(rng.gamma(2.0, 120.0)),
        "phase_deg": float(rng.uniform(50.0, 110.0)) if has_plate else 0.0,
        "wrong_ctf_A": float(rng.uniform(1_500.0, 5_000.0)) if is_wrong else 0.0,
    }


def _classification(rng: np.random.Generator, second: bool) -> dict[str, Any]:
    """Draw how the particles are classified; one job of seven is looked at early.

    Four of five are by gradient; of the second simulator one of five.
    """
    gradient = bool(rng.random() < 0.8) != second
    iterations = int(rng.integers(45, 71) if gradient else rng.integers(16, 23))
    stop = iterations
    if rng.random() < 0.15:
        stop = max(2, round(iterations * rng.uniform(0.35, 0.8)))
    return {
        "n_classes": round(math.exp(rng.uniform(math.log(15), math.log(40)))),
        "gradient": gradient,
        "iterations": iterations,
        "stop": stop,
        "psi_step_deg": float(rng.choice((10.0, 12.0))),
        "offset_range_px": float(rng.choice((4.0, 5.0))),
        "split": bool(rng.random() < 0.5),
    }


def _box(rng: np.random.Generator, diameter: float, second: bool) -> tuple[int, float]:
    """Return box and pixel: 1.45 to 1.9 diameters; the second simulator has finer pixels."""
    edge = diameter * rng.uniform(1.45, 1.9)
    wanted = rng.uniform(2.8, 4.6) * (0.8 if second else 1.0)
    least, most = (_BOXES[0], _BOXES[1]) if not second else (48, 72)
    box = min(most, max(least, 2 * round(edge / wanted / 2.0)))
    box = fast_size(box)
    return box, float(np.clip(round(edge / box, 3), *_PIXELS_A))


def _mask(rng: np.random.Generator) -> float:
    """Return the error of the mask's diameter: none in half of the jobs, else x 0.75 to 1.4."""
    return (
        1.0 if rng.random() < 0.5 else float(math.exp(rng.uniform(math.log(0.75), math.log(1.4))))
    )


def _shares(rng: np.random.Generator, is_dense: bool) -> tuple[float, ...]:
    """Return the mixture of kinds: a tenth of the jobs has no good particles, a tenth only such."""
    kind = rng.random()
    good = rng.uniform(0.3, 0.9)
    if kind < 0.1 and not is_dense:
        good = 0.0
    elif kind < 0.2 or is_dense:
        good = rng.uniform(0.93, 1.0)
    # Each kind of dirt is absent from some jobs and rules in others.
    weights = dict(zip(TAGS[1:], (1.2, 1.2, 1.3, 0.7, 0.6, 1.0, 0.0, 0.6), strict=True))
    if rng.random() < 0.3:
        weights["B"] = 1.3
    drawn = {tag: rng.gamma(0.7, w / 0.7) if w else 0.0 for tag, w in weights.items()}
    total = sum(drawn.values())
    rest = {tag: (1.0 - good) * value / total for tag, value in drawn.items()}
    if good == 0.0:  # nor is it in any other way
        lost = sum(rest[tag] for tag in "CBA")
        rest |= dict.fromkeys("CBA", 0.0)
        kept = 1.0 - lost
        rest = {tag: value / kept for tag, value in rest.items()} if kept > 0.0 else {"N": 1.0}
    return (good, *(float(rest.get(tag, 0.0)) for tag in TAGS[1:]))


def _others(rng: np.random.Generator, part: str, structure: str, family: str) -> tuple[str, ...]:
    """Return contaminants of the same part, which the other parts never show; or a filament."""
    names = catalogue.names()
    pool = [
        name
        for name in _structures("test" if part == "second" else part)
        if names[name] != family and name != structure
    ]
    target = catalogue.molecule(structure).diameter_A
    count, chosen = int(rng.choice((1, 2), p=(0.7, 0.3))), []
    for name in rng.permutation(pool):  # the first that are about as large
        if 0.45 < catalogue.molecule(str(name)).diameter_A / target < 1.6:
            chosen.append(str(name))
        if len(chosen) == count:
            break
    chosen = chosen or [str(pool[0])]
    if rng.random() < 0.08:
        chosen[0] = _filament(rng, part)
    return tuple(chosen)


def _filament(rng: np.random.Generator, part: str) -> str:
    names, mine = catalogue.negatives(), _FILAMENTS[part]
    place = int(rng.integers(len(names)))
    return names[place if place in mine else mine[place % len(mine)]]
