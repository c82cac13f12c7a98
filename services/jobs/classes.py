"""2D classification as a job: particles to classes, by VDAM or EM.

Source: schemes.md section 14, refinement.md.
"""

import io
import re
import time
import zlib
from pathlib import Path

import torch

from algorithms.refine import files, written
from algorithms.refine.run import Progress as Done
from algorithms.refine.run import Run
from algorithms.refine.sampling import Sampling
from algorithms.refine.types import Options, RefineError
from services.jobs.job import Aborted, Failed, Job
from services.jobs.progress import Progress
from services.kit.errors import Misuse
from services.kit.paths import atomic_write
from services.report.classes import class_montage

SEED = "--random_seed"
MONTAGE = "run_classes.png"


def class2d(job: Job) -> None:
    """Classify the particles of a table in two dimensions."""
    _check(job)
    arguments = job.extra_arguments({SEED: "N"})
    given = int(arguments.get(SEED, "-1"))
    seed = given if given >= 0 else zlib.crc32(job.process.encode()) % 1_000_000
    particles = Path(job.need("fn_img"))
    threads = job.options.whole("nr_threads", 1, 1, 1024) * job.options.whole("nr_mpi", 1, 1, 1024)
    torch.set_num_threads(threads)
    told = _Teller(job)
    try:
        pixel = files.read_data(job.project / particles, job.project).pixel_A
        run = Run(
            job.project / particles,
            job.folder / "run",
            f"{job.process}run",
            job.project,
            options_of(job, seed),
            sampling_of(job, pixel),
            _device(job),
            told,
        )
        job.say(f"{len(run.data)} particles of {run.data.images.box} px, {pixel:g} A per px")
        if run.model.iteration:
            job.say(f"goes on after iteration {run.model.iteration}")
        while run.model.iteration < run.options.iterations:
            run.step()
            told.end(run)
            if job.stop.asked():
                raise Aborted(f"stopped after iteration {run.model.iteration}; it can go on there")
    except RefineError as error:
        raise Failed(str(error)) from error


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
            "fn_cont": "going on from another run",
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


def _device(job: Job) -> str:
    if not job.options.switch("use_gpu", False):
        return "cpu"
    if not torch.cuda.is_available():
        job.say("note: use_gpu is Yes, but there is no GPU: the processor does it")
        return "cpu"
    first = re.split(r"[:, ]", job.options.text("gpu_ids", "").strip('"'))[0]
    return f"cuda:{first}" if first.isdigit() else "cuda"


class _Teller:
    """Tells how far the job is: a bar for each iteration, then a line."""

    def __init__(self, job: Job):
        self._job = job
        self._bar: Progress | None = None
        self._begun = time.monotonic()

    def __call__(self, done: Done) -> None:
        if self._bar is None:
            self._bar = Progress(max(1, done.particles), f"particles, iteration {done.iteration}")
            self._begun = time.monotonic()
        self._bar.advance(done.done)

    def end(self, run: Run) -> None:
        """End the bar of an iteration; draw the classes when its files are written."""
        particles = self._bar.done if self._bar is not None else 0
        if self._bar is not None:
            self._bar.end()
            self._bar = None
        model = run.model
        speed = particles / max(1e-3, time.monotonic() - self._begun)
        resolution = model.box * model.pixel_A / model.resolution_shell
        self._job.say(
            f"iteration {model.iteration} of {run.options.iterations}: {particles} particles, "
            f"{speed:.0f}/s, log-likelihood {model.log_likelihood:.6g}, {resolution:.1f} A, "
            f"{int((model.fractions > 0.5 / model.n_classes).sum())} of {model.n_classes} classes "
            "above half of the mean"
        )
        if run.writes(model.iteration, particles):
            self._draw(run)

    def _draw(self, run: Run) -> None:
        """Draw the classes; a picture never fails a job."""
        try:
            picture = class_montage(
                run.model.references.numpy(),
                run.model.fractions.numpy(),
                written.estimated_resolution_A(run.model),
                len(run.data),
            )
            content = io.BytesIO()
            picture.save(content, "PNG")
            name = f"run_it{run.model.iteration:03d}_classes.png"
            for target in (name, MONTAGE):
                atomic_write(self._job.folder / target, content.getvalue(), durable=False)
        except (OSError, ValueError) as error:
            self._job.warn(f"the classes could not be drawn: {error}")
