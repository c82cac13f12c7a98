"""2D classification as a job: particles to classes, by VDAM or EM.

Source: schemes.md section 14, refinement.md.
"""

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from algorithms.formats import star
from algorithms.refine import continued, files
from algorithms.refine.continued import Before
from algorithms.refine.run import Run, suffix_of
from algorithms.refine.sampling import Sampling
from algorithms.refine.streaming import Stream
from algorithms.refine.types import Options
from services.jobs.iterating import Teller, run_through
from services.jobs.job import Job
from services.jobs.ranks import device_of
from services.kit.errors import Misuse
from services.kit.tables import save_table
from services.proc.gathering import Gatherer

SEED = "--random_seed"
STREAMING = "--streaming"
REPLACEMENT = "--class_replacement"  # what becomes of a class that ran empty, in VDAM
ARGUMENTS = {SEED: "N", STREAMING: "Yes|No", REPLACEMENT: "copy|split"}
# A person who wants the classes of all particles now, of a set that still grows, makes this file.
CONCLUDE = "COLDSTREAM_CLASSIFY_ALL_NOW"


def class2d(job: Job) -> None:
    """Classify the particles of a table in two dimensions."""
    _check(job)
    arguments = job.extra_arguments(ARGUMENTS)
    gatherer = Gatherer(job.project, job.folder)
    gatherer.update()

    def prepare(run: Run) -> None:
        if isinstance(run, Stream):
            gatherer.update()
            if (job.folder / CONCLUDE).exists():
                run.conclude()

    run = run_through(job, lambda told: _run(job, arguments, told), prepare)
    (job.folder / CONCLUDE).unlink(missing_ok=True)
    if run.model.iteration != run.options.iterations:
        _declare(job, run)


def _run(job: Job, arguments: dict[str, str], told: Teller) -> Run:
    """Return the run that the options ask for, new or where it was."""
    streams = _streams(job, arguments)
    before = _before(job)
    if before is not None and streams:
        raise Misuse(
            f"options fn_cont and {STREAMING} of {job.options.job}: a set that grows is begun "
            "with its particles, not with the files of another run; leave one of them out"
        )
    table = Path(job.need("fn_img" if before is None else "fn_cont"))
    data = job.project / table if before is None else before.data
    pixel = files.read_data(data, job.project).pixel_A
    given = int(arguments.get(SEED, "-1"))
    own = before.seed if before else zlib.crc32(job.process.encode()) % 1_000_000
    options = options_of(job, given if given >= 0 else own)
    options = replace(options, replacement=_replacement(job, arguments))
    if before is not None:
        options = _as_before(job, options, before)
    kind: Callable[..., Run] = Run
    if streams:
        kind = lambda *given: Stream(*given, joined=told.joined)  # noqa: E731
    return kind(
        job.project / table,
        job.folder / "run",
        f"{job.process}run",
        job.project,
        options,
        sampling_of(job, pixel),
        device_of(job),
        told,
    )


def _streams(job: Job, arguments: dict[str, str]) -> bool:
    word = arguments.get(STREAMING, "No")
    if word not in ("Yes", "No"):
        raise Misuse(f"option other_args of {job.options.job}: {STREAMING} takes Yes or No")
    return word == "Yes"


def _replacement(job: Job, arguments: dict[str, str]) -> Literal["copy", "split"]:
    word = arguments.get(REPLACEMENT, "copy")
    if word not in ("copy", "split"):
        raise Misuse(f"option other_args of {job.options.job}: {REPLACEMENT} takes copy or split")
    return "copy" if word == "copy" else "split"


def _before(job: Job) -> Before | None:
    """Return the iteration that the job is to go on from."""
    if job.options.text("fn_cont") in ("", "None"):
        return None
    return continued.read(job.project / job.need("fn_cont"))


def _as_before(job: Job, options: Options, before: Before) -> Options:
    """Return the options of a run that goes on, as RELION takes them: some are in its files.

    Raises
    ------
    Misuse
        The job's options say otherwise where that cannot be.
    """
    if options.gradient != before.gradient:
        which = "do_grad" if before.gradient else "do_em"
        raise Misuse(
            f"option {which} of {job.options.job} has to be Yes: {before.root} is of such a run"
        )
    if options.n_classes != before.n_classes:
        raise Misuse(
            f"option nr_classes of {job.options.job} is {options.n_classes}, but {before.root} has "
            f"{before.n_classes} classes: set it to {before.n_classes}"
        )
    return replace(
        options,
        ctf=before.ctf,
        zero_mask=before.zero_mask,
        strict_highres_A=before.strict_highres_A,
    )


def options_of(job: Job, seed: int) -> Options:
    """Return what RELION's options mean."""
    options = job.options
    em = options.switch("do_em", False)
    if em == options.switch("do_grad", not em):
        raise Misuse(f"options do_em and do_grad of {options.job}: exactly one of them must be Yes")
    highres = options.number("highres_limit", -1.0, -1.0, 1000.0)
    return Options(
        n_classes=options.whole("nr_classes", 1, 1, 1000),
        iterations=options.whole("nr_iter_em" if em else "nr_iter_grad", 25 if em else 200, 1, 999),
        particle_diameter_A=options.number("particle_diameter", 200.0, 1.0, 1e5),
        gradient=not em,
        tau2_fudge=options.number("tau_fudge", 2.0, 0.01, 1e3),
        zero_mask=options.switch("do_zero_mask", True),
        ctf=options.switch("do_ctf_correction", True),
        center_classes=options.switch("do_center", True),
        strict_highres_A=max(0.0, highres),
        seed=seed,
    )


def sampling_of(job: Job, pixel_A: float) -> Sampling:
    """Return the coarse sampling: RELION's options are those of the fine one, in degrees and px."""
    options = job.options
    return Sampling(
        psi_step_deg=2.0 * options.number("psi_sampling", 6.0, 0.1, 90.0),
        offset_range_A=options.number("offset_range", 5.0, 0.0, 100.0) * pixel_A,
        offset_step_A=2.0 * options.number("offset_step", 1.0, 0.1, 50.0) * pixel_A,
    )


def _check(job: Job) -> None:
    job.refuse_options(
        {
            "ctf_intact_first_peak": "a CTF that is 1 up to its first peak",
            "do_helix": "classification of helical segments",
            "allow_coarser": "a sampling that depends on the accuracy",
        }
    )
    if not job.options.switch("dont_skip_align", True):
        raise Misuse(
            f"option dont_skip_align of {job.options.job} is No: classification without alignment "
            "is not done by the native executor; run the job with the executor relion"
        )


def _declare(job: Job, run: Run) -> None:
    """Declare the results where the number of the last iteration is not the one in the options."""
    root = f"{job.process}run{suffix_of(run.model.iteration)}"
    nodes = {
        "rlnPipeLineNodeName": [f"{root}_data.star", f"{root}_optimiser.star"],
        "rlnPipeLineNodeTypeLabel": [
            "ParticleGroupMetadata.star.relion.class2d",
            "OptimiserData.star.relion.class2d",
        ],
    }
    save_table(job.folder / "RELION_OUTPUT_NODES.star", {"output_nodes": star.Table.of(nodes)})
