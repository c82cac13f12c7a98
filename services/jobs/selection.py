"""Selection as jobs: rows of a table by value, by image statistics, in parts, without duplicates.

The rules are those of RELION's `relion_star_handler`, found by running version 3.1.3.
Source: schemes.md sections 10 and 15, preprocessing.md section 6.1.
"""

import math
import random
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from algorithms.formats import mrc, star
from algorithms.formats.errors import FormatError
from services.jobs.job import Aborted, Failed, Job
from services.jobs.progress import Progress
from services.jobs.tables import Images, save
from services.kit.errors import Misuse
from services.kit.limits import limits_of
from services.kit.tables import save_table

MICROGRAPHS = "MicrographGroupMetadata.star.relion"
PARTICLES = "ParticleGroupMetadata.star.relion"
SEED = 1  # of a random order: the same parts at each call


def on_value(job: Job) -> None:
    """Keep the rows whose values lie between two bounds each, both included."""
    limits = limits_of(job.options)
    images, name = _input(job, takes_arguments=True)
    keep = set(range(len(images)))
    for limit in limits:
        inside = {i for i, value in enumerate(images.floats(limit.label)) if limit.holds(value)}
        keep &= inside
        job.say(
            f"{limit.label} is between {limit.low:g} and {limit.high:g} in {len(inside)} of "
            f"{len(images)} rows"
        )
    _save(job, images, name, sorted(keep))


def discard(job: Job) -> None:
    """Leave out images whose mean or deviation is far from that of the others."""
    images, name = _input(job)
    label = job.options.text("discard_label", "rlnImageName").removeprefix("_")
    sigma = job.options.number("discard_sigma", 4.0, 0.0, 1e6)
    statistics = _statistics(job, images.texts(label))
    centre, spread = statistics.mean(0), statistics.std(0)
    far = (np.abs(statistics - centre) > sigma * spread).any(1)
    _save(job, images, name, np.flatnonzero(~far).tolist())
    job.say(f"{int(far.sum())} of {len(images)} images are further than {sigma:g} sigma away")


def split(job: Job) -> None:
    """Divide a table into parts of equal number or of a given size."""
    images, name = _input(job)
    options = job.options
    parts, size = options.whole("nr_split", -1), options.whole("split_size", 100)
    if parts <= 0 and size <= 0:
        raise Misuse(
            f"options nr_split and split_size of {options.job} are {parts} and {size}: one of "
            "them must be above 0"
        )
    order = list(range(len(images)))
    if options.switch("do_random", False):
        random.Random(SEED).shuffle(order)  # noqa: S311
    if parts > 0:
        size = max(1, math.ceil(len(order) / parts))
    files = []
    for first in range(0, len(order), size):
        files.append(f"{name.removesuffix('.star')}_split{len(files) + 1}.star")
        _save(job, images, files[-1], order[first : first + size])
    label = MICROGRAPHS if name == "micrographs.star" else PARTICLES
    nodes = {
        "rlnPipeLineNodeName": [f"{job.process}{file}" for file in files],
        "rlnPipeLineNodeTypeLabel": [label] * len(files),
    }
    save_table(job.folder / "RELION_OUTPUT_NODES.star", {"output_nodes": star.Table.of(nodes)})
    job.say(f"{len(order)} rows in {len(files)} files of up to {size}")


def remove_duplicates(job: Job) -> None:
    """Leave out each particle with a later one within a distance in A."""
    from scipy.spatial import KDTree  # as slow to load as all the rest of this program

    images, name = _input(job)
    distance_A = job.options.number("duplicate_threshold", 30.0, 0.0, 1e6)
    pixel = job.options.number("image_angpix", -1.0)
    pixels = images.optics_floats("rlnImagePixelSize") if pixel <= 0 else [pixel] * len(images)
    # Coordinates are px of the micrograph, origins A.
    points_A = np.column_stack(
        [
            np.array(images.floats(f"rlnCoordinate{axis}")) * pixels
            - np.array(images.floats(f"rlnOrigin{axis}Angst", 0.0))
            for axis in "XY"
        ]
    )
    places = defaultdict(list)
    for i, micrograph in enumerate(images.texts("rlnMicrographName")):
        places[micrograph].append(i)
    gone: set[int] = set()
    for rows in places.values():
        # The earlier of the two goes, even if the later one goes as well: RELION's rule.
        pairs = KDTree(points_A[rows]).query_pairs(distance_A)
        gone.update(rows[min(pair)] for pair in pairs)
    _save(job, images, name, [i for i in range(len(images)) if i not in gone])
    _save(job, images, name.replace(".star", "_removed.star"), sorted(gone))
    job.say(f"{len(gone)} of {len(images)} particles are duplicates within {distance_A:g} A")


def _input(job: Job, *, takes_arguments: bool = False) -> tuple[Images, str]:
    """Return the table to select from and the name of the output."""
    options = job.options
    if not takes_arguments:
        job.extra_arguments({})
    given = [name for name in ("fn_mic", "fn_data", "fn_model") if options.text(name)]
    if given not in (["fn_mic"], ["fn_data"]):
        raise Misuse(
            f"options fn_mic and fn_data of {options.job}: one of the two must name a table, and "
            f"nothing else; given: {', '.join(given) or 'none'}"
        )
    source = job.need(given[0])
    if given == ["fn_mic"]:
        return Images(job.project, source, "micrographs", "movies"), "micrographs.star"
    return Images(job.project, source, "particles"), "particles.star"


def _save(job: Job, images: Images, name: str, keep: Iterable[int]) -> None:
    save(job, name, images.optics, images.block, images.keep(keep))


def _statistics(job: Job, names: list[str]) -> np.ndarray:
    """Return mean and deviation `[n, 2]` of each image; images are named `number@stack`."""
    found = np.zeros((len(names), 2))
    stacks = defaultdict(list)
    for i, name in enumerate(names):
        number, _, path = name.rpartition("@")
        if number and not number.isdecimal():
            raise Misuse(f"{name!r} is no image: images are named number@file")
        stacks[path].append((i, int(number or 1) - 1))
    bar = Progress(len(stacks), "files")
    for path, members in stacks.items():
        if job.stop.asked():
            raise Aborted(f"{job.process} was told to stop, and has; nothing is selected")
        try:
            with open(job.project / path, "rb") as file:
                header = mrc.header_of(file, path)
                for i, section in members:
                    image = mrc.read_sections(file, path, header, section, section + 1)
                    found[i] = image.mean(dtype=np.float64), image.std(dtype=np.float64)
        except FormatError as error:
            raise Failed(str(error)) from error
        bar.step()
    bar.end()
    return found
