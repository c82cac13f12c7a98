"""The extraction tasks, carried out by workers: coordinates to particles.

Source: preprocessing.md sections 5 and 7.5.
"""

import math
import zlib
from pathlib import Path

import msgspec
import numpy as np

from algorithms.ctf import Ctf
from algorithms.ctffit.types import Tilt
from algorithms.extraction import Cutting, ExtractOptions
from algorithms.formats import star
from services.kit.errors import Code, Refused
from services.kit.work import Output
from services.proc.inputs import read_coordinates, read_micrograph
from services.proc.requests import ExtractRequest, ExtractResult
from services.proc.stacks import write_stack


def extract(request: bytes, folder: Path, project: Path) -> Output:
    """Cut out, scale and normalise the picked particles."""
    ask = msgspec.msgpack.decode(request, type=ExtractRequest)
    x, y, fom = read_coordinates(project / ask.coordinates, ask.minimum_figure_of_merit)
    cutting = cut(ask, project, x, y)
    return published(ask, folder, cutting, _particle_table(ask, cutting, fom))


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
        ramp=ask.ramp,
        min_edge_px=ask.min_edge_A / ask.pixel_size_A if ask.min_edge_A else None,
        white_dust=_sigmas(ask.white_dust_sigma),
        black_dust=_sigmas(ask.black_dust_sigma),
        ctf=_ctf(ask),
        phase_flip=ask.ctf_correction == "flip",
        intact_first_peak=ask.intact_first_peak,
        ctf_box_px=ask.ctf_box_px or None,
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


def _defocus_change_A(ask: ExtractRequest, cutting: Cutting) -> np.ndarray:
    """Return by how much the defocus of particles `[n]` differs from that in the middle."""
    if not ask.tilt_angle_deg:
        return np.zeros(len(cutting))
    slope, axis = math.tan(math.radians(ask.tilt_angle_deg)), math.radians(ask.tilt_axis_deg)
    height_px, width_px = cutting.shape
    tilt = Tilt(
        gradient_x=-slope * math.sin(axis),
        gradient_y=slope * math.cos(axis),
        width_A=width_px * ask.pixel_size_A,
        height_A=height_px * ask.pixel_size_A,
        log_odds=math.inf,
    )
    # 0 is the centre of the first pixel; the corner is half a pixel away.
    places = ((cutting.x_px + 0.5) * ask.pixel_size_A, (cutting.y_px + 0.5) * ask.pixel_size_A)
    return np.array([tilt.defocus_change_A(x, y) for x, y in zip(*places, strict=True)])


def _particle_table(ask: ExtractRequest, cutting: Cutting, fom: np.ndarray) -> star.Table:
    count, change_A = len(cutting), _defocus_change_A(ask, cutting)

    def same(value: float) -> list[str]:
        return [star.format_float(float(value))] * count  # as text once, not for each row

    columns = {
        "rlnCoordinateX": cutting.x_px,
        "rlnCoordinateY": cutting.y_px,
        "rlnAutopickFigureOfMerit": fom[cutting.kept],
        "rlnOriginXAngst": cutting.origin_x_A,
        "rlnOriginYAngst": cutting.origin_y_A,
        "rlnDefocusU": ask.defocus_u_A + change_A,
        "rlnDefocusV": ask.defocus_v_A + change_A,
    }
    # All at once: a short column costs as much as a long one.
    written = star.Table.of({"": np.concatenate(list(columns.values()))}).columns[""]
    own = {label: written[k * count : (k + 1) * count] for k, label in enumerate(columns)}
    return star.Table(
        {
            "rlnCoordinateX": own["rlnCoordinateX"],
            "rlnCoordinateY": own["rlnCoordinateY"],
            "rlnAutopickFigureOfMerit": own["rlnAutopickFigureOfMerit"],
            "rlnClassNumber": ["0"] * count,
            "rlnAnglePsi": same(0),
            "rlnImageName": image_names(ask.root, count),
            "rlnMicrographName": [ask.micrograph] * count,
            "rlnOpticsGroup": [str(ask.optics_group)] * count,
            "rlnCtfMaxResolution": same(ask.ctf_max_resolution_A),
            "rlnCtfFigureOfMerit": same(ask.ctf_figure_of_merit),
            "rlnDefocusU": own["rlnDefocusU"],
            "rlnDefocusV": own["rlnDefocusV"],
            "rlnDefocusAngle": same(ask.defocus_angle_deg),
            "rlnCtfBfactor": same(0),
            "rlnCtfScalefactor": same(1),
            "rlnPhaseShift": same(ask.phase_shift_deg),
            "rlnOriginXAngst": own["rlnOriginXAngst"],
            "rlnOriginYAngst": own["rlnOriginYAngst"],
        }
    )


def image_names(root: str, count: int) -> list[str]:
    """Return the names of the images of a stack."""
    return [f"{i:08d}@{root}.mrcs" for i in range(1, count + 1)]
