"""Which point group a map has, with what confidence, and how it lies.

Rotations by 360/n degrees about every axis are tried first. Each group is then laid along the best
axes, its orientation and centre are refined, and it is judged by the operator that fits worst.
A group is believed when even that one correlates well above what rotations do by chance, and not
much worse than the best rotation of this map does.

Source: refinement.md section 6 extended; figures in tests/science/test_symmetry_search.py.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from algorithms.maps.selfrotation import SelfRotation
from algorithms.orientation import euler, healpix, symmetry

MAX_CYCLIC, MAX_DIHEDRAL = 12, 8
AXES_KEPT = 4  # of each fold
STARTS_KEPT = 3  # orientations of a group that are refined
CHANCE = 200  # random rotations that tell what is by chance
# A correlation that a map has to have with itself before it counts in full: the share that is
# signal, within these limits; and where nothing around the particle tells.
LEAST_FITTING, FITTING, UNKNOWN = 0.5, 0.95, 0.8
# Asymmetric maps without noise reach 0.46 by their shape, and 0.28 with much noise; symmetric
# ones 0.9, and 0.37 with much noise: measured on made molecules at 15 to 25 A.
SURE, DOUBTFUL = 0.62, 0.5
SHARPNESS = 0.04
# Operators of one group differ by what noise makes of them: by this much, and this many times
# what the best group lacks.
ALLOWED, ALLOWED_TIMES = 0.1, 3.0
POSSIBLE = 0.4  # share of that which all parts of a group must reach for it to be tried


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A group laid into a map.

    Parameters
    ----------
    group
        Its name.
    rotation
        `[3, 3]`: takes the group's axes to those of the map; its operators are
        rotation @ R @ rotation^T.
    centre_A
        Where the axes meet, (x, y, z) from the middle of the box.
    worst, mean
        Correlation of the operator that fits worst, and of all but the identity.
    evidence
        0: as by chance, 1: as well as the map fits to itself at all.
    confidence
        Of the group being there, 0 to 1.
    """

    group: str
    rotation: Tensor
    centre_A: Tensor
    worst: float
    mean: float
    evidence: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the search came to.

    Parameters
    ----------
    group
        The answer; C1 where nothing was found or where it is not sure.
    sure
        False: C1 stands for "perhaps more".
    fits
        All groups tried, best first.
    """

    group: str
    sure: bool
    fits: tuple[Fit, ...]


def groups() -> tuple[str, ...]:
    """Return the names of all groups that are tried."""
    cyclic = [f"C{n}" for n in range(2, MAX_CYCLIC + 1)]
    return (*cyclic, *(f"D{n}" for n in range(2, MAX_DIHEDRAL + 1)), "T", "O", "I2")


def search(map_: SelfRotation, seed: int = 0) -> Answer:
    """Find the point group of a map.

    Parameters
    ----------
    map_
        The map, prepared.
    seed
        Of the random rotations that tell what is by chance.
    """
    random = torch.Generator().manual_seed(seed)
    chance = map_.correlations(euler.random_rotations(CHANCE, random))
    by_chance = float(chance.median())
    fitting = UNKNOWN
    if map_.signal is not None:
        fitting = min(max(map_.signal, LEAST_FITTING), FITTING)
    least = by_chance + POSSIBLE * (fitting - by_chance)
    axes, fits = _axes(map_), dict[str, Fit]()
    for name in groups():
        if all(part in fits and fits[part].worst >= least for part in _parts(name)):
            fits[name] = _fit(map_, name, axes)
    best = max(fit.worst for fit in fits.values())
    judged = [_judged(fit, by_chance, best, max(fitting, best)) for fit in fits.values()]
    judged.sort(key=lambda fit: (-fit.confidence * symmetry.order(fit.group), -fit.evidence))
    return _answer(judged)


def fit(map_: SelfRotation, name: str, *, move: bool = True) -> Fit:
    """Lay one group into a map as well as it goes.

    Parameters
    ----------
    map_
        The map, prepared.
    name
        Of the group.
    move
        Find where the axes meet; else they meet in the middle of the box.

    Raises
    ------
    SymmetryError
        There is no such group.
    """
    if not move:
        map_.origin = torch.zeros_like(map_.origin)
    group = symmetry.normalised(name)
    rough = _fit(map_, group, _axes(map_), move=move)
    operators = symmetry.operators(group)[1:]
    rotation, centre = _refined(
        map_, (rough.rotation, rough.centre_A), operators, move=move, quick=False
    )
    each = map_.correlations(rotation @ operators @ rotation.T, centre)
    worst, mean = float(each.min()), float(each.mean())
    if mean < rough.mean:
        return rough
    return replace(rough, rotation=rotation, centre_A=centre, worst=worst, mean=mean)


def _axes(map_: SelfRotation) -> dict[int, Tensor]:
    """Return the best axes of each fold, unit vectors `[a, 3]`."""
    rot, tilt = healpix.pixels(map_.order)
    upper = (tilt < 90.0 - 1e-6) | ((tilt < 90.0 + 1e-6) & (rot >= 0.0))
    rot, tilt = rot[upper], tilt[upper]
    vectors = euler.directions(rot, tilt)
    folds = range(2, MAX_CYCLIC + 1)
    scores = map_.about(torch.stack([rot, tilt], 1), folds).double()
    apart = 2.5 * healpix.step_deg(map_.order)
    return {
        fold: vectors[_peaks(vectors, column, apart)]
        for fold, column in zip(folds, scores.T, strict=True)
    }


def _parts(name: str) -> tuple[str, ...]:
    """Return the largest groups that a group has as parts."""
    if name[0] in "TOI":
        return {"T": ("D2", "C3"), "O": ("T", "D4", "D3"), "I": ("T", "D5", "D3")}[name[0]]
    fold = int(name[1:])
    fewer = [fold // p for p in (2, 3, 5, 7, 11) if fold % p == 0 and fold > p]
    if name[0] == "C":
        return tuple(f"C{n}" for n in fewer)
    return (*(f"D{n}" for n in fewer), f"C{fold}", "C2")


def _peaks(vectors: Tensor, scores: Tensor, apart_deg: float) -> Tensor:
    """Return the rows of the highest scores that are not near to each other."""
    limit, kept = math.cos(math.radians(apart_deg)), []
    for row in torch.argsort(scores, descending=True).tolist():
        if all(abs(float(vectors[row] @ vectors[other])) < limit for other in kept):
            kept.append(row)
        if len(kept) == AXES_KEPT:
            break
    return torch.tensor(kept)


def _fit(map_: SelfRotation, name: str, axes: dict[int, Tensor], *, move: bool = True) -> Fit:
    starts = _starts(map_, name, axes)
    operators = symmetry.operators(name)[1:]
    few = operators if len(operators) <= 6 else operators[:: len(operators) // 6]
    scores = torch.stack(
        [map_.correlations(start @ few @ start.T, quick=True).mean() for start in starts]
    )
    placed = [
        _refined(map_, (starts[row], map_.origin), operators, move=move)
        for row in torch.argsort(scores, descending=True)[:STARTS_KEPT].tolist()
    ]
    each = [map_.correlations(r @ operators @ r.T, centre) for r, centre in placed]
    best = max(range(len(placed)), key=lambda row: float(each[row].mean()))
    rotation, centre = placed[best]
    return Fit(
        group=name,
        rotation=rotation,
        centre_A=centre,
        worst=float(each[best].min()),
        mean=float(each[best].mean()),
        evidence=0.0,
        confidence=0.0,
    )


def _starts(map_: SelfRotation, name: str, axes: dict[int, Tensor]) -> Tensor:
    """Return rotations `[s, 3, 3]` that take the group's main axis to the map's best axes."""
    fold, main = _main_axis(name)
    step = min(10.0, map_.angle_deg)
    around = 1 if name[0] == "C" else max(1, math.ceil(360.0 / fold / step))
    out = []
    for axis in axes[fold]:
        towards = _between(main, axis)
        turn = torch.arange(around, dtype=torch.float64) * (2.0 * math.pi / fold / around)
        turned = torch.stack([_about(axis[None], float(t))[0] for t in turn])
        out.append(turned @ towards)
    return torch.cat(out)


def _main_axis(name: str) -> tuple[int, Tensor]:
    """Return the highest fold of a group and its axis."""
    if name[0] in "CD":
        return int(name[1:]), torch.tensor([0.0, 0.0, 1.0]).double()
    fold = {"T": 3, "O": 4, "I": 5}[name[0]]
    for operator in symmetry.operators(name)[1:]:
        angle = math.degrees(math.acos((float(operator.trace()) - 1.0) / 2.0))
        if abs(angle - 360.0 / fold) < 1.0:
            skew = operator - operator.T
            axis = torch.stack([skew[2, 1], skew[0, 2], skew[1, 0]])
            return fold, axis / axis.norm()
    raise AssertionError(name)


def _refined(
    map_: SelfRotation,
    start: tuple[Tensor, Tensor],
    operators: Tensor,
    *,
    move: bool,
    quick: bool = True,
) -> tuple[Tensor, Tensor]:
    """Turn and move a group, from a rotation and a centre, until its operators fit best."""
    if quick and len(operators) > 12:  # a quarter of a large group holds the rest in place
        operators = operators[:: len(operators) // 12]
    turn = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(3, dtype=torch.float64, requires_grad=move)
    scale = map_.resolution_A / 2.0
    free = [turn, shift] if move else [turn]
    steps = torch.optim.LBFGS(free, max_iter=12, line_search_fn="strong_wolfe")

    def placed() -> tuple[Tensor, Tensor]:
        rotation = _vector_rotation(turn * math.radians(map_.angle_deg)) @ start[0]
        return rotation, start[1] + shift * scale

    def loss() -> Tensor:
        steps.zero_grad()
        rotation, centre = placed()
        value = -map_.correlations(rotation @ operators @ rotation.T, centre, quick=quick).mean()
        value.backward()
        return value

    steps.step(loss)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        return placed()


def _judged(fit: Fit, by_chance: float, best: float, top: float) -> Fit:
    evidence = (fit.worst - by_chance) / max(top - by_chance, 1e-6)
    allowed = ALLOWED + ALLOWED_TIMES * (1.0 - best)
    evidence = min(evidence, 1.0 - (1.0 - SURE) * (best - fit.worst) / allowed)
    middle = 0.5 * (SURE + DOUBTFUL)
    confidence = 1.0 / (1.0 + math.exp(-(evidence - middle) / SHARPNESS))
    return replace(fit, evidence=evidence, confidence=confidence)


def _answer(judged: list[Fit]) -> Answer:
    """Take the group that is sure, is in no larger sure one, and fits best.

    Rings of many units look alike under all rotations at low resolution; then the groups that
    are not there fit less well than the one that is.
    """
    sure = [fit for fit in judged if fit.evidence >= SURE]
    if not sure:
        doubtful = any(fit.evidence >= DOUBTFUL for fit in judged)
        return Answer(group="C1", sure=not doubtful, fits=tuple(judged))
    largest = [fit for fit in sure if not any(_contains(other.group, fit.group) for other in sure)]
    top = max(largest, key=lambda fit: (round(fit.mean, 2), symmetry.order(fit.group)))
    return Answer(group=top.group, sure=True, fits=tuple(judged))


def _contains(group: str, part: str) -> bool:
    """Tell whether a group has another one as a proper part."""
    return any(part == p or _contains(p, part) for p in _parts(group))


def _about(axes: Tensor, angle: float) -> Tensor:
    """Return rotations `[a, 3, 3]` by an angle (radians) about unit vectors `[a, 3]`."""
    zero = torch.zeros_like(axes[:, 0])
    x, y, z = axes.unbind(1)
    cross = torch.stack(
        [
            torch.stack([zero, -z, y], 1),
            torch.stack([z, zero, -x], 1),
            torch.stack([-y, x, zero], 1),
        ],
        dim=1,
    )
    eye = torch.eye(3, dtype=axes.dtype)
    return eye + math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)


def _vector_rotation(vector: Tensor) -> Tensor:
    """Return the rotation `[3, 3]` about a vector by its length, differentiable at 0."""
    x, y, z = vector.unbind()
    zero = torch.zeros_like(x)
    cross = torch.stack(
        [torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])]
    )
    return torch.linalg.matrix_exp(cross)


def _between(first: Tensor, second: Tensor) -> Tensor:
    """Return a rotation `[3, 3]` that takes one unit vector to another."""
    cosine = float((first @ second).clamp(-1.0, 1.0))
    axis = torch.linalg.cross(first, second)
    if float(axis.norm()) < 1e-9:
        if cosine > 0.0:
            return torch.eye(3, dtype=torch.float64)
        other = torch.tensor([1.0, 0.0, 0.0]).double()
        if abs(float(first @ other)) > 0.9:
            other = torch.tensor([0.0, 1.0, 0.0]).double()
        axis, cosine = torch.linalg.cross(first, other), -1.0
    return _about((axis / axis.norm())[None], math.acos(cosine))[0]
