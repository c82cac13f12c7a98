"""How good 2D classes are: simulated particles of three structures, and classes against the truth.

The comparison itself is a slow test: `pytest -m slow -s tests/science/test_refine_quality.py`, six
minutes of processor time, most of it RELION's. Pixels are coarse, so that RELION takes a minute for
a set, and several sets can be compared. A signal to noise ratio of 0.05 to 0.25 a pixel of 8 A is
one of 0.02 to 0.1 a pixel of 5 A: as much signal and as much noise in each square of an image.
"""

import math
import resource
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from algorithms.formats import mrc, star
from algorithms.refine.geometry import disc, from_fourier, to_fourier
from algorithms.refine.images import ctf_values
from algorithms.refine.run import Run
from algorithms.refine.sampling import Sampling
from algorithms.refine.types import Options
from tests.bench import relion
from tests.refine_data import columns_of, particles
from tests.shared import SHARED

BOX, PIXEL_A, DIAMETER_A = 40, 8.0, 280.0
# Maps that look different in every view: a ring, the small subunit, a whole ribosome.
MAPS = {
    "maps/3j9g_potential_ps4_4.mrc": 4.4,
    "particles/sim_30S/reference.mrc": 6.0,
    "maps/emd_5625.map": 4.23,
}
JUNK = len(MAPS)
PER_MICROGRAPH = 50
# A class counts from this share of the particles on.
POPULATED = 0.005
# A good class is like a view of its structure up to this resolution.
GOOD_A = 50.0
VIEWS, TURNS = 150, 72
# Coarse steps of both programs: degrees, and px of the shifts' range and step.
PSI_STEP_DEG, SHIFTS_PX = 24.0, (3.0, 3.0)
# Averages are compared with projections up to this shell, in a box of so many px.
COMPARED, SMALL = 8, 24


@dataclass(frozen=True)
class Recipe:
    """What particles are made of; SNR is that of one micrograph, between two limits."""

    n: int = 800
    snr: tuple[float, float] = (0.05, 0.25)
    junk: float = 0.2
    seed: int = 5


@dataclass(frozen=True)
class Quality:
    """What classes are worth, against the truth.

    `populated` and `good` count classes; `in_good` is the share of the true particles that lie in
    good classes; `purity` the share of particles that are of their class's main structure (junk
    is one); `rand` the adjusted Rand index of classes by structure; `frc` the mean correlation of
    populated averages, weighted by members, with the best matching projection, over the first
    `COMPARED` shells; `resolution_A` where it falls to 0.5, the median of the populated classes.
    """

    populated: int
    good: int
    in_good: float
    purity: float
    rand: float
    frc: float
    resolution_A: float

    def text(self) -> str:
        """Return all figures in one line."""
        return ", ".join(
            f"{field.name} {getattr(self, field.name):.3g}" for field in fields(type(self))
        )


# ---- particles


def volumes() -> list[Tensor]:
    """Return the structures as `[n, n, n]` with unit standard deviation, centre of mass inside."""
    out = []
    for name in MAPS:
        values = torch.from_numpy(mrc.read(SHARED / "data" / name).astype(np.float32))
        values = values - values.median()
        out.append(values / values.std())
    return out


