"""From a micrograph and the options of a job node to the request of its task.

Option names are RELION's (schemes.md section 15). Box sizes follow from the particle diameter and
the micrograph's own pixel (preprocessing.md 5.1) unless the extract job's size was set by hand.
"""

from typing import Literal, NamedTuple, Protocol

from algorithms.boxes import box_sizes
from services.kit.options import Options
from services.kit.schemes import output_root
from services.proc.requests import ExtractRequest, PickRequest


class Image(Protocol):
    """What is asked of a micrograph to pick particles."""

    @property
    def movie(self) -> str: ...  # noqa: D102
    @property
    def micrograph(self) -> str: ...  # noqa: D102
    @property
    def pixel_size_A(self) -> float: ...  # noqa: D102


class Fitted(Image, Protocol):
    """What is asked of a micrograph with a CTF to extract particles."""

    @property
    def optics_group(self) -> int: ...  # noqa: D102
    @property
    def defocus_u_A(self) -> float: ...  # noqa: D102
    @property
    def defocus_v_A(self) -> float: ...  # noqa: D102
    @property
    def defocus_angle_deg(self) -> float: ...  # noqa: D102
    @property
    def phase_shift_deg(self) -> float: ...  # noqa: D102
    @property
    def max_resolution_A(self) -> float: ...  # noqa: D102
    @property
    def figure_of_merit(self) -> float: ...  # noqa: D102
    @property
    def voltage_kV(self) -> float: ...  # noqa: D102
    @property
    def spherical_aberration_mm(self) -> float: ...  # noqa: D102
    @property
    def amplitude_contrast(self) -> float: ...  # noqa: D102


class Box(NamedTuple):
    """How particles are cut out and scaled."""

    box_px: int
    scaled_px: int
    background_radius_px: int


def box_of(pixel_size_A: float, diameter_A: float, options: Options, *, auto: bool) -> Box:
    """Return the box for a micrograph's pixel size."""
    if auto:
        sizes = box_sizes(pixel_size_A, diameter_A)
        return Box(sizes.box_px, sizes.scaled_px, sizes.bg_radius_px)
    box = options.whole("extract_size", 256, 8, 8192)
    scaled = options.whole("rescale", box, 8, 8192) if options.switch("do_rescale", False) else box
    diameter = options.whole("bg_diameter", -1)
    background = 0.75 * box if diameter < 0 else float(diameter)
    return Box(box, scaled, int(background / 2 * scaled / box))


def pick_request(ctf: Image, options: Options, process: str) -> PickRequest:
    """Return the picking request of a micrograph; `process` is the folder of the job."""
    root = output_root(process, ctf.micrograph)
    return PickRequest(
        movie=ctf.movie,
        micrograph=ctf.micrograph,
        coordinates=f"{root}_autopick.star",
        pixel_size_A=ctf.pixel_size_A,
        diameter_min_A=options.number("log_diam_min", 150.0, 1.0, 1e5),
        diameter_max_A=options.number("log_diam_max", 180.0, 1.0, 1e5),
        max_resolution_A=options.number("log_maxres", 20.0, 1.0, 1e3),
        adjust_threshold=options.number("log_adjust_thr", 0.0),
        upper_threshold=options.number("log_upper_thr", 999.0),
        invert=options.switch("log_invert", False),
        max_stddev_noise=_limit(options.number("maxstddevnoise_autopick", 1.1)),
    )


def _limit(value: float) -> float | None:
    """RELION switches a limit off with a value that is not above 0."""
    return value if value > 0 else None


def extract_request(
    ctf: Fitted,
    coordinates: str,
    options: Options,
    box: Box,
    process: str,
    correction: Literal["", "multiply", "flip"] = "",
) -> ExtractRequest:
    """Return the extraction request of a micrograph; `process` is the folder of the job."""
    use_minimum = options.switch("do_fom_threshold", False)
    return ExtractRequest(
        movie=ctf.movie,
        micrograph=ctf.micrograph,
        coordinates=coordinates,
        root=output_root(process, ctf.micrograph),
        optics_group=ctf.optics_group,
        pixel_size_A=ctf.pixel_size_A,
        box_px=box.box_px,
        scaled_px=box.scaled_px,
        background_radius_px=box.background_radius_px,
        invert=options.switch("do_invert", True),
        normalise=options.switch("do_norm", True),
        white_dust_sigma=options.number("white_dust", -1.0),
        black_dust_sigma=options.number("black_dust", -1.0),
        float16=options.switch("do_float16", True),
        minimum_figure_of_merit=options.number("minimum_pick_fom", 0.0) if use_minimum else None,
        defocus_u_A=ctf.defocus_u_A,
        defocus_v_A=ctf.defocus_v_A,
        defocus_angle_deg=ctf.defocus_angle_deg,
        phase_shift_deg=ctf.phase_shift_deg,
        ctf_max_resolution_A=ctf.max_resolution_A,
        ctf_figure_of_merit=ctf.figure_of_merit,
        ctf_correction=correction,
        **_microscope(ctf, correction),
    )


def _microscope(ctf: Fitted, correction: str) -> dict[str, float]:
    """Return what a correction needs; without one no result follows from it."""
    if not correction:
        return {}
    return {
        "voltage_kV": ctf.voltage_kV,
        "spherical_aberration_mm": ctf.spherical_aberration_mm,
        "amplitude_contrast": ctf.amplitude_contrast,
    }
