"""3D auto-refinement as a job: particles and a first map to a map of gold-standard resolution.

Source: refinement.md section 5; options of RELION's job type `relion.refine3d`.
"""

import time
from dataclasses import replace

import numpy as np
import torch

from algorithms.orientation import symmetry
from algorithms.refine import files
from algorithms.refine.auto.rules import Rules
from algorithms.refine.auto.run import AutoRun
from algorithms.refine.auto.settings import Settings
from algorithms.refine.run import Progress as Done
from algorithms.refine.types import Options, RefineError
from services.jobs import threed
from services.jobs.job import Aborted, Failed, Job
from services.jobs.progress import Progress
from services.jobs.ranks import Ranks, device_of, threads_of
from services.kit import iterations
from services.kit.errors import Misuse
from services.kit.iterations import Iteration
from services.kit.paths import atomic_write
from services.report.convergence import convergence

JOIN = "--low_resol_join_halves"
ARGUMENTS = {**threed.ARGUMENTS, JOIN: "A"}
PICTURE = "run_fsc.png"
MOST_ITERATIONS = 999
OVERSAMPLING = 1


def refine3d(job: Job) -> None:
    """Refine a map from the particles of a table, in two halves, until nothing improves."""
    job.refuse_options(
        {
            "fn_cont": "going on from the files of another run",
            "do_blush": "Blush regularisation",
            "do_helix": "refinement of helical segments",
            "ctf_intact_first_peak": "a CTF that is 1 up to its first peak",
            "relax_sym": "relaxation of symmetry",
        }
    )
    arguments = job.extra_arguments(ARGUMENTS)
    torch.set_num_threads(threads_of(job))
    told = _Teller(job)
    try:
        run = _run(job, arguments, told)
        job.say(
            f"{len(run.data)} particles of {run.data.images.box} px, {run.data.pixel_A:g} A per "
            f"px, in halves of {(run.subset == 1).sum()} and {(run.subset == 2).sum()}"
        )
        if run.iteration:
            job.say(f"goes on after iteration {run.iteration}")
        told.caught_up(run)
        with Ranks(job, run.device) as ranks:
            run.shards = ranks.shards
            _iterate(job, run, told)
    except (RefineError, symmetry.SymmetryError) as error:
        if job.stop.asked():  # whoever stops all processes of a group stops those that help, too
            raise Aborted("stopped in an iteration; it can go on after the one before") from error
        raise Failed(str(error)) from error


def _iterate(job: Job, run: AutoRun, told: "_Teller") -> None:
    """Do all iterations that are left."""
    while not run.finished:
        run.step()
        told.end(run)
        if job.stop.asked() and not run.finished:
            raise Aborted(f"stopped after iteration {run.iteration}; it can go on there")
    resolution = run.course.resolutions_A[-1]
    job.say(f"converged after {run.iteration} iterations, {resolution:.2f} A")


def _run(job: Job, arguments: dict[str, str], told: "_Teller") -> AutoRun:
    """Return the run that the options ask for, new or where it was."""
    table = job.project / job.need("fn_img")
    pixel = files.read_data(table, job.project).pixel_A
    options = options_of(job, threed.seed_of(job, arguments))
    options = replace(options, memory_bytes=threed.memory_of(job, arguments))
    join_A = threed.number_of(job, arguments, JOIN, 40.0)
    return AutoRun(
        table,
        job.folder / "run",
        f"{job.process}run",
        job.project,
        options,
        _settings(job, options, join_A, pixel),
        device_of(job),
        told,
    )


def options_of(job: Job, seed: int) -> Options:
    """Return what RELION's options mean: those of 3D classification, with one class."""
    return replace(
        threed.options_of(job, seed),
        n_classes=1,
        iterations=MOST_ITERATIONS,
        tau2_fudge=1.0,
        strict_highres_A=0.0,
        skip_align=False,
    )


