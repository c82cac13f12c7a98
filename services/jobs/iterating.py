"""The iterations of a run, told as a job tells of its work: bars, lines, a record, a picture."""

import io
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from algorithms.orientation.symmetry import SymmetryError
from algorithms.refine import written
from algorithms.refine.joining import Change
from algorithms.refine.run import Progress as Done
from algorithms.refine.run import Run, suffix_of
from algorithms.refine.streaming import Stream
from algorithms.refine.types import RefineError
from services.jobs.job import Aborted, Failed, Job
from services.jobs.progress import Progress
from services.jobs.ranks import Ranks, threads_of
from services.kit import iterations
from services.kit.iterations import Iteration
from services.kit.paths import atomic_write
from services.report.classes import class_montage

MONTAGE = "run_classes.png"
R = TypeVar("R", bound=Run)


def run_through(
    job: Job,
    begin: Callable[["Teller"], R],
    prepare: Callable[[R], None] = lambda run: None,
) -> R:
    """Do all iterations that are left of a run, alone or with other processes; return the run.

    Parameters
    ----------
    job
        Whose folder, options and wish to stop count.
    begin
        Returns the run, new or where it was; what it tells goes to the teller.
    prepare
        Is called before each iteration.

    Raises
    ------
    Aborted
        Somebody wants the job to stop; the run can go on.
    Failed
        The run cannot be done; the message says why.
    """
    torch.set_num_threads(threads_of(job))
    told = Teller(job)
    try:
        run = begin(told)
        job.say(
            f"{len(run.data)} particles of {run.data.images.box} px, {run.data.pixel_A:g} A per px"
        )
        if run.model.iteration:
            job.say(f"goes on after iteration {run.model.iteration}")
        told.caught_up(run)
        with Ranks(job, run.device) as ranks:
            run.shards = ranks.shards
            while not run.finished:
                prepare(run)
                run.step()
                told.end(run)
                if job.stop.asked() and not run.finished:
                    number = run.model.iteration
                    raise Aborted(f"stopped after iteration {number}; it can go on there")
    except (RefineError, SymmetryError) as error:
        if job.stop.asked():  # whoever stops all processes of a group stops those that help, too
            raise Aborted("stopped in an iteration; it can go on after the one before") from error
        raise Failed(str(error)) from error
    return run


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
