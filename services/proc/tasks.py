"""The proc tasks, carried out by workers: micrograph to coordinates, coordinates to particles.

Source: preprocessing.md sections 4.1, 5, 7.4 and 7.5.
"""

import zlib
from pathlib import Path

import msgspec
import numpy as np

from algorithms.extraction import ExtractOptions, Particles
from algorithms.extraction import extract as extract_particles
from algorithms.formats import mrc, star
from algorithms.formats.errors import FormatError
from algorithms.picking.log import LogOptions, pick_log
from services.kit.errors import Code, Refused
from services.kit.work import Output
from services.proc.requests import ExtractRequest, ExtractResult, PickRequest, PickResult

# What RELION writes for a particle that was picked by hand.
UNKNOWN_FOM = -999.0


def _micrograph(project: Path, name: str) -> np.ndarray:
    try:
        image = mrc.read(project / name)
    except FormatError as error:
        raise Refused(Code(error.code), str(error)) from error
    if not np.isfinite(image).all():
        raise Refused(Code.NOT_FINITE, f"{name} holds values that are no numbers: make it anew")
    return image


def autopick(request: bytes, folder: Path, project: Path) -> Output:
    """Pick particles with the Laplacian of Gaussian."""
    ask = msgspec.msgpack.decode(request, type=PickRequest)
    options = LogOptions(
        diameter_min_A=ask.diameter_min_A,
        diameter_max_A=ask.diameter_max_A,
        max_resolution_A=ask.max_resolution_A,
        adjust_threshold=ask.adjust_threshold,
        upper_threshold=ask.upper_threshold,
        invert=ask.invert,
    )
    image = _micrograph(project, ask.micrograph)
    picks = pick_log(image, ask.pixel_size_A, options, seed=zlib.crc32(ask.movie.encode()))
    count = len(picks.x_px)
    table = star.Table.of(
        {
            "rlnCoordinateX": picks.x_px,
            "rlnCoordinateY": picks.y_px,
            "rlnAutopickFigureOfMerit": picks.fom,
            "rlnClassNumber": np.zeros(count, dtype=int),
            "rlnAnglePsi": np.zeros(count),
        }
    )
    star.save(folder / "p.star", {"": table}, durable=False)
    mean = float(np.mean(picks.fom)) if count else 0.0
    result = PickResult(n_particles=count, mean_figure_of_merit=mean)
    return Output(msgspec.msgpack.encode(result), {"p.star": ask.coordinates})


def extract(request: bytes, folder: Path, project: Path) -> Output:
    """Cut out, scale and normalise the picked particles."""
    ask = msgspec.msgpack.decode(request, type=ExtractRequest)
    x, y, fom = _coordinates(_picks(project / ask.coordinates), ask.minimum_figure_of_merit)
    options = ExtractOptions(
        box_px=ask.box_px,
        scaled_px=ask.scaled_px,
        bg_radius_px=ask.background_radius_px,
        invert=ask.invert,
        normalise=ask.normalise,
        white_dust=_sigmas(ask.white_dust_sigma),
        black_dust=_sigmas(ask.black_dust_sigma),
    )
    image = _micrograph(project, ask.micrograph)
    seed = zlib.crc32(ask.movie.encode())
    try:
        particles = extract_particles(image, x, y, ask.pixel_size_A, options, seed=seed)
    except ValueError as error:  # coordinates that are none of this micrograph
        raise Refused(Code.OUT_OF_RANGE, f"{ask.coordinates}: {error}") from error
    files = {"e.star": f"{ask.root}_extract.star"}
    count = len(particles.kept)
    if count:
        pixel = particles.pixel_size_A
        images = np.asarray(particles.images)
        mrc.write(folder / "s.mrcs", images, pixel, float16=ask.float16, is_stack=True)
        # The stack before the STAR file that says it is complete.
        files = {"s.mrcs": f"{ask.root}.mrcs", **files}
    table = _particle_table(ask, particles, x, y, fom)
    star.save(folder / "e.star", {"images": table}, durable=False)
    result = ExtractResult(
        n_particles=count, box_px=ask.scaled_px, pixel_size_A=particles.pixel_size_A
    )
    return Output(msgspec.msgpack.encode(result), files)


def _sigmas(value: float) -> float | None:
    """RELION says "off" with a negative number."""
    return value if value > 0 else None


def _picks(path: Path) -> star.Table:
    """Read coordinates: STAR, `.box` (corner and size), or text with x and y in each line."""
    try:
        if path.suffix == ".star":
            blocks = star.load(path)
            return blocks.get("") or next(iter(blocks.values()), star.Table.of({}))
        lines = [line.split()[:4] for line in path.read_text().splitlines() if line.strip()]
        rows = [[float(word) for word in words] for words in lines]
        if path.suffix == ".box":
            rows = [[x + width / 2, y + height / 2] for x, y, width, height in rows]
        x, y = ([row[axis] for row in rows] for axis in (0, 1))
        return star.Table.of({"rlnCoordinateX": x, "rlnCoordinateY": y})
    except (ValueError, IndexError) as error:
        raise Refused(Code.READ_ERROR, f"{path} holds no coordinates: {error}") from error


def _coordinates(
    picks: star.Table, minimum: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not len(picks):
        empty = np.zeros(0)
        return empty, empty, empty
    x, y = picks.floats("rlnCoordinateX"), picks.floats("rlnCoordinateY")
    if "rlnAutopickFigureOfMerit" not in picks.columns:
        return x, y, np.full(len(x), UNKNOWN_FOM)
    fom = picks.floats("rlnAutopickFigureOfMerit")
    keep = np.ones(len(x), bool) if minimum is None else fom > minimum
    return x[keep], y[keep], fom[keep]


def _particle_table(
    ask: ExtractRequest, particles: Particles, x: np.ndarray, y: np.ndarray, fom: np.ndarray
) -> star.Table:
    kept = np.asarray(particles.kept)
    count = len(kept)

    def constant(value: float) -> np.ndarray:
        return np.full(count, float(value))

    return star.Table.of(
        {
            "rlnCoordinateX": x[kept],
            "rlnCoordinateY": y[kept],
            "rlnAutopickFigureOfMerit": fom[kept],
            "rlnClassNumber": np.zeros(count, dtype=int),
            "rlnAnglePsi": constant(0),
            "rlnImageName": [f"{i + 1:08d}@{ask.root}.mrcs" for i in range(count)],
            "rlnMicrographName": [ask.micrograph] * count,
            "rlnOpticsGroup": np.full(count, ask.optics_group),
            "rlnCtfMaxResolution": constant(ask.ctf_max_resolution_A),
            "rlnCtfFigureOfMerit": constant(ask.ctf_figure_of_merit),
            "rlnDefocusU": constant(ask.defocus_u_A),
            "rlnDefocusV": constant(ask.defocus_v_A),
            "rlnDefocusAngle": constant(ask.defocus_angle_deg),
            "rlnCtfBfactor": constant(0),
            "rlnCtfScalefactor": constant(1),
            "rlnPhaseShift": constant(ask.phase_shift_deg),
            "rlnOriginXAngst": np.asarray(particles.origin_x_A),
            "rlnOriginYAngst": np.asarray(particles.origin_y_A),
        }
    )
