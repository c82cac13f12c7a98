"""Extraction of refined particles as a job: in another size, or centred as refined.

Source: schemes.md section 15, preprocessing.md sections 5 and 7.5.
"""

import hashlib
from collections import defaultdict
from functools import partial

import msgspec

from algorithms.formats import star
from algorithms.formats.atomic import atomic_write
from services.jobs.extraction import (
    NAME,
    Micrograph,
    box_of_job,
    fits,
    optics_of_images,
    result_name,
)
from services.jobs.items import do_items, identity
from services.jobs.job import HIDDEN, Job
from services.jobs.planning import Item
from services.jobs.tables import GROUP, ORIGINAL_PIXEL, PIXEL, Images
from services.kit.errors import Misuse
from services.kit.tables import save_table
from services.proc import plan
from services.proc.particles import ParticlesFile
from services.proc.requests import ExtractResult, ReextractRequest

IMAGE_PIXEL = "rlnImagePixelSize"


def reextract(job: Job) -> None:
    """Cut out the particles of a refinement again."""
    job.extra_arguments({})
    job.refuse_options({"do_extract_helix": "helical extraction"})
    options = job.options
    recenter, reset = (options.switch(f"do_{one}", False) for one in ("recenter", "reset_offsets"))
    if recenter and reset:
        raise Misuse(f"options do_recenter and do_reset_offsets of {options.job}: one of the two")
    box = box_of_job(job)
    micrographs = Images(job.project, job.need("star_mics"), "micrographs")
    pixels = dict(
        zip(micrographs.texts(NAME), micrographs.optics_floats(PIXEL, ORIGINAL_PIXEL), strict=True)
    )
    particles = Images(job.project, job.need("fndata_reextract"), "particles")
    parts = _by_micrograph(job, particles, pixels)
    center = tuple(options.number(f"recenter_{axis}", 0.0) for axis in "xyz")
    reference = dict(zip(particles.texts(GROUP), particles.optics_floats(IMAGE_PIXEL), strict=True))
    asks: dict[str, ReextractRequest] = {}
    for name, (group, file) in parts.items():
        micrograph = Micrograph(identity(name), name, int(group), pixels[name])
        asks[name] = ReextractRequest(
            extract=plan.extract_request(micrograph, file, options, box, job.process),
            recenter=recenter,
            reset_offsets=reset,
            center_px=(center[0], center[1], center[2]),
            reference_pixel_A=reference[group],
        )
    items = [
        Item(
            name,
            (name, ask.extract.coordinates),
            "services.proc.reextracting:reextract",
            ask,
            facts=(ask.extract.pixel_size_A,),
            fits=partial(fits, ask.extract),
        )
        for name, ask in asks.items()
    ]

    def write(done: dict[str, bytes]) -> None:
        results = {n: msgspec.msgpack.decode(data, type=ExtractResult) for n, data in done.items()}
        _write(job, particles, asks, results)

    do_items(job, items, "micrographs", write)


def _by_micrograph(
    job: Job, particles: Images, pixels: dict[str, float]
) -> dict[str, tuple[str, str]]:
    """Write the particles of each micrograph to a file of their own; return (group, file)."""
    rows: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(particles.texts(NAME)):
        rows[name].append(i)
    absent = [name for name in rows if name not in pixels]
    if absent:
        lost = sum(len(rows[name]) for name in absent)
        job.say(f"{lost} particles are in {len(absent)} micrographs that star_mics does not have")
    groups = particles.texts(GROUP)
    found = {}
    for name, members in rows.items():
        if name in absent:
            continue
        if len({groups[i] for i in members}) > 1:
            raise Misuse(f"{particles.name}: {name} has particles of several optics groups")
        path = f"{job.process}{HIDDEN}/again/{hashlib.sha256(name.encode()).hexdigest()[:24]}.star"
        text = star.dumps({"particles": particles.keep(members)})
        target = job.project / path
        # A file that stays the same keeps its time, by which it is known.
        if not target.exists() or target.read_text() != text:
            atomic_write(target, text, durable=False)
        found[name] = (groups[members[0]], path)
    return found


def _write(
    job: Job,
    particles: Images,
    asks: dict[str, ReextractRequest],
    results: dict[str, ExtractResult],
) -> None:
    parts = [(asks[name].extract, result) for name, result in results.items() if result.n_particles]
    files = [result_name(ask) for ask, _ in parts]
    labels: list[str] = []
    if files:
        labels = list(star.load(job.project / files[0])["images"].columns)
    joined = ParticlesFile(job.project, job.folder / "particles.star", labels)
    optics = optics_of_images(particles.optics, parts)
    joined.update(optics, [(file, file) for file in files])
    coordinates = {
        NAME: [ask.micrograph for ask, _ in parts],
        "rlnMicrographCoordinates": files,
    }
    for name in ("extractpick.star", "reextract.star"):
        save_table(job.folder / name, {"coordinate_files": star.Table.of(coordinates)})
    count = sum(result.n_particles for result in results.values())
    job.say(f"{count} particles of {len(results)} micrographs in {job.process}particles.star")
