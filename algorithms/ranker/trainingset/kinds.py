"""What each particle image shows: molecules at places, in orientations, by the particle's tag.

Source: class-ranker.md section 9.2.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from algorithms.ranker.trainingset import catalogue, domains
from algorithms.ranker.trainingset.molecules import Molecule
from algorithms.ranker.trainingset.records import TAGS
from algorithms.ranker.trainingset.settings import Setting

TARGET = 0  # place of the intact target among the molecules of a job
_PARTIALS = 4
_CENTRED = 0.05  # of a diameter: good particles are not picked farther away
_OFF = (0.15, 0.5)
_HEXAGON = np.radians(np.arange(0.0, 360.0, 60.0))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Molecules that are seen in the images of a stack, m of them.

    Parameters
    ----------
    particle, molecule
        Which image it is in, which molecule of the job it is `[m]`.
    rotation
        `[m, 3, 3]`.
    shift_px
        Its centre beside that of the box (x, y) `[m, 2]`.
    is_neighbour
        Whether it is not what the particle was picked for `[m]`.
    """

    particle: np.ndarray
    molecule: np.ndarray
    rotation: np.ndarray
    shift_px: np.ndarray
    is_neighbour: np.ndarray


def tags_of(setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """Return the tag of each particle as a place in TAGS, mixed `[n]`."""
    shares = np.array(setting.shares)
    counts = np.floor(shares / shares.sum() * setting.particles).astype(np.int64)
    counts[int(shares.argmax())] += setting.particles - counts.sum()
    return rng.permutation(np.repeat(np.arange(len(TAGS)), counts))


def molecules(setting: Setting) -> list[Molecule]:
    """Return what is seen in a job: the target, parts of it, then what contaminates."""
    target = catalogue.molecule(setting.structure)
    rng = np.random.default_rng((setting.seed, 1))
    parts = [_partial(rng, target, n) for n in range(_PARTIALS)]
    return [target, *parts, *(catalogue.molecule(name) for name in setting.other)]


def _partial(rng: np.random.Generator, target: Molecule, n: int) -> Molecule:
    """Return a broken target: parts missing, half of it, or a chain that has lost its fold."""
    if n == 0:
        return _unfolded(rng, target)
    present = np.unique(target.parts[target.parts >= 0])
    if len(present) > 2 and n < 3:
        lost = rng.permutation(present)[: max(1, round(rng.uniform(0.2, 0.55) * len(present)))]
        return target.only(~np.isin(target.parts, lost), "partial")
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    half = target.points_A @ direction > rng.normal(0.0, 0.05) * target.diameter_A
    made = target.only(half, "half")
    middle = made.points_A.mean(0) if rng.random() < 0.6 else np.zeros(3)
    return replace(made, points_A=made.points_A - middle)


def _unfolded(rng: np.random.Generator, target: Molecule) -> Molecule:
    """Return a loose blob without structure, of a part of the target's mass."""
    n = max(200, int(len(target.weights) * rng.uniform(0.3, 0.8)))
    radius = rng.uniform(0.25, 0.4) * target.diameter_A
    lobes = rng.normal(0.0, 0.45 * radius, (5, 3))[rng.integers(5, size=n)]
    points = lobes + rng.normal(0.0, 0.4 * radius, (n, 3))
    weights = np.full(n, float(target.weights.mean()))
    return Molecule(
        name=target.name,
        family=target.family,
        shape="unfolded",
        symmetry="C1",
        points_A=points,
        weights=weights,
        parts=np.zeros(n, np.int64),
    )


def seen(setting: Setting, tags: np.ndarray, rng: np.random.Generator) -> Seen:
    """Return what is seen in each image of a stack.

    Parameters
    ----------
    setting
        The job.
    tags
        Of the particles, `[n]`.
    rng
        What it is drawn from.
    """
    n, d = len(tags), setting.diameter_px
    jitter = _within(rng.normal(0.0, setting.jitter * d, (n, 2)), _CENTRED * d)
    named = {tag: np.flatnonzero(tags == place) for place, tag in enumerate(TAGS)}
    whole = np.concatenate([named[tag] for tag in "TCBA"])
    turns = views(setting, rng, n)
    parts = [_list(whole, TARGET, turns[whole], jitter[whole])]
    off = named["C"]
    away = _around(rng, len(off), rng.uniform(*_OFF, len(off)) * d)
    parts[0].shift_px[np.isin(whole, off)] = away
    between = off[rng.random(len(off)) < 0.35]  # picked between two
    if len(between):
        own = away[np.isin(off, between)]
        parts.append(_beside(setting, rng, between, -own * rng.uniform(0.9, 1.4, (len(own), 1))))
    near = named["B"]
    for _ in range(2):
        distance = setting.neighbour * d * rng.uniform(0.92, 1.08, len(near))
        parts.append(_beside(setting, rng, near, _around(rng, len(near), distance)))
        near = near[rng.random(len(near)) < 0.4]
    clump = named["A"]
    for extra in range(4):
        distance = rng.uniform(0.35, 0.85, len(clump)) * d
        parts.append(_beside(setting, rng, clump, _around(rng, len(clump), distance)))
        clump = clump[rng.random(len(clump)) < (1.0 if extra == 0 else 0.6)]
    if setting.is_dense:
        parts.append(_packed(setting, rng, named["T"], jitter))
    parts.append(_list(named["P"], 1 + rng.integers(_PARTIALS, size=len(named["P"])),
                       turns[named["P"]], jitter[named["P"]]))  # fmt: skip
    parts.append(_others(setting, rng, named["O"], jitter))
    columns = zip(*(vars(one).values() for one in parts), strict=True)
    return Seen(**dict(zip(vars(parts[0]), map(np.concatenate, columns), strict=True)))


def _list(
    particle: np.ndarray,
    molecule: int | np.ndarray,
    rotation: np.ndarray,
    shift_px: np.ndarray,
    is_neighbour: bool = False,
) -> Seen:
    n = len(particle)
    return Seen(
        particle=particle,
        molecule=np.broadcast_to(np.asarray(molecule, np.int64), (n,)).copy(),
        rotation=rotation.reshape(n, 3, 3),
        shift_px=shift_px.reshape(n, 2).copy(),
        is_neighbour=np.full(n, is_neighbour),
    )


def _beside(
    setting: Setting, rng: np.random.Generator, particle: np.ndarray, shift_px: np.ndarray
) -> Seen:
    """Return a second target in some images."""
    return _list(particle, TARGET, views(setting, rng, len(particle)), shift_px, True)


def _packed(
    setting: Setting, rng: np.random.Generator, particle: np.ndarray, jitter: np.ndarray
) -> Seen:
    """Return six neighbours around each particle, on a lattice with faults."""
    n, d = len(particle), setting.diameter_px
    turn = rng.uniform(0.0, math.pi / 3.0, n)[:, None] + _HEXAGON
    distance = setting.neighbour * d * rng.normal(1.0, 0.04, turn.shape)
    shift = np.stack([distance * np.cos(turn), distance * np.sin(turn)], -1)
    there = rng.random(turn.shape) < 0.85
    which = np.broadcast_to(particle[:, None], turn.shape)[there]
    return _list(which, TARGET, views(setting, rng, len(which)), shift[there] + jitter[which], True)


def _others(
    setting: Setting, rng: np.random.Generator, particle: np.ndarray, jitter: np.ndarray
) -> Seen:
    """Return contaminants; filaments lie flat."""
    n = len(particle)
    which = rng.integers(max(1, len(setting.other)), size=n)
    turns = domains.rotations(rng, n)
    flat = np.isin(np.array(setting.other)[which], catalogue.negatives()) if n else which > 0
    if flat.any():
        m = int(flat.sum())
        roll, psi = rng.uniform(0.0, 2 * math.pi, (2, m))
        turns[flat] = _euler(psi, math.pi / 2 + rng.normal(0.0, 0.08, m), roll)
    return _list(particle, 1 + _PARTIALS + which, turns, jitter[particle])


def views(setting: Setting, rng: np.random.Generator, n: int) -> np.ndarray:
    """Return orientations `[n, 3, 3]`, around the preferred directions of the job."""
    turns = domains.rotations(rng, n)
    if setting.modes == 0 or n == 0:
        return turns
    poles = _poles(setting.seed, setting.modes)[rng.integers(setting.modes, size=n)]
    # Wood (1994): cos of the angle to the pole, von Mises-Fisher.
    k, u = setting.concentration, rng.random(n)
    cosine = np.clip(1.0 + np.log(u + (1.0 - u) * math.exp(-2.0 * k)) / k, -1.0, 1.0)
    across = np.cross(poles, rng.normal(size=(n, 3)))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    axis = cosine[:, None] * poles + np.sqrt(1.0 - cosine**2)[:, None] * across
    # The third row is the direction of view; the first two turn around it at random.
    first = turns[:, 0] - (turns[:, 0] * axis).sum(1, keepdims=True) * axis
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return np.stack([first, np.cross(axis, first), axis], axis=1)


@lru_cache(maxsize=4)
def _poles(seed: int, modes: int) -> np.ndarray:
    poles = np.random.default_rng((seed, 2)).normal(size=(modes, 3))
    return poles / np.linalg.norm(poles, axis=1, keepdims=True)


def _euler(rot: np.ndarray, tilt: np.ndarray, psi: np.ndarray) -> np.ndarray:
    import torch

    from algorithms.orientation.euler import matrices

    return matrices(torch.from_numpy(np.degrees(np.stack([rot, tilt, psi], -1)))).numpy()


def _within(shifts: np.ndarray, most: float) -> np.ndarray:
    """Return shifts cut to a length."""
    length = np.linalg.norm(shifts, axis=1, keepdims=True)
    return shifts * np.minimum(1.0, most / np.maximum(length, 1e-9))


def _around(rng: np.random.Generator, n: int, distance: np.ndarray) -> np.ndarray:
    turn = rng.uniform(0.0, 2.0 * math.pi, n)
    return np.stack([distance * np.cos(turn), distance * np.sin(turn)], -1)
