"""2D classification: EM beside RELION, VDAM in particles a second, passes beside their products.

All times are processor time of one thread; RELION's is that of both of its threads. Each part is
bounded: RELION does few particles, and VDAM ends after so much time, whatever it has done by then.
"""

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from algorithms.formats import mrc, star
from algorithms.refine import coarse, fine, maximisation
from algorithms.refine.expectation import (
    SCALE_SSNR,
    Work,
    _preparer,
    expectation,
    make_batch,
)
from algorithms.refine.fine import FinePass
from algorithms.refine.run import Progress, Run
from algorithms.refine.sampling import Sampling
from algorithms.refine.tables import tables
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
# RELION does so many particles, and its time is scaled up.
PEER_PARTICLES = 100
# Mini-batches of VDAM begin for so long, s of time by the clock.
VDAM_S = 120.0


def run(bench: Bench) -> None:
    """Measure iterations of EM beside RELION 3.1, and VDAM at two ratios of signal to noise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        bench.say("matrix products")
        rate = product_rate()
        bench.add("single-precision products of one core", rate, "GFLOP/s")
        _em(bench, 2_000 if bench.full else PEER_PARTICLES)
        for snr in (0.1, 0.02):
            is_long = bench.full and snr == 0.1
            made = _vdam(bench, *((4_000, 200) if is_long else (2_000, 40)), snr)
            bench.say(f"passes at SNR {snr:g}")
            _passes(bench, made, rate, snr)
    finally:
        torch.set_num_threads(threads)


def product_rate() -> float:
    """Return GFLOP/s of a product of the size of the first pass."""
    a, b = torch.randn(5_000, 800), torch.randn(800, 750)
    return 2e-9 * 5_000 * 800 * 750 / least(lambda: a @ b)


def least(work: Callable[[], object], times: int = 6) -> float:
    """Return the least processor time of some tries, s."""
    best = 1e9
    for _ in range(times):
        begun = time.process_time()
        work()
        best = min(best, time.process_time() - begun)
    return best


def make(folder: Path, n: int, snr: float = 0.1) -> Path:
    """Write particles; return their table."""
    tool = SHARED / "tools" / "make_bench_particles.py"
    out = folder / f"p{n}_{1000 * snr:.0f}"
    if tool.exists():
        command = [sys.executable, str(tool), str(n), str(BOX), str(out), "--snr", str(snr)]
        subprocess.run(command, check=True, cwd=folder)
        return out.with_suffix(".star")
    data, _ = particle_set(n, k=5, box=BOX, pixel_A=PIXEL_A, snr=snr)
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


def begun(
    bench: Bench, table: Path, out: Path, iterations: int, *, gradient: bool
) -> tuple[Run, str]:
    """Return a run before its first iteration, and what it is; it says how far it is."""
    out.mkdir()
    options = Options(
        n_classes=CLASSES, iterations=iterations, particle_diameter_A=DIAMETER_A,
        gradient=gradient, seed=1,
    )  # fmt: skip
    sampling = Sampling(
        psi_step_deg=12.0, offset_range_A=5.0 * PIXEL_A, offset_step_A=2.0 * PIXEL_A
    )
    kind = "VDAM" if gradient else "EM"

    def tell(done: Progress) -> None:
        place = f"iteration {done.iteration} of {done.iterations}"
        bench.say(f"{kind}, {place}: {done.done:,} of {done.particles:,} particles")

    made = Run(table, out / "run", "run", table.parent, options, sampling, tell=tell)
    return made, f"{kind}, {len(made.data):,} particles"


def _em(bench: Bench, n: int) -> None:
    bench.say("making particles")
    n_peer, table = PEER_PARTICLES, make(bench.folder, n)
    made, what = begun(bench, table, bench.folder / "em", EM_ITERATIONS, gradient=False)
    before = time.process_time()
    made.run()
    ours = time.process_time() - before
    what += f", K = {CLASSES}, {EM_ITERATIONS} iterations"
    if shutil.which(REFINE) is None:
        bench.add(what, ours, "s")
        bench.note(relion.missing(REFINE))
        return
    (bench.folder / "peer").mkdir()
    some = _first(table, n_peer)
    command = f"{REFINE} --i {some.name} --o peer/run --iter {EM_ITERATIONS} --K {CLASSES}"
    command += f" --particle_diameter {DIAMETER_A:g} --ctf --tau2_fudge 2 --flatten_solvent"
    command += " --zero_mask --oversampling 1 --psi_step 12 --offset_range 5 --offset_step 2"
    command += " --norm --scale --random_seed 1 --j 2 --dont_combine_weights_via_disc --pool 30"
    bench.say(f"RELION, {n_peer:,} particles")
    before = _of_children()
    relion.run([command.split()], bench.folder)
    peer = (_of_children() - before) * n / n_peer
    if n_peer < n:
        bench.note(f"RELION did {n_peer:,} of the {n:,} particles; its time is scaled up.")
    bench.peer(what, ours, "s", peer, relion.version())
    bench.goal("the same, in times RELION", peer / ours, "x", TIMES_RELION, "goal")


def _first(table: Path, n: int) -> Path:
    """Write the first particles of a table beside it."""
    blocks = star.load(table)
    columns = blocks["particles"].columns
    some = star.Table({label: values[:n] for label, values in columns.items()})
    out = table.with_name(f"first{n}.star")
    star.save(out, {**blocks, "particles": some})
    return out


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _vdam(bench: Bench, n: int, iterations: int, snr: float) -> Run:
    bench.say("making particles")
    table = make(bench.folder, n, snr)
    made, what = begun(bench, table, bench.folder / f"vdam{snr:g}", iterations, gradient=True)
    before, until, passes = time.process_time(), time.monotonic() + VDAM_S, 0.0
    while not made.finished and time.monotonic() < until:
        passes += float(made.step().particles)
    took = time.process_time() - before
    done = made.model.iteration
    if done < iterations:
        bench.note(f"VDAM at SNR {snr:g} did {done} of {iterations} mini-batches in {VDAM_S:g} s.")
    what += f" of SNR {snr:g}, {done} mini-batches, a core"
    if snr == 0.1:
        bench.goal(what, passes / took, "particles/s", PASSES, "goal")
    else:
        bench.add(what, passes / took, "particles/s")
    return made


def _passes(bench: Bench, made: Run, rate: float, snr: float) -> None:
    """Measure each pass at the end of a run beside what its arithmetic would take as products."""
    options, model = made.options, made.model
    lookup = tables(model, options)
    work = Work(made.data, model, options, lookup)
    some = np.arange(options.batch)
    batch, _ = make_batch(work, _preparer(work), some)
    t, p = lookup.coarse.phases.shape
    q, shifts = len(lookup.fine.inner), lookup.fine.turns.n
    wide = options.n_classes * lookup.coarse.n_psi
    transfer = batch.transfer[:, lookup.coarse.take]
    precision = batch.precision[lookup.fine.pixels.shell[lookup.coarse.take]]
    y, e = transfer * precision * batch.masked[:, lookup.coarse.take], transfer**2 * precision
    room = coarse.Room()
    children = lookup.fine.grid.n // lookup.coarse.grid.n

    def first() -> coarse.Significant:
        return coarse.search(y, e, batch.log_prior, lookup.coarse, options, room)

    pairs = fine.pairs_of(first(), t, children)
    scaled = model.ssnr > SCALE_SSNR
    sums = expectation(work, some)
    store = lookup.fine.store(sums, options)
    second = FinePass(batch, lookup.fine, scaled, options.memory_bytes, store)

    def last() -> object:
        return maximisation.accumulated(sums, lookup, residual=True)

    n, many = len(some), len(pairs.particle)
    steps = (
        ("first pass", first, (4 * t + 2) * wide * p, n),
        ("second pass", lambda: second.log_weights(pairs), (2 * shifts + 12) * q * many / n, n),
        ("insertion of a mini-batch", last, 0.0, 1),
    )
    for name, step, flops, divisor in steps:
        took = least(step, 3) / divisor
        what = f"{name} at SNR {snr:g}, {'a particle' if divisor > 1 else 'once'}"
        if flops:
            bench.floor(what, 1e3 * took, "ms", 1e-6 * flops / rate, "its products")
        else:
            bench.add(what, 1e3 * took, "ms")
