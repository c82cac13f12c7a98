"""2D classification as a job: particles to classes, by VDAM or EM.

Source: schemes.md section 14, refinement.md.
"""

import io
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from algorithms.formats import star
from algorithms.refine import continued, files, written
from algorithms.refine.continued import Before
from algorithms.refine.joining import Change
from algorithms.refine.run import Progress as Done
from algorithms.refine.run import Run, suffix_of
from algorithms.refine.sampling import Sampling
from algorithms.refine.streaming import Stream
from algorithms.refine.types import Options, RefineError
from services.jobs.job import Aborted, Failed, Job
from services.jobs.progress import Progress
from services.jobs.ranks import Ranks, device_of, threads_of
from services.kit import iterations
from services.kit.errors import Misuse
from services.kit.iterations import Iteration
from services.kit.paths import atomic_write
from services.kit.tables import save_table
from services.proc.gathering import Gatherer
from services.report.classes import class_montage

SEED = "--random_seed"
STREAMING = "--streaming"
REPLACEMENT = "--class_replacement"  # what becomes of a class that ran empty, in VDAM
ARGUMENTS = {SEED: "N", STREAMING: "Yes|No", REPLACEMENT: "copy|split"}
MONTAGE = "run_classes.png"
# A person who wants the classes of all particles now, of a set that still grows, makes this file.
CONCLUDE = "COLDSTREAM_CLASSIFY_ALL_NOW"


def class2d(job: Job) -> None:
    """Classify the particles of a table in two dimensions."""
    _check(job)
    arguments = job.extra_arguments(ARGUMENTS)
    torch.set_num_threads(threads_of(job))
    told, gatherer = Teller(job), Gatherer(job.project, job.folder)
    gatherer.update()
    try:
        run = _run(job, arguments, told)
        job.say(
            f"{len(run.data)} particles of {run.data.images.box} px, {run.data.pixel_A:g} A per px"
        )
        if run.model.iteration:
            job.say(f"goes on after iteration {run.model.iteration}")
        told.caught_up(run)
        with Ranks(job, run.device) as ranks:
            run.shards = ranks.shards
            _iterate(job, run, told, gatherer)
    except RefineError as error:
        if job.stop.asked():  # whoever stops all processes of a group stops those that help, too
            raise Aborted("stopped in an iteration; it can go on after the one before") from error
        raise Failed(str(error)) from error
    (job.folder / CONCLUDE).unlink(missing_ok=True)
    if run.model.iteration != run.options.iterations:
        _declare(job, run)


def _iterate(job: Job, run: Run, told: "Teller", gatherer: Gatherer) -> None:
    """Do all iterations that are left."""
    while not run.finished:
        if isinstance(run, Stream):
            gatherer.update()
        if isinstance(run, Stream) and (job.folder / CONCLUDE).exists():
            run.conclude()
        run.step()
        told.end(run)
        if job.stop.asked() and not run.finished:
            raise Aborted(f"stopped after iteration {run.model.iteration}; it can go on there")


def _run(job: Job, arguments: dict[str, str], told: "Teller") -> Run:
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


class Teller:
    """Tells how far the job is: a bar for each iteration, then a line, a record and a picture."""

    def __init__(self, job: Job):
        self._job = job
        self._bar: Progress | None = None
        self._begun = time.monotonic()
        self._told = iterations.read(job.folder)

    def __call__(self, done: Done) -> None:
        """Move the bar of an iteration on."""
        if self._bar is None:
            self._bar = Progress(max(1, done.particles), f"particles, iteration {done.iteration}")
            self._begun = time.monotonic()
        self._bar.advance(done.done)

    def joined(self, change: Change) -> None:
        """Tell of particles that have come or gone."""
        gone = f", {change.went} are not there any more" if change.went else ""
        self._job.say(f"{change.came} particles have joined{gone}")

    def caught_up(self, run: Run) -> None:
        """Tell of the iteration that the run goes on after, if it was killed before it was told."""
        model = run.model
        self._told = [one for one in self._told if one.iteration <= model.iteration]
        if model.iteration and not any(one.iteration == model.iteration for one in self._told):
            self._record(run, 0, 0.0)

    def end(self, run: Run) -> None:
        """End the bar of an iteration; draw the classes."""
        particles = self._bar.done if self._bar is not None else 0
        if self._bar is not None:
            self._bar.end()
            self._bar = None
        self._draw(run, particles)
        told = self._record(run, particles, time.monotonic() - self._begun)
        has_place = isinstance(run, Stream)
        place = f"place {told.place:.0f}" if has_place else f"iteration {told.iteration}"
        number = f"iteration {told.iteration}, " if has_place else ""
        self._job.say(
            f"{number}{place} of {told.iterations}: {particles} particles, "
            f"{told.particles_per_s:.0f}/s, log-likelihood {told.log_likelihood:.6g}, "
            f"{told.resolution_A:.1f} A, {told.classes_used} of {run.model.n_classes} classes "
            "above half of the mean"
        )

    def _record(self, run: Run, particles: int, took_s: float) -> Iteration:
        model, number = run.model, run.model.iteration
        suffix = suffix_of(number)
        is_written = (self._job.folder / f"run{suffix}_optimiser.star").exists()
        told = Iteration(
            iteration=number,
            iterations=run.options.iterations,
            place=model.place or float(number),
            particles=particles,
            total=len(run.data),
            particles_per_s=particles / max(1e-3, took_s),
            log_likelihood=model.log_likelihood,
            resolution_A=model.box * model.pixel_A / model.resolution_shell,
            classes_used=int((model.fractions > 0.5 / model.n_classes).sum()),
            is_last=run.finished,
            files=f"{self._job.process}run{suffix}" if is_written else "",
        )
        self._told = [*self._told[-iterations.KEPT :], told]
        iterations.tell(self._job.folder, self._told)
        return told

    def _draw(self, run: Run, particles: int) -> None:
        """Draw the classes; a picture never fails a job."""
        names = [MONTAGE]
        if run.writes(run.model.iteration, particles):
            names.append(f"run{suffix_of(run.model.iteration)}_classes.png")
        try:
            maps = run.model.references  # of volumes, the projections along z
            picture = class_montage(
                (maps if run.model.dim == 2 else maps.sum(1)).numpy(),
                run.model.fractions.numpy(),
                written.estimated_resolution_A(run.model),
                len(run.data),
            )
            content = io.BytesIO()
            picture.save(content, "PNG")
            for target in names:
                atomic_write(self._job.folder / target, content.getvalue(), durable=False)
        except (OSError, ValueError) as error:
            self._job.warn(f"the classes could not be drawn: {error}")
