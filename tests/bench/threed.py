"""3D classification beside RELION: one class, HEALPix order 2, 5 px in steps of 1 px.

All times are processor time; RELION's is that of both of its threads.
"""

import resource
import shutil
import time
from pathlib import Path

import torch

from algorithms.refine.run import Progress
from algorithms.refine.space.run import Maps, SpaceRun
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.types import Options
from tests.bench import relion
from tests.bench.figures import Bench
from tests.shared import SHARED

REFINE = "relion_refine"
PARTICLES = SHARED / "data" / "particles" / "sim_30S"
ITERATIONS, DIAMETER_A = 3, 300.0
PIXEL_A = 6.0
TIMES_RELION = 15.0
WHAT = "3D classification, K = 1, HEALPix order 2, 5 px / 1 px, 3 iterations"


def run(bench: Bench) -> None:
    """Measure the three iterations, and RELION's where it is installed."""
    if not PARTICLES.exists():
        bench.note("Not measured: the reference particles are not on this machine.")
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in ("particles.star", "particles.mrcs", "reference.mrc"):
            (bench.folder / name).symlink_to(PARTICLES / name)
        table = bench.folder / "particles.star"
        ours = _ours(bench, table, bench.folder / "ours")
        if shutil.which(REFINE) is None:
            bench.add(WHAT, ours, "s")
            bench.note(relion.missing(REFINE))
            return
        bench.say("RELION")
        peer = _theirs(table, bench.folder)
        bench.peer(WHAT, ours, "s", peer, relion.version())
        bench.goal("the same, in times RELION", peer / ours, "x", TIMES_RELION, "goal")
    finally:
        torch.set_num_threads(threads)


def _ours(bench: Bench, table: Path, out: Path) -> float:
    out.mkdir()
    options = Options(
        n_classes=1, iterations=ITERATIONS, particle_diameter_A=DIAMETER_A, tau2_fudge=4.0, seed=7,
        center_classes=False, ini_high_A=60.0, first_cc=True, memory_bytes=1 << 30,
    )  # fmt: skip
    sampling = Sampling3D(
        healpix_order=2, psi_step_deg=15.0, offset_range_A=5 * PIXEL_A, offset_step_A=2 * PIXEL_A
    )

    def tell(done: Progress) -> None:
        bench.say(f"iteration {done.iteration}: {done.done} of {done.particles} particles")

    maps = Maps(table.with_name("reference.mrc"))
    made = SpaceRun(table, out / "run", "run", table.parent, options, (sampling, maps), tell=tell)
    begun = time.process_time()
    made.run()
    return time.process_time() - begun


def _theirs(table: Path, folder: Path) -> float:
    command = [
        REFINE, "--i", str(table), "--o", str(folder / "theirs"), "--ref",
        str(table.with_name("reference.mrc")), "--firstiter_cc", "--ini_high", "60", "--iter",
        str(ITERATIONS), "--K", "1", "--tau2_fudge", "4", "--healpix_order", "2", "--offset_range",
        "5", "--offset_step", "2", "--ctf", "--particle_diameter", str(DIAMETER_A),
        "--flatten_solvent", "--zero_mask", "--oversampling", "1", "--norm", "--scale",
        "--random_seed", "7", "--j", "2", "--pool", "3", "--dont_combine_weights_via_disc",
        "--pad", "2", "--sym", "C1",
    ]  # fmt: skip
    before = _of_children()
    relion.run([command], folder)
    return _of_children() - before


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
