"""Particle picking as a job: micrographs to coordinates.

Source: schemes.md section 15, preprocessing.md sections 4.1 and 7.4.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from algorithms.formats import star
from services.jobs.items import do_items, identity
from services.jobs.job import Job
from services.jobs.logfile import write_logfile
from services.jobs.planning import Item
from services.jobs.tables import ORIGINAL_PIXEL, PIXEL, Images
from services.jobs.topaz import topaz_items
from services.kit.errors import Misuse
from services.kit.tables import save_table
from services.proc import plan
from services.proc.requests import PickResult

NAME = "rlnMicrographName"
UNDONE = {
    "do_pick_helical_segments": "picking of helical segments",
    "do_read_fom_maps": "picking from maps of the figure of merit",
    "do_write_fom_maps": "writing maps of the figure of merit",
}


class _Image(NamedTuple):
    """What the table says about a micrograph."""

    movie: str
    micrograph: str
    pixel_size_A: float


def autopick(job: Job) -> None:
    """Pick particles with the Laplacian of Gaussian in the micrographs of a table."""
    job.extra_arguments({})
    job.refuse_options(UNDONE)
    options = job.options
    low, high = (options.number(f"log_diam_{end}", 180.0, 1.0, 1e5) for end in ("min", "max"))
    if low > high:
        raise Misuse(
            f"option log_diam_min of {options.job} is {low:g} and log_diam_max {high:g}: "
            "the first must not be larger"
        )
    if options.switch("use_gpu", False):
        job.say("note: this picker needs no GPU; use_gpu is not looked at")
    requests = [plan.pick_request(image, options, job.process) for image in _micrographs(job)]
    call = "services.proc.tasks:autopick"
    _do(
        job,
        [Item(r.micrograph, (r.micrograph,), call, r, facts=(r.pixel_size_A,)) for r in requests],
    )


def topaz(job: Job) -> None:
    """Pick particles with Topaz, which has to be installed, in the micrographs of a table."""
    job.extra_arguments({})
    job.refuse_options({**UNDONE, "do_topaz_filaments": "picking of filaments"})
    _do(job, topaz_items(job, _micrographs(job)))


def _micrographs(job: Job) -> list[_Image]:
    """Return the micrographs of the job's table."""
    micrographs = Images(job.project, job.need("fn_input_autopick"), "micrographs")
    names = micrographs.texts(NAME)
    given = job.options.number("angpix", -1.0)
    pixels = (
        micrographs.optics_floats(PIXEL, ORIGINAL_PIXEL) if given <= 0 else [given] * len(names)
    )
    return [_Image(identity(n), n, pixel) for n, pixel in zip(names, pixels, strict=True)]


def _do(job: Job, items: list[Item]) -> None:
    named = {item.name: item.request for item in items}

    def write(done: dict[str, bytes]) -> None:
        results = [msgspec.msgpack.decode(data, type=PickResult) for data in done.values()]
        _write(job, [named[name] for name in done], results)

    do_items(job, items, "micrographs", write)


def _write(job: Job, asks: Sequence[Any], results: list[PickResult]) -> None:
    micrographs = [ask.micrograph for ask in asks]
    files = {NAME: micrographs, "rlnMicrographCoordinates": [ask.coordinates for ask in asks]}
    summary = {
        NAME: micrographs,
        "rlnAutopickFigureOfMerit": [r.mean_figure_of_merit for r in results],
        "rlnGroupNrParticles": [r.n_particles for r in results],
    }
    save_table(job.folder / "autopick.star", {"coordinate_files": star.Table.of(files)})
    save_table(job.folder / "summary.star", {"": star.Table.of(summary)})
    shown = {
        "Particles per micrograph": [r.n_particles for r in results],
        "Mean figure of merit": [r.mean_figure_of_merit for r in results],
    }
    write_logfile(job.folder / "logfile.pdf", f"{job.process} picking", shown)
    job.say(f"{sum(r.n_particles for r in results)} particles in {len(results)} micrographs")
