"""The initial model as a job: particles to a first map, from nothing.

VDAM in C1, then the largest class, laid along the axes of the point group and averaged over it.

Source: refinement.md sections 4 and 6; options of RELION's job type `relion.initialmodel`.
"""

from algorithms.formats import mrc
from algorithms.orientation import symmetry
from algorithms.orientation.symmetry import SymmetryError
from algorithms.refine import files
from algorithms.refine.space.firstmodel import FirstModelRun, first_sampling
from algorithms.refine.types import Options
from services.jobs.classes import SEED
from services.jobs.iterating import Teller, run_through
from services.jobs.job import Job
from services.jobs.ranks import device_of
from services.jobs.symmetry import largest_class
from services.jobs.threed import seed_of
from services.kit.errors import Misuse
from services.kit.paths import atomic_write

ARGUMENTS = {SEED: "N"}
POSES_OF_A_CLASS = 100  # significant ones at most, of each class
MODEL = "initial_model.mrc"


def initialmodel(job: Job) -> None:
    """Make a first map of the particles of a table."""
    job.refuse_options(
        {
            "fn_cont": "going on from the files of another run",
            "ctf_intact_first_peak": "a CTF that is 1 up to its first peak",
        }
    )
    arguments = job.extra_arguments(ARGUMENTS)
    run = run_through(job, lambda told: _run(job, arguments, told))
    _choose(job, run)


def _run(job: Job, arguments: dict[str, str], told: Teller) -> FirstModelRun:
    """Return the run that the options ask for, new or where it was."""
    table = job.project / job.need("fn_img")
    pixel = files.read_data(table, job.project).pixel_A
    options = options_of(job, seed_of(job, arguments))
    return FirstModelRun(
        table,
        job.folder / "run",
        f"{job.process}run",
        job.project,
        options,
        first_sampling(pixel, options.symmetry),
        device_of(job),
        told,
    )


def options_of(job: Job, seed: int) -> Options:
    """Return what RELION's options mean."""
    options = job.options
    k = options.whole("nr_classes", 1, 1, 100)
    group = group_of(job)
    return Options(
        n_classes=k,
        iterations=options.whole("nr_iter", 200, 5, 999),
        particle_diameter_A=options.number("particle_diameter", 200.0, 1.0, 1e5),
        gradient=True,
        tau2_fudge=options.number("tau_fudge", 4.0, 0.01, 1e3),
        ctf=options.switch("do_ctf_correction", True),
        norm=False,
        scale=False,
        center_classes=False,
        flatten_solvent=options.switch("do_solvent", True),
        max_significants=POSES_OF_A_CLASS * k,
        inactivity=0.0,
        pad=1,
        symmetry="C1" if options.switch("do_run_C1", True) else group,
        seed=seed,
    )


def group_of(job: Job) -> str:
    """Return the point group that the model is to have.

    Raises
    ------
    Misuse
        There is no such group.
    """
    try:
        return symmetry.normalised(job.options.text("sym_name", "C1") or "C1")
    except SymmetryError as error:
        raise Misuse(f"option sym_name of {job.options.job}: {error}") from error


def _choose(job: Job, run: FirstModelRun) -> None:
    """Write the largest class as the initial model."""
    later = job.options.switch("do_run_C1", True)
    group = group_of(job) if later else "C1"
    chosen = largest_class(run.model, group, run.options.particle_diameter_A)
    atomic_write(job.folder / MODEL, mrc.encode(chosen.volume.numpy(), run.data.pixel_A))
    job.say(f"class {chosen.number} with {100.0 * chosen.share:.0f} % of the particles is taken")
    if group != "C1":
        job.say(
            f"laid along the axes of {group}: operators correlate by {chosen.worst:.2f} at least"
        )
    if chosen.is_doubtful:
        job.warn(
            f"the map hardly has the symmetry {group}: an operator correlates by "
            f"{chosen.worst:.2f} only; see what it has with `coldstream symmetry`"
        )