def _settings(job: Job, options: Options, join_A: float, pixel_A: float) -> Settings:
    mask = job.options.text("fn_mask")
    has_mask = mask not in ("", "None")
    solvent_fsc = job.options.switch("do_solvent_fsc", False)
    if solvent_fsc and not has_mask:
        raise Misuse(
            f"option do_solvent_fsc of {job.options.job} is Yes, and fn_mask is empty: the halves "
            "are correlated within a mask; give one"
        )
    faster = job.options.switch("auto_faster", False)
    return Settings(
        reference=job.project / job.need("fn_ref"),
        sampling=threed.sampling_of(job, pixel_A),
        mask=job.project / job.need("fn_mask") if has_mask else None,
        solvent_fsc=solvent_fsc,
        join_A=join_A,
        rules=Rules(
            particle_diameter_A=options.particle_diameter_A,
            local_order=_local_order(job),
            oversampling=OVERSAMPLING,
            ignore_angles=faster,
            resol_angles=faster,
        ),
    )


def _local_order(job: Job) -> int:
    """Return the HEALPix order of the coarse grid from which on searches are local."""
    text = job.options.text("auto_local_sampling") or "1.8 degrees"
    angle = text.removesuffix(" degrees")
    if angle not in threed.STEPS:
        known = ", ".join(f"{one} degrees" for one in threed.STEPS)
        raise Misuse(
            f"option auto_local_sampling of {job.options.job} is {text!r}, not one of {known}"
        )
    return threed.STEPS.index(angle)


class _Teller:
    """Tells how far the job is: a bar for each iteration, then a line, a record and a picture."""

    def __init__(self, job: Job):
        self._job = job
        self._bar: Progress | None = None
        self._begun = time.monotonic()
        self._told = iterations.read(job.folder)

    def __call__(self, done: Done) -> None:
        if self._bar is None:
            self._bar = Progress(max(1, done.particles), f"particles, iteration {done.iteration}")
            self._begun = time.monotonic()
        self._bar.advance(done.done)

    def caught_up(self, run: AutoRun) -> None:
        """Tell of the iteration that the run goes on after, if it was killed before it was told."""
        self._told = [one for one in self._told if one.iteration <= run.iteration]
        if run.iteration and not any(one.iteration == run.iteration for one in self._told):
            self._record(run, 0.0)

    def end(self, run: AutoRun) -> None:
        """End the bar of an iteration; tell of it, draw the correlation of the halves."""
        if self._bar is not None:
            self._bar.end()
            self._bar = None
        self._record(run, time.monotonic() - self._begun)
        self._draw(run)
        course, state = run.course, run.course.state
        sampling = course.sampling
        over = sampling.order
        turned = f"{state.changes.turned_deg:.1f} degrees, {state.changes.shifted_A:.1f} A"
        self._job.say(
            f"iteration {run.iteration}: {course.resolutions_A[-1]:.2f} A, "
            f"window {run.model.current_size} px, steps {sampling.angular_step / 2**over:.3g} "
            f"degrees and {sampling.offset_step_A / 2**over:.3g} A"
            + (", local searches" if sampling.sigma_deg > 0.0 else "")
            + f"; poses changed by {turned}; accuracy {float(run.model.accuracy_deg.min()):.2f} "
            f"degrees, {float(run.model.accuracy_A.min()):.2f} A"
        )

    def _record(self, run: AutoRun, took_s: float) -> None:
        suffix = "" if run.finished else f"_it{run.iteration:03d}"
        told = Iteration(
            iteration=run.iteration,
            iterations=run.options.iterations,
            place=float(run.iteration),
            particles=len(run.data),
            total=len(run.data),
            particles_per_s=len(run.data) / max(1e-3, took_s),
            log_likelihood=run.model.log_likelihood,
            resolution_A=run.course.resolutions_A[-1],
            classes_used=1,
            is_last=run.finished,
            files=f"{self._job.process}run{suffix}",
        )
        self._told = [*self._told[-iterations.KEPT :], told]
        iterations.tell(self._job.folder, self._told)

    def _draw(self, run: AutoRun) -> None:
        """Draw the correlation of the halves; a picture never fails a job."""
        course = run.course
        curves = {number: np.array(curve) for number, curve in enumerate(course.curves, 1)}
        resolutions = dict(enumerate(course.resolutions_A, 1))
        try:
            picture = convergence(curves, resolutions, run.model.pixel_A)
            atomic_write(self._job.folder / PICTURE, picture, durable=False)
        except (OSError, ValueError) as error:
            self._job.warn(f"the correlation of the halves could not be drawn: {error}")
