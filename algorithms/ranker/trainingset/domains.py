"""Building blocks of synthetic molecules: domains, double helices, lipid belts.

A block is a cloud of scattering points, two for a residue: backbone and side chain. Helices are
rods 10 A apart with a rise of 1.5 A, sheets lie 10 A apart with strands 4.8 A apart: so the density
is that of protein, and what is seen at 4 to 10 A looks like it.
"""

import math

import numpy as np

RESIDUE_DA = 110.0
RESIDUE_A3 = 136.0
_HELIX_APART_A, _SHEETS_APART_A, _STRANDS_APART_A = 10.0, 10.0, 4.8
_LOOPS = 0.15  # share of the residues that lie anywhere
# Weight of a point of nucleic acid: three for 660 Da, which scatter more than protein.
RNA_WEIGHT = 4.6
_BASE_PAIR_A, _TURN_DEG, _STRAND_RADIUS_A = 2.8, 32.7, 8.7
_HEADS, _TAILS = 0.55, 0.08  # weights of the points of lipids

Points = np.ndarray


def rotation(rng: np.random.Generator) -> np.ndarray:
    """Return a uniform random rotation `[3, 3]`."""
    return rotations(rng, 1)[0]


def rotations(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return uniform random rotations `[n, 3, 3]`, of random unit quaternions."""
    q = rng.standard_normal((n, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


def domain(rng: np.random.Generator, residues: int) -> Points:
    """Return a compact domain around the origin, in a random orientation.

    Parameters
    ----------
    rng
        What it is drawn from.
    residues
        About how many.

    Returns
    -------
    np.ndarray
        `[n, 3]` A, two points for a residue.
    """
    stretch = np.exp(rng.normal(0.0, 0.22, 3))
    radius = (3.0 * RESIDUE_A3 * residues / (4.0 * math.pi)) ** (1.0 / 3.0)
    axes = radius * stretch / stretch.prod() ** (1.0 / 3.0)
    kind = rng.choice(3, p=(0.5, 0.2, 0.3))
    reach = 1.15 * axes.max()
    helical = _helices(rng, reach) if kind != 1 else np.zeros((0, 3))
    sheets = _sheets(rng, reach) if kind != 0 else np.zeros((0, 3))
    if kind == 2:  # one side of it is of helices, the other of sheets
        cut = rng.normal(0.0, 0.25) * radius
        helical, sheets = helical[helical[:, 0] > cut], sheets[sheets[:, 0] <= cut]
    points = np.concatenate([helical, sheets])
    points = points[np.square(points / axes).sum(1) < 1.0]
    points = points[rng.random(len(points)) > _LOOPS]
    loops = rng.normal(size=(max(2, round(2 * residues * _LOOPS)), 3))
    loops *= (rng.random(len(loops)) ** (1 / 3) / np.linalg.norm(loops, axis=1))[:, None] * axes
    points = np.concatenate([points, loops * 1.08])
    return (points - points.mean(0)) @ rotation(rng)


def _helices(rng: np.random.Generator, reach: float) -> Points:
    """Return a bundle of helices along z that fills a cube; layers cross at an angle."""
    n = math.ceil(reach / _HELIX_APART_A) + 1
    crossing, out = math.radians(rng.uniform(0.0, 40.0)), []
    start = rng.uniform(0.0, _HELIX_APART_A, 2)
    for row in range(-n, n + 1):
        turn = crossing * (row % 2 - 0.5)
        for column in range(-n, n + 1):
            x = (column + 0.5 * (row % 2)) * _HELIX_APART_A + start[0]
            y = row * 0.866 * _HELIX_APART_A + start[1]
            rise = np.arange(-reach, reach, 1.5)
            rise = rise[_unbroken(rng, rise)]
            angle = np.radians(100.0) * rise / 1.5 + rng.uniform(0.0, 2 * math.pi)
            rod = [np.stack([r * np.cos(angle), r * np.sin(angle), rise], 1) for r in (2.2, 4.4)]
            rods = np.concatenate(rod)
            along = rods[:, 2]
            tilted = np.stack([rods[:, 0] + x + math.sin(turn) * along, rods[:, 1] + y], 1)
            out.append(np.column_stack([tilted, math.cos(turn) * along]))
    return np.concatenate(out)


def _unbroken(rng: np.random.Generator, rise: np.ndarray) -> np.ndarray:
    """Return which places belong to a helix: 15 to 40 A of one, then a gap of a loop."""
    keep, at = np.ones(len(rise), bool), rise[0] + rng.uniform(0.0, 30.0)
    while at < rise[-1]:
        keep &= (rise < at) | (rise > at + 6.0)
        at += 6.0 + rng.uniform(15.0, 40.0)
    return keep


def _sheets(rng: np.random.Generator, reach: float) -> Points:
    """Return twisted sheets above each other that fill a cube."""
    n = math.ceil(reach / _SHEETS_APART_A)
    twist, turn = rng.uniform(0.004, 0.012), math.radians(rng.uniform(15.0, 35.0))
    x, y = np.meshgrid(
        np.arange(-reach, reach, _STRANDS_APART_A), np.arange(-reach, reach, 3.4), indexing="ij"
    )
    up = np.where(np.arange(x.shape[1]) % 2, 2.4, -2.4)[None, :]
    out = []
    for layer in range(-n, n + 1):
        for side in (np.zeros_like(up), up):
            z = layer * _SHEETS_APART_A + twist * x * y + side
            c, s = math.cos(turn * layer), math.sin(turn * layer)
            out.append(np.stack([c * x - s * y, s * x + c * y, z], -1).reshape(-1, 3))
    return np.concatenate(out)


def double_helix(length: int) -> Points:
    """Return base pairs of A-form nucleic acid along z from the origin, three points each."""
    pair = np.arange(length)
    angle, z = np.radians(_TURN_DEG) * pair, _BASE_PAIR_A * pair
    strands = [
        np.stack([_STRAND_RADIUS_A * np.cos(a), _STRAND_RADIUS_A * np.sin(a), z], 1)
        for a in (angle, angle + math.radians(150.0))
    ]
    bases = np.stack([4.0 * np.cos(angle + 1.3), 4.0 * np.sin(angle + 1.3), z], 1)
    return np.concatenate([*strands, bases])


def rna(rng: np.random.Generator, pairs: int) -> list[Points]:
    """Return a tree of double helices that does not run into itself, each a cloud `[n, 3]`."""
    from scipy.spatial import KDTree

    ends, out, left = [(np.zeros(3), np.array([0.0, 0.0, 1.0]))], [], pairs
    for _ in range(400):
        if left <= 0:
            break
        origin, axis = ends[int(rng.integers(len(ends)))]
        length = int(rng.integers(6, 22))
        home = np.concatenate(out).mean(0) - origin if out else np.zeros(3)
        towards = axis + 0.8 * rng.normal(size=3) + home / 45.0  # a fold is compact
        towards /= np.linalg.norm(towards)
        side = np.cross(towards, rng.normal(size=3))
        side /= np.linalg.norm(side)
        frame = np.stack([side, np.cross(towards, side), towards])
        made = double_helix(length) @ frame + origin + 8.0 * towards
        if out and (KDTree(np.concatenate(out)).query(made)[0] < 7.0).mean() > 0.12:
            continue
        out.append(made)
        ends.append((origin + (_BASE_PAIR_A * length + 8.0) * towards, towards))
        left -= length
    return out


def belt(rng: np.random.Generator, protein: Points, height_A: float) -> tuple[Points, np.ndarray]:
    """Return detergent or lipid around a protein that crosses a membrane at z = 0.

    Parameters
    ----------
    rng
        What it is drawn from.
    protein
        `[n, 3]` A.
    height_A
        From heads to heads.

    Returns
    -------
    tuple
        Points `[m, 3]` A and their weights `[m]`: heads are dense, tails are like water.
    """
    from scipy.spatial import KDTree

    within = protein[np.abs(protein[:, 2]) < height_A / 2]
    reach = np.sqrt(np.square(within[:, :2]).sum(1)).max(initial=15.0) + rng.uniform(14.0, 24.0)
    is_disc = rng.random() < 0.4
    volume = (2 * reach) ** 2 * (height_A + 10.0)
    n = int(volume / (0.5 * RESIDUE_A3))
    half = height_A / 2 + 5.0
    points = rng.uniform((-reach, -reach, -half), (reach, reach, half), (n, 3))
    r = np.sqrt(np.square(points[:, :2]).sum(1))
    # A nanodisc is flat and has a rim of protein, a micelle is rounded.
    edge = reach if is_disc else reach * np.sqrt(np.clip(1 - (points[:, 2] / half) ** 2, 0, 1))
    rim = (edge - r < 8.0) if not is_disc else (edge - r < 9.0)
    heads = (np.abs(points[:, 2]) > height_A / 2 - 4.0) | rim
    keep = (r < edge) & (KDTree(protein).query(points)[0] > 4.5)
    weights = np.where(heads, _HEADS, _TAILS)
    return points[keep], weights[keep]
