"""3D classification as a job: particles and a first map to maps and classes, by EM.

Source: schemes.md section 14, refinement.md.
"""

import math
import zlib
from dataclasses import replace

from algorithms.orientation import healpix, symmetry
from algorithms.refine import files
from algorithms.refine.space.run import Maps, SpaceRun
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.types import Options
from services.jobs.classes import SEED
from services.jobs.iterating import Teller, run_through
from services.jobs.job import Job
from services.jobs.ranks import device_of
from services.kit.errors import Misuse

MEMORY = "--memory"
LEAST_BYTES = 1 << 26
ARGUMENTS = {SEED: "N", MEMORY: "GB of temporary arrays"}
# RELION's choices of the fine step; the coarse HEALPix order is the place in the list.
STEPS = ("30", "15", "7.5", "3.7", "1.8", "0.9", "0.5", "0.2", "0.1")
SIGMAS = 3.0  # the range of a local search is so many standard deviations
_NOT_DONE = {
    "ctf_intact_first_peak": "a CTF that is 1 up to its first peak",
    "do_helix": "classification of helical segments",
    "allow_coarser": "a sampling that depends on the accuracy",
    "do_blush": "a learned prior",
    "do_fast_subsets": "first iterations with some of the particles",
}


def class3d(job: Job) -> None:
    """Classify the particles of a table in three dimensions."""
    _check(job)
    arguments = job.extra_arguments(ARGUMENTS)
    run_through(job, lambda told: _run(job, arguments, told))


def _check(job: Job) -> None:
    job.refuse_options(_NOT_DONE)
    for name, what in (("fn_cont", "going on from other runs"), ("relax_sym", "relaxed symmetry")):
        if job.options.text(name) not in ("", "None"):
            raise Misuse(
                f"option {name} of {job.options.job}: {what} is not done by the native executor in "
                "three dimensions; leave it empty, or run the job with the executor relion"
            )


def _run(job: Job, arguments: dict[str, str], told: Teller) -> SpaceRun:
    """Return the run that the options ask for, new or where it was."""
    table = job.project / job.need("fn_img")
    pixel = files.read_data(table, job.project).pixel_A
    seed = seed_of(job, arguments)
    mask = job.options.text("fn_mask")
    return SpaceRun(
        table,
        job.folder / "run",
        f"{job.process}run",
        job.project,
        replace(options_of(job, seed), memory_bytes=memory_of(job, arguments)),
        (
            sampling_of(job, pixel),
            Maps(
                job.project / job.need("fn_ref"),
                None if mask in ("", "None") else job.project / job.need("fn_mask"),
            ),
        ),
        device_of(job),
        told,
    )


def number_of(job: Job, arguments: dict[str, str], name: str, default: float) -> float:
    """Return a finite number among the additional arguments, or the default.

    Raises
    ------
    Misuse
        It is none.
    """
    text = arguments.get(name, str(default))
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise Misuse(f"option other_args of {job.options.job}: {name} takes a number, not {text!r}")
    return found


def seed_of(job: Job, arguments: dict[str, str]) -> int:
    """Return the seed that is given; without one, or a negative one, that of the job's name.

    Raises
    ------
    Misuse
        It is no whole number.
    """
    given = number_of(job, arguments, SEED, -1)
    if not given.is_integer():
        raise Misuse(
            f"option other_args of {job.options.job}: {SEED} takes a whole number, not "
            f"{arguments[SEED]!r}"
        )
    return int(given) if given >= 0 else zlib.crc32(job.process.encode()) % 1_000_000


def memory_of(job: Job, arguments: dict[str, str]) -> int:
    """Return the bytes of temporary arrays."""
    return max(LEAST_BYTES, int(number_of(job, arguments, MEMORY, 1.0) * (1 << 30)))


def options_of(job: Job, seed: int) -> Options:
    """Return what RELION's options mean."""
    options = job.options
    return Options(
        n_classes=options.whole("nr_classes", 1, 1, 1000),
        iterations=options.whole("nr_iter", 25, 1, 999),
        particle_diameter_A=options.number("particle_diameter", 200.0, 1.0, 1e5),
        tau2_fudge=options.number("tau_fudge", 4.0, 0.01, 1e3),
        zero_mask=options.switch("do_zero_mask", True),
        ctf=options.switch("do_ctf_correction", True),
        center_classes=False,
        strict_highres_A=max(0.0, options.number("highres_limit", -1.0, -1.0, 1000.0)),
        ini_high_A=max(0.0, options.number("ini_high", 60.0, -1.0, 1e4)),
        first_cc=not options.switch("ref_correct_greyscale", False),
        symmetry=symmetry.normalised(options.text("sym_name", "C1") or "C1"),
        skip_align=not options.switch("dont_skip_align", True),
        resize_reference=options.switch("trust_ref_size", True),
        pad=1 if options.switch("do_pad1", False) else 2,
        seed=seed,
    )


def sampling_of(job: Job, pixel_A: float) -> Sampling3D:
    """Return the coarse sampling: RELION's options are those of the fine one, in degrees and px."""
    options = job.options
    words = options.text("sampling", "7.5 degrees").split()
    if not words or words[0] not in STEPS:
        raise Misuse(
            f"option sampling of {options.job} is {' '.join(words)!r}: give one of "
            f"{', '.join(STEPS)} degrees"
        )
    order = STEPS.index(words[0])
    local = options.switch("do_local_ang_searches", False)
    reach = options.number("sigma_angles", 5.0, 0.0, 180.0) if local else 0.0
    return Sampling3D(
        healpix_order=order,
        symmetry=symmetry.normalised(options.text("sym_name", "C1") or "C1"),
        sigma_deg=reach / SIGMAS,
        psi_step_deg=healpix.step_deg(order),
        offset_range_A=options.number("offset_range", 5.0, 0.0, 100.0) * pixel_A,
        offset_step_A=2.0 * options.number("offset_step", 1.0, 0.1, 50.0) * pixel_A,
    )
