"""Particle extraction as a job: micrographs and coordinates to particles.

Source: schemes.md section 15, preprocessing.md sections 5 and 7.5.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import NamedTuple

import msgspec

from algorithms.formats import star
from services.jobs.items import do_items, identity
from services.jobs.job import Job
from services.jobs.planning import Item
from services.jobs.tables import GROUP, ORIGINAL_PIXEL, PIXEL, Images, with_columns
from services.kit.errors import Misuse
from services.kit.schemes import output_root
from services.kit.work import Manifest
from services.proc import plan
from services.proc.particles import ParticlesFile
from services.proc.requests import ExtractRequest, ExtractResult

NAME = "rlnMicrographName"
SUFFIX_FILE = "coords_suffix"


class Micrograph(NamedTuple):
    """What the table says about a micrograph."""

    movie: str
    micrograph: str
    optics_group: int
    pixel_size_A: float
    defocus_u_A: float = 0.0
    defocus_v_A: float = 0.0
    defocus_angle_deg: float = 0.0
    phase_shift_deg: float = 0.0
    max_resolution_A: float = 0.0
    figure_of_merit: float = 0.0
    voltage_kV: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    tilt_angle_deg: float | None = None
    tilt_axis_deg: float | None = None
    tilt_log_odds: float | None = None


def extract(job: Job) -> None:
    """Cut out, scale and normalise the particles of the micrographs of a table."""
    job.refuse_options(
        {
            "do_reextract": "extraction of refined particles under this label",
            "do_extract_helix": "helical extraction",
        }
    )
    box = box_of_job(job)
    extra = plan.extra_of(job.options, box)
    table = Images(job.project, job.need("star_mics"), "micrographs")
    micrographs = _micrographs(table)
    coordinates = _coordinates(job, micrographs)
    found = [m for m in micrographs if m.micrograph in coordinates]
    requests = [
        plan.extract_request(m, coordinates[m.micrograph], job.options, box, job.process, extra)
        for m in found
    ]
    without = len(micrographs) - len(requests)
    if without:
        job.say(f"{without} of {len(micrographs)} micrographs have no coordinates")
    items = [
        Item(
            ask.micrograph,
            (ask.micrograph, ask.coordinates),
            "services.proc.tasks:extract",
            ask,
            facts=tuple(micrograph),
            fits=partial(fits, ask),
        )
        for micrograph, ask in zip(found, requests, strict=True)
    ]
    named = {r.micrograph: r for r in requests}

    def write(done: dict[str, bytes]) -> None:
        results = [msgspec.msgpack.decode(data, type=ExtractResult) for data in done.values()]
        _write(job, table.optics, [named[name] for name in done], results)

    do_items(job, items, "micrographs", write)


def fits(ask: ExtractRequest, found: Manifest) -> bool:
    """Return whether a result has the size and the pixel that the others will have."""
    got = msgspec.msgpack.decode(found.result, type=ExtractResult)
    pixel_A = ask.pixel_size_A * ask.box_px / ask.scaled_px
    return got.box_px == ask.scaled_px and got.pixel_size_A == pixel_A


def box_of_job(job: Job) -> plan.Box:
    """Return the sizes that the options ask for; Misuse when they cannot be."""
    options = job.options
    box = plan.box_of(1.0, 1.0, options, auto=False)
    for option, size in (("extract_size", box.box_px), ("rescale", box.scaled_px)):
        if size % 2 or size > box.box_px:
            raise Misuse(
                f"option {option} of {options.job} is {size}: it must be even, and rescale not "
                "above extract_size"
            )
    if options.switch("do_norm", True) and not 0 < box.background_radius_px < box.scaled_px / 2:
        raise Misuse(
            f"option bg_diameter of {options.job} is {options.text('bg_diameter')}: the circle "
            f"must be smaller than the box of {box.box_px} px; -1 takes 75 % of it"
        )
    return box


def _micrographs(table: Images) -> list[Micrograph]:
    names = table.texts(NAME)
    try:
        groups = [int(text) for text in table.texts(GROUP)]
    except ValueError as error:
        raise Misuse(f"{table.name}: column {GROUP}: {error}") from None
    columns = zip(
        map(identity, names),
        names,
        groups,
        table.optics_floats(PIXEL, ORIGINAL_PIXEL),
        table.floats("rlnDefocusU"),
        table.floats("rlnDefocusV"),
        table.floats("rlnDefocusAngle"),
        table.floats("rlnPhaseShift", 0.0),
        table.floats("rlnCtfMaxResolution", 0.0),
        table.floats("rlnCtfFigureOfMerit", 0.0),
        table.optics_floats("rlnVoltage"),
        table.optics_floats("rlnSphericalAberration"),
        table.optics_floats("rlnAmplitudeContrast"),
        *(table.floats(f"rlnColdstreamTilt{one}", 0.0) for one in ("Angle", "Axis", "LogOdds")),
        strict=True,
    )
    return [Micrograph(*values) for values in columns]


def _coordinates(job: Job, micrographs: list[Micrograph]) -> dict[str, str]:
    """Return the coordinate file of each micrograph that has one.

    A picker may list a file that it did not write, where it found nothing.
    """
    files = _listed(job, micrographs)
    return {m: file for m, file in files.items() if (job.project / file).exists()}


def _listed(job: Job, micrographs: list[Micrograph]) -> dict[str, str]:
    name = job.need("coords_suffix")
    path = PurePosixPath(name)
    if path.name.startswith(SUFFIX_FILE):
        # As RELION 3.1 has it: files of this suffix in the folder of this file.
        suffix = path.name.removeprefix(SUFFIX_FILE)
        folder = f"{path.parent}/"
        return {m.micrograph: f"{output_root(folder, m.micrograph)}{suffix}" for m in micrographs}
    blocks = star.load(job.project / name)
    table = blocks.get("coordinate_files", star.Table())
    if not len(table):
        if blocks and "coordinate_files" not in blocks:
            raise Misuse(f"{name}, option coords_suffix of {job.options.job}, lists no coordinates")
        return {}
    pairs = zip(table.strings(NAME), table.strings("rlnMicrographCoordinates"), strict=True)
    return dict(pairs)


def _write(
    job: Job, optics: star.Table, asks: list[ExtractRequest], results: list[ExtractResult]
) -> None:
    parts = [(ask, r) for ask, r in zip(asks, results, strict=True) if r.n_particles]
    file = ParticlesFile(job.project, job.folder / "particles.star")
    file.update(
        optics_of_images(optics, parts),
        [(result_name(ask), result_name(ask)) for ask, _ in parts],
    )
    count = sum(result.n_particles for result in results)
    job.say(f"{count} particles of {len(results)} micrographs in {job.process}particles.star")


def optics_of_images(
    optics: star.Table, parts: Sequence[tuple[ExtractRequest, ExtractResult]]
) -> star.Table:
    """Return the optics block of the particles of micrographs that have some."""
    pixels = {str(ask.optics_group): result.pixel_size_A for ask, result in parts}
    # RELION does not expect groups without particles here.
    keep = [i for i, group in enumerate(optics.columns.get(GROUP, [])) if group in pixels]
    used = star.Table({label: [v[i] for i in keep] for label, v in optics.columns.items()})
    size = parts[0][1].box_px if parts else 0
    multiplied = int(any(ask.ctf_correction == "multiply" for ask, _ in parts))
    columns = {
        "rlnImagePixelSize": lambda row: pixels[row[GROUP]],
        "rlnImageSize": lambda row: size,
        "rlnImageDimensionality": lambda row: 2,
        "rlnCtfDataAreCtfPremultiplied": lambda row: multiplied,
    }
    return with_columns(used, columns, drop=[PIXEL])


def result_name(ask: ExtractRequest) -> str:
    """Return the table of a micrograph's particles."""
    return f"{ask.root}_extract.star"