def rotations(n: int, random: np.random.Generator) -> Tensor:
    """Return `n` random rotations `[n, 3, 3]`."""
    q = torch.as_tensor(random.standard_normal((n, 4)))
    w, x, y, z = (q / torch.linalg.vector_norm(q, dim=1, keepdim=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def projections(volume: Tensor, voxel_A: float, turns: Tensor) -> Tensor:
    """Return projections `[n, BOX, BOX]` of a volume turned by `[n, 3, 3]`, at PIXEL_A."""
    n = volume.shape[0]
    axis = (torch.arange(BOX, dtype=torch.float32) - BOX // 2) * PIXEL_A
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    out = []
    for turn in turns.float():
        # grid_sample counts from -1 to 1 between the middles of the outer voxels.
        where = (points @ turn) / voxel_A
        where = 2.0 * (where + n // 2) / (n - 1) - 1.0
        grid = where.reshape(1, BOX, BOX, BOX, 3)
        sampled = torch.nn.functional.grid_sample(volume[None, None], grid, align_corners=True)
        out.append(sampled[0, 0].sum(0))
    return torch.stack(out)


def make(folder: Path, recipe: Recipe) -> Path:
    """Write particles and their truth; return `particles.star`. Nothing if they are there."""
    table = folder / "particles.star"
    if table.exists():
        return table
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(recipe.seed)
    kind = random.integers(0, len(MAPS), recipe.n)
    kind[random.random(recipe.n) < recipe.junk] = JUNK
    clean = torch.zeros((recipe.n, BOX, BOX))
    shown = zip(volumes(), MAPS.values(), strict=True)
    for number, (volume, voxel_A) in enumerate(shown):
        mine = np.flatnonzero(kind == number)
        made = projections(volume, voxel_A, rotations(len(mine), random))
        clean[mine] = made / made.std()
    junk = np.flatnonzero(kind == JUNK)
    clean[junk[::2]] = _blots(len(junk[::2]), random)  # the other half is nothing but noise
    rows = particles(recipe.n, seed=recipe.seed)
    seen = _seen(clean, rows, random)
    images = _noisy(seen, recipe, random)
    mrc.write(folder / "particles.mrcs", images.numpy(), PIXEL_A, is_stack=True)
    np.save(folder / "truth.npy", kind)
    star.save(table, _tables(rows, recipe.n), durable=False)
    return table


def _blots(n: int, random: np.random.Generator) -> Tensor:
    """Return what is no particle: a few wide blots somewhere in the box."""
    axis = np.arange(BOX) - BOX / 2
    out = np.zeros((n, BOX, BOX), np.float32)
    for image in out:
        for _ in range(3):
            x, y = random.uniform(-0.5, 0.5, 2) * BOX
            width = random.uniform(0.05, 0.2) * BOX
            square = (axis[None] - x) ** 2 + (axis[:, None] - y) ** 2
            image += random.uniform(-1.0, 1.0) * np.exp(-square / (2.0 * width**2))
        image /= image.std()
    return torch.from_numpy(out)


def _seen(clean: Tensor, rows, random: np.random.Generator) -> Tensor:
    """Return images moved by about 2 px and imaged with their CTF."""
    whole = disc(BOX, BOX)
    spectra = to_fourier(clean)
    shifts = torch.as_tensor(random.normal(0.0, 2.0, (len(clean), 2)))
    angle = (
        -2.0
        * math.pi
        / BOX
        * (shifts[:, :1] * whole.jx.double() + shifts[:, 1:] * whole.jy.double())
    )
    turn = torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
    values = spectra[:, whole.flat] * turn * ctf_values(columns_of(rows), whole, PIXEL_A)
    return from_fourier(_filled(values, BOX), BOX)


def _filled(values: Tensor, box: int) -> Tensor:
    """Return flat half spectra of values on the whole disc."""
    whole = disc(box, box)
    out = values.new_zeros((len(values), box * (box // 2 + 1)))
    column = whole.jx == 0
    mirror = torch.remainder(-whole.jy[column], box) * (box // 2 + 1)
    out[:, mirror] = values[:, column].conj()
    out[:, whole.flat] = values
    return out


def _noisy(images: Tensor, recipe: Recipe, random: np.random.Generator) -> Tensor:
    """Return images with noise, background mean 0 and standard deviation 1."""
    micrograph = np.arange(recipe.n) // PER_MICROGRAPH
    low, high = np.log(recipe.snr)
    snr = np.exp(random.uniform(low, high, micrograph.max() + 1))[micrograph]
    inside = _inside()
    strength = math.sqrt(float(images[:, inside].var()))
    noise = torch.as_tensor(random.standard_normal(images.shape), dtype=torch.float32)
    out = images * torch.as_tensor(np.sqrt(snr) / strength, dtype=torch.float32)[:, None, None]
    out = out + noise
    out = out - out[:, ~inside].mean(1)[:, None, None]
    return out / out[:, ~inside].std(1)[:, None, None]


def _inside() -> Tensor:
    axis = torch.arange(BOX) - BOX // 2
    return axis[None] ** 2 + axis[:, None] ** 2 < (DIAMETER_A / PIXEL_A / 2.0) ** 2


def _tables(rows, n: int) -> dict[str, star.Table]:
    optics = {
        "rlnOpticsGroupName": ["opticsGroup1"], "rlnOpticsGroup": [1], "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [PIXEL_A], "rlnImageSize": [BOX], "rlnImageDimensionality": [2],
    }  # fmt: skip
    columns = {
        "rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(n)],
        "rlnMicrographName": [f"mic{i // PER_MICROGRAPH:04d}.mrc" for i in range(n)],
        "rlnOpticsGroup": [1] * n, "rlnDefocusU": rows.defocus_u_A,
        "rlnDefocusV": rows.defocus_v_A, "rlnDefocusAngle": rows.defocus_angle_deg,
    }  # fmt: skip
    return {"optics": star.Table.of(optics), "particles": star.Table.of(columns)}


# ---- classes against the truth


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Return the adjusted Rand index of two labelings: 1 the same, 0 by chance."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1.0)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1.0) / 2.0).sum())

    rows, columns, n = pairs(table.sum(1)), pairs(table.sum(0)), len(a)
    expected = rows * columns / (n * (n - 1.0) / 2.0)
    most = (rows + columns) / 2.0
    return (pairs(table) - expected) / (most - expected) if most > expected else 1.0


def views(count: int = VIEWS) -> Tensor:
    """Return true projections `[len(MAPS), count, BOX, BOX]`, directions spread evenly."""
    turns = rotations(count, np.random.default_rng(1))
    golden = math.pi * (3.0 - math.sqrt(5.0))
    for number in range(count):
        z = 1.0 - (2.0 * number + 1.0) / count
        tilt, rot = math.acos(z), golden * number
        ct, st, cr, sr = math.cos(tilt), math.sin(tilt), math.cos(rot), math.sin(rot)
        rows = [[ct * cr, ct * sr, -st], [-sr, cr, 0.0], [st * cr, st * sr, ct]]
        turns[number] = torch.tensor(rows)
    shown = zip(volumes(), MAPS.values(), strict=True)
    return torch.stack([projections(volume, voxel, turns) for volume, voxel in shown])


def correlations(averages: Tensor, references: Tensor) -> tuple[Tensor, np.ndarray]:
    """Return the ring correlation of each average with its best projection `[K, shells]`.

    Parameters
    ----------
    averages
        `[K, BOX, BOX]`.
    references
        `[structures, views, BOX, BOX]`.

    Returns
    -------
    tuple
        The correlations, and the structure of the best projection `[K]`.
    """
    flat = references.reshape(-1, BOX, BOX)
    inside = _inside().float()
    targets = _low(to_fourier(flat * inside))
    curves, kinds = [], []
    for average in averages:
        spectra = to_fourier(_all_turns(average) * inside)
        scores = torch.stack([_peaks(one, targets) for one in _low(spectra)])
        turn, view = divmod(int(scores.argmax()), len(flat))
        curves.append(_ring(spectra[turn], to_fourier(flat[view] * inside)))
        kinds.append(view // references.shape[1])
    return torch.stack(curves), np.array(kinds)


def _all_turns(image: Tensor) -> Tensor:
    angle = torch.arange(TURNS, dtype=torch.float32) * (2.0 * math.pi / TURNS)
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros(TURNS)
    theta = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = torch.nn.functional.affine_grid(theta, [TURNS, 1, BOX, BOX], False)
    images = image.float().expand(TURNS, 1, BOX, BOX)
    return torch.nn.functional.grid_sample(images, grid, align_corners=False)[:, 0]


def _low(spectra: Tensor) -> Tensor:
    """Return spectra up to the last shell that is compared, of unit power, `[n, P]`."""
    whole = disc(BOX, BOX)
    out = spectra[:, whole.flat[(whole.shell > 0) & (whole.shell <= COMPARED)]]
    return out / out.abs().pow(2).sum(1, keepdim=True).clamp(min=1e-30).sqrt()


def _peaks(one: Tensor, targets: Tensor) -> Tensor:
    """Return the correlation of a spectrum with each target where it is best, `[n]`."""
    small = disc(SMALL, SMALL)
    small = small.take((small.shell > 0) & (small.shell <= COMPARED))
    values = targets.conj() * one
    flat = values.new_zeros((len(targets), SMALL * (SMALL // 2 + 1)))
    column = small.jx == 0
    mirror = torch.remainder(-small.jy[column], SMALL) * (SMALL // 2 + 1)
    flat[:, mirror] = values[:, column].conj()
    flat[:, small.flat] = values
    return from_fourier(flat, SMALL).flatten(1).amax(1)


def _ring(one: Tensor, other: Tensor) -> Tensor:
    """Return the ring correlation of two spectra at the shift where they agree best."""
    whole = disc(BOX, BOX)
    a, b = one[whole.flat].to(torch.complex128), other[whole.flat].to(torch.complex128)
    steps = torch.arange(-6.0, 6.01, 0.25, dtype=torch.float64)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    angle = (
        -2.0
        * math.pi
        / BOX
        * (x.reshape(-1, 1) * whole.jx.double() + y.reshape(-1, 1) * whole.jy.double())
    )
    low = (whole.shell > 0) & (whole.shell <= COMPARED)
    turn = torch.polar(torch.ones_like(angle), angle)
    agreement = ((turn * a * b.conj()).real * low).sum(1)
    a = a * turn[int(agreement.argmax())]
    power = whole.sums(a.abs() ** 2) * whole.sums(b.abs() ** 2)
    return whole.sums((a * b.conj()).real) / power.clamp(min=1e-30).sqrt()


def quality(averages: Tensor, classes: np.ndarray, kind: np.ndarray, references: Tensor) -> Quality:
    """Return what classes are worth.

    Parameters
    ----------
    averages, classes
        `[K, BOX, BOX]`; the class of each particle, from 0.
    kind
        Its true structure, `JUNK` for none.
    references
        True projections (`views`).
    """
    k = len(averages)
    table = np.zeros((k, JUNK + 1))
    np.add.at(table, (classes, kind), 1.0)
    members = table.sum(1)
    populated = np.flatnonzero(members > POPULATED * len(kind))
    curves, best = correlations(averages[populated], references)
    last = round(BOX * PIXEL_A / GOOD_A)
    mean = curves[:, 1 : COMPARED + 1].mean(1).numpy()
    below = (curves[:, 1:] < 0.5).int()
    first = torch.where(below.any(1), below.argmax(1), curves.shape[1] - 1).numpy()
    main = table[populated].argmax(1)
    is_good = (first >= last) & (main == best)
    true = table[:, :JUNK].sum()
    return Quality(
        populated=len(populated),
        good=int(is_good.sum()),
        in_good=float(table[populated[is_good], main[is_good]].sum() / true),
        purity=float(table.max(1).sum() / len(kind)),
        rand=adjusted_rand(classes, kind),
        frc=float(np.average(mean, weights=members[populated])),
        resolution_A=float(np.median(BOX * PIXEL_A / np.maximum(first, 1))),
    )


# ---- runs


def ours(table: Path, out: Path, options: Options) -> float:
    """Classify, or go on; return the processor seconds of what was done."""
    out.mkdir(exist_ok=True)
    most, step = (PIXEL_A * value for value in SHIFTS_PX)
    sampling = Sampling(psi_step_deg=PSI_STEP_DEG, offset_range_A=most, offset_step_A=step)
    begun = time.process_time()
    Run(table, out / "run", "run", table.parent, options, sampling).run()
    return time.process_time() - begun


def theirs(table: Path, out: Path, options: Options, threads: int = 1) -> float:
    """Classify by RELION's EM; return its processor seconds."""
    out.mkdir(exist_ok=True)
    command = f"relion_refine --i {table.name} --o {out.name}/run --iter {options.iterations}"
    command += f" --K {options.n_classes} --particle_diameter {options.particle_diameter_A:g}"
    command += f" --tau2_fudge {options.tau2_fudge:g} --ctf --flatten_solvent --zero_mask"
    command += f" --oversampling 1 --norm --scale --psi_step {PSI_STEP_DEG:g}"
    command += f" --offset_range {SHIFTS_PX[0]:g} --offset_step {SHIFTS_PX[1]:g}"
    command += f" --random_seed {options.seed} --j {threads}"
    command += " --dont_combine_weights_via_disc --pool 30"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    relion.run([command.split()], table.parent)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def labels(out: Path, iteration: int) -> np.ndarray:
    """Return the class of each particle, from 0, in the order of the stack."""
    rows = star.load(out / f"run_it{iteration:03d}_data.star")["particles"]
    # RELION may write the particles in another order.
    number = np.array([int(name.partition("@")[0]) - 1 for name in rows.strings("rlnImageName")])
    classes = np.empty(len(number), np.int64)
    classes[number] = rows.ints("rlnClassNumber") - 1
    return classes


def judged(out: Path, iteration: int, kind: np.ndarray, references: Tensor) -> Quality:
    """Return the quality of a run's iteration from its files."""
    averages = torch.from_numpy(mrc.read(out / f"run_it{iteration:03d}_classes.mrcs").copy())
    return quality(averages, labels(out, iteration), kind, references)
