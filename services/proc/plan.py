"""From a micrograph and the options of a job node to the request of its task.

Option names are RELION's (schemes.md section 15). Box sizes follow from the particle diameter and
the micrograph's own pixel (preprocessing.md 5.1) unless the extract job's size was set by hand.
"""

import math
from typing import Any, Literal, NamedTuple, Protocol

from algorithms.boxes import box_sizes
from services.kit.errors import Misuse
from services.kit.options import Options
from services.kit.schemes import output_root
from services.proc.requests import ExtractRequest, PickRequest

# Over no tilt: from here on it is proved (algorithms.ctffit.types.Tilt).
TILT_LOG_ODDS = 10.0


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
    @property
    def tilt_angle_deg(self) -> float | None: ...  # noqa: D102
    @property
    def tilt_axis_deg(self) -> float | None: ...  # noqa: D102
    @property
    def tilt_log_odds(self) -> float | None: ...  # noqa: D102


class Box(NamedTuple):
    """How particles are cut out and scaled."""

    box_px: int
    scaled_px: int
    background_radius_px: int


class Extra(NamedTuple):
    """What the additional arguments of an extraction say."""

    correction: Literal["", "multiply", "flip"] = ""
    intact_first_peak: bool = False
    ctf_box_px: int = 0
    ramp: bool = True
    min_edge_A: float = 0.0


NO_EXTRA = Extra()

# RELION's arguments, and one of our own; with what follows them.
EXTRA: dict[str, tuple[str, dict[str, Any]]] = {
    "--premultiply_ctf": ("", {"correction": "multiply"}),
    "--phase_flip": ("", {"correction": "flip"}),
    "--ctf_intact_first_peak": ("", {"intact_first_peak": True}),
    "--premultiply_extract_size": ("ctf_box_px", {}),
    "--no_ramp": ("", {"ramp": False}),
    "--min_edge": ("min_edge_A", {}),
}


def extra_of(options: Options, box: Box) -> Extra:
    """Return what the additional arguments of an extraction job say.

    Raises
    ------
    Misuse
        One is not known, has no number behind it, or cannot be with another one.
    """
    where = f"option other_args of {options.job}"
    words, found = options.text("other_args").split(), NO_EXTRA
    while words:
        name = words.pop(0)
        if name not in EXTRA:
            takes = ", ".join(f"{one} N" if f else one for one, (f, _) in EXTRA.items())
            raise Misuse(f"{where} holds {name!r}; the native executor takes: {takes}")
        field, values = EXTRA[name]
        if field:
            try:
                values = {field: type(getattr(found, field))(words.pop(0))}
            except (IndexError, ValueError):
                raise Misuse(f"{where}: {name} needs a number") from None
        if found.correction and "correction" in values:
            raise Misuse(f"{where}: one of --premultiply_ctf and --phase_flip")
        found = found._replace(**values)
    if (found.intact_first_peak or found.ctf_box_px) and not found.correction:
        raise Misuse(f"{where} says how to correct, but neither --premultiply_ctf nor --phase_flip")
    if found.ctf_box_px and (found.ctf_box_px < box.box_px or found.ctf_box_px % 2):
        raise Misuse(
            f"{where}: --premultiply_extract_size is {found.ctf_box_px}: it must be even, and not "
            f"below extract_size, {box.box_px}"
        )
    if not 0 <= found.min_edge_A < math.inf:
        raise Misuse(f"{where}: --min_edge is {found.min_edge_A:g}: it must not be below 0 A")
    return found


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
    extra: Extra = NO_EXTRA,
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
        ctf_correction=extra.correction,
        intact_first_peak=extra.intact_first_peak,
        ctf_box_px=extra.ctf_box_px,
        ramp=extra.ramp,
        min_edge_A=extra.min_edge_A,
        **_microscope(ctf, extra.correction),
        **({} if extra.correction else _tilt(ctf)),  # images are corrected for one defocus
    )


def _tilt(ctf: Fitted) -> dict[str, float]:
    """Return the tilt of the specimen where the fit proves one; the same from a table's text."""
    if not ctf.tilt_angle_deg or (ctf.tilt_log_odds or 0.0) < TILT_LOG_ODDS:
        return {}
    return {
        "tilt_angle_deg": round(ctf.tilt_angle_deg, 3),
        "tilt_axis_deg": round(ctf.tilt_axis_deg or 0.0, 3),
    }


def _microscope(ctf: Fitted, correction: str) -> dict[str, float]:
    """Return what a correction needs; without one no result follows from it."""
    if not correction:
        return {}
    return {
        "voltage_kV": ctf.voltage_kV,
        "spherical_aberration_mm": ctf.spherical_aberration_mm,
        "amplitude_contrast": ctf.amplitude_contrast,
    }
