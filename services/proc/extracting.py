"""The extraction tasks, carried out by workers: coordinates to particles.

Source: preprocessing.md sections 5 and 7.5.
"""

import zlib
from pathlib import Path

import msgspec
import numpy as np

from algorithms.ctf import Ctf
from algorithms.extraction import Cutting, ExtractOptions
from algorithms.formats import star
from services.kit.errors import Code, Refused
from services.kit.work import Output
from services.proc.inputs import coordinates, read_micrograph, read_picks
from services.proc.requests import ExtractRequest, ExtractResult
from services.proc.stacks import write_stack


def extract(request: bytes, folder: Path, project: Path) -> Output:
    """Cut out, scale and normalise the picked particles."""
    ask = msgspec.msgpack.decode(request, type=ExtractRequest)
    x, y, fom = coordinates(read_picks(project / ask.coordinates), ask.minimum_figure_of_merit)
    cutting = cut(ask, project, x, y)
    return published(ask, folder, cutting, _particle_table(ask, cutting, x, y, fom))


def cut(ask: ExtractRequest, project: Path, x: np.ndarray, y: np.ndarray) -> Cutting:
    """Return the particles at coordinates of the request's micrograph.

    Raises
    ------
    Refused
        The coordinates are none of this micrograph.
    """
    options = ExtractOptions(
        box_px=ask.box_px,
        scaled_px=ask.scaled_px,
        bg_radius_px=ask.background_radius_px,
        invert=ask.invert,
        normalise=ask.normalise,
        white_dust=_sigmas(ask.white_dust_sigma),
        black_dust=_sigmas(ask.black_dust_sigma),
        ctf=_ctf(ask),
        phase_flip=ask.ctf_correction == "flip",
    )
    image = read_micrograph(project, ask.micrograph)
    seed = zlib.crc32(ask.movie.encode())
    try:
        return Cutting(image, (x, y), ask.pixel_size_A, options, seed=seed)
    except ValueError as error:
        raise Refused(Code.OUT_OF_RANGE, f"{ask.coordinates}: {error}") from error


def published(ask: ExtractRequest, folder: Path, cutting: Cutting, table: star.Table) -> Output:
    """Write stack and table into the private folder; return them with the result."""
    files = {"e.star": f"{ask.root}_extract.star"}
    count = len(cutting)
    if count:
        try:
            write_stack(folder / "s.mrcs", cutting, float16=ask.float16)
        except Refused as refused:
            raise Refused(refused.code, f"{ask.micrograph}: {refused.detail}") from refused
        # The stack before the STAR file that says it is complete.
        files = {"s.mrcs": f"{ask.root}.mrcs", **files}
    (folder / "e.star").write_bytes(star.dumps({"images": table}).encode())
    result = ExtractResult(
        n_particles=count, box_px=ask.scaled_px, pixel_size_A=cutting.pixel_size_A
    )
    return Output(msgspec.msgpack.encode(result), files)


def _sigmas(value: float) -> float | None:
    """RELION says "off" with a negative number."""
    return value if value > 0 else None


def _ctf(ask: ExtractRequest) -> Ctf | None:
    if not ask.ctf_correction:
        return None
    return Ctf(
        defocus_u_A=ask.defocus_u_A,
        defocus_v_A=ask.defocus_v_A,
        angle_deg=ask.defocus_angle_deg,
        voltage_kV=ask.voltage_kV,
        spherical_aberration_mm=ask.spherical_aberration_mm,
        amplitude_contrast=ask.amplitude_contrast,
        phase_shift_deg=ask.phase_shift_deg,
    )


def _particle_table(
    ask: ExtractRequest, cutting: Cutting, x: np.ndarray, y: np.ndarray, fom: np.ndarray
) -> star.Table:
    kept = cutting.kept
    count = len(kept)

    def same(value: float) -> list[str]:
        # Once as text, not once for each row.
        return [star.format_float(float(value))] * count

    def each(values: np.ndarray) -> list[str]:
        return star.Table.of({"": values}).columns[""] if values.any() else same(0)

    return star.Table(
        {
            "rlnCoordinateX": each(x[kept]),
            "rlnCoordinateY": each(y[kept]),
            "rlnAutopickFigureOfMerit": each(fom[kept]),
            "rlnClassNumber": ["0"] * count,
            "rlnAnglePsi": same(0),
            "rlnImageName": image_names(ask.root, count),
            "rlnMicrographName": [ask.micrograph] * count,
            "rlnOpticsGroup": [str(ask.optics_group)] * count,
            "rlnCtfMaxResolution": same(ask.ctf_max_resolution_A),
            "rlnCtfFigureOfMerit": same(ask.ctf_figure_of_merit),
            "rlnDefocusU": same(ask.defocus_u_A),
            "rlnDefocusV": same(ask.defocus_v_A),
            "rlnDefocusAngle": same(ask.defocus_angle_deg),
            "rlnCtfBfactor": same(0),
            "rlnCtfScalefactor": same(1),
            "rlnPhaseShift": same(ask.phase_shift_deg),
            "rlnOriginXAngst": each(cutting.origin_x_A),
            "rlnOriginYAngst": each(cutting.origin_y_A),
        }
    )


def image_names(root: str, count: int) -> list[str]:
    """Return the names of the images of a stack."""
    return [f"{i:08d}@{root}.mrcs" for i in range(1, count + 1)]
