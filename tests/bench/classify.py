"""2D classification: EM beside RELION, VDAM in particles a second, and the products' own rate."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from algorithms.formats import mrc, star
from algorithms.refine.run import Run
from algorithms.refine.sampling import Sampling
from algorithms.refine.types import Options
from tests.bench import relion
from tests.bench.figures import Bench
from tests.refine_data import particle_set
from tests.shared import SHARED

BOX, PIXEL_A, CLASSES = 72, 3.0, 50
DIAMETER_A = BOX * PIXEL_A / 1.5
EM_ITERATIONS = 3
REFINE = "relion_refine"
TIMES_RELION, PASSES = 25.0, 350.0


def run(bench: Bench) -> None:
    """Measure iterations of EM beside RELION 3.1, and VDAM."""
    small, many = (2_000, 4_000) if bench.full else (100, 2_000)
    rate = product_rate()
    bench.add("single-precision products of this machine", rate, "GFLOP/s")
    _em(bench, small)
    _vdam(bench, many, 200 if bench.full else 40, rate)


def product_rate() -> float:
    """Return GFLOP/s of a product of the size of the first pass."""
    a, b = torch.randn(5_000, 800), torch.randn(800, 750)
    best = 1e9
    for _ in range(6):
        begun = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begun)
    return 2e-9 * 5_000 * 800 * 750 / best


def make(folder: Path, n: int) -> Path:
    """Write particles; return their table."""
    tool = SHARED / "tools" / "make_bench_particles.py"
    out = folder / f"p{n}"
    if tool.exists():
        subprocess.run(
            [sys.executable, str(tool), str(n), str(BOX), str(out)], check=True, cwd=folder
        )
        return out.with_suffix(".star")
    data, _ = particle_set(n, k=5, box=BOX, pixel_A=PIXEL_A, snr=0.1)
    mrc.write(
        out.with_suffix(".mrcs"), data.images.read(np.arange(n)).numpy(), PIXEL_A, is_stack=True
    )
    rows = data.particles
    optics = {
        "rlnOpticsGroupName": ["opticsGroup1"], "rlnOpticsGroup": [1], "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [PIXEL_A], "rlnImageSize": [BOX], "rlnImageDimensionality": [2],
    }  # fmt: skip
    particles = {
        "rlnImageName": [f"{i + 1:06d}@{out.name}.mrcs" for i in range(n)],
        "rlnMicrographName": [f"mic{i // 50}.mrc" for i in range(n)],
        "rlnOpticsGroup": [1] * n, "rlnDefocusU": rows.defocus_u_A,
        "rlnDefocusV": rows.defocus_v_A, "rlnDefocusAngle": rows.defocus_angle_deg,
    }  # fmt: skip
    tables = {"optics": star.Table.of(optics), "particles": star.Table.of(particles)}
    star.save(out.with_suffix(".star"), tables)
    return out.with_suffix(".star")


def classified(table: Path, out: Path, iterations: int, *, gradient: bool) -> float:
    """Classify; return the seconds of all iterations."""
    out.mkdir()
    options = Options(
        n_classes=CLASSES, iterations=iterations, particle_diameter_A=DIAMETER_A,
        gradient=gradient, seed=1,
    )  # fmt: skip
    sampling = Sampling(
        psi_step_deg=12.0, offset_range_A=5.0 * PIXEL_A, offset_step_A=2.0 * PIXEL_A
    )
    made = Run(table, out / "run", "run", table.parent, options, sampling)
    begun = time.monotonic()
    made.run()
    return time.monotonic() - begun


def _em(bench: Bench, n: int) -> None:
    table = make(bench.folder, n)
    ours = classified(table, bench.folder / "em", EM_ITERATIONS, gradient=False)
    what = f"EM, {n:,} particles, K = {CLASSES}, {EM_ITERATIONS} iterations"
    if shutil.which(REFINE) is None:
        bench.add(what, ours, "s")
        bench.note(relion.missing(REFINE))
        return
    (bench.folder / "peer").mkdir()
    command = f"{REFINE} --i {table.name} --o peer/run --iter {EM_ITERATIONS} --K {CLASSES}"
    command += f" --particle_diameter {DIAMETER_A:g} --ctf --tau2_fudge 2 --flatten_solvent"
    command += " --zero_mask --oversampling 1 --psi_step 12 --offset_range 5 --offset_step 2"
    command += f" --norm --scale --random_seed 1 --j {torch.get_num_threads()}"
    command += " --dont_combine_weights_via_disc --pool 30"
    peer = relion.run([command.split()], bench.folder)
    bench.peer(what, ours, "s", peer, relion.version())
    bench.goal("the same, in times RELION", peer / ours, "x", TIMES_RELION, "goal")


def _vdam(bench: Bench, n: int, iterations: int, rate: float) -> None:
    from algorithms.refine.schedule import batch_size

    table = make(bench.folder, n)
    took = classified(table, bench.folder / "vdam", iterations, gradient=True)
    passes = sum(batch_size(i, iterations, n, CLASSES) for i in range(1, iterations + 1))
    cores = torch.get_num_threads()
    bench.goal(
        f"VDAM, {n:,} particles, {iterations} mini-batches, a core",
        passes / took / cores, "particles/s", PASSES, "goal",
    )  # fmt: skip
    # The first pass: half of 30 rotations of each class, 21 shifts, two products of 800 numbers.
    floor = 2e-9 * 2 * 21 * 15 * CLASSES * 800 / rate
    bench.floor("the same, a particle", 1e3 * took / passes, "ms", 1e3 * floor, "the first product")
