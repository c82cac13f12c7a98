"""From a micrograph and the options of a CTF job to the request of its task.

Option names are RELION's (schemes.md section 14). Among the additional arguments (`other_args`)
are our own: `--tilt Yes` and `--thickness Yes`.
"""

from itertools import pairwise
from typing import NamedTuple, Protocol

from services.kit.errors import Misuse
from services.kit.options import Options
from services.kit.schemes import output_root
from services.prep.requests import CtfRequest

# Additional arguments and what they ask for.
EXTRA = {"--tilt": "Yes or No", "--thickness": "Yes or No"}
SUFFIX = "_PS"


class Optics(Protocol):
    """What is asked of a micrograph's movie to fit the CTF."""

    @property
    def movie(self) -> str: ...  # noqa: D102
    @property
    def voltage_kV(self) -> float: ...  # noqa: D102
    @property
    def spherical_aberration_mm(self) -> float: ...  # noqa: D102
    @property
    def amplitude_contrast(self) -> float: ...  # noqa: D102


class Pictures(NamedTuple):
    """What there is of a micrograph, as the project names it, and its pixel in A."""

    spectrum: str | None
    micrograph: str
    micrograph_nodw: str | None
    pixel_size_A: float


def fitted_root(ask: CtfRequest) -> str:
    """Return the path, without suffix, of what a fit leaves."""
    return ask.root if ask.image_pixel_A is not None else f"{ask.root}{SUFFIX}"


def check_options(options: Options) -> None:
    """Check the numbers of a CTF job against each other.

    Raises
    ------
    Misuse
        A range is empty, reaches to overfocus, or the box is odd.
    """
    pairs = [("resmax", 5.0, "resmin", 30.0), ("dfmin", 5000.0, "dfmax", 50000.0)]
    if options.switch("do_phaseshift", False):
        pairs.append(("phase_min", 0.0, "phase_max", 180.0))
    for low, low_default, high, high_default in pairs:
        bounds = options.number(low, low_default), options.number(high, high_default)
        if bounds[0] >= bounds[1]:
            raise Misuse(
                f"option {low} of {options.job} is {bounds[0]:g} and {high} {bounds[1]:g}: "
                "the first must be smaller"
            )
    if options.number("dfmin", 5000.0) <= 0.0:
        raise Misuse(
            f"option dfmin of {options.job} is {options.number('dfmin', 5000.0):g}: "
            "overfocus is not fitted, give a defocus above 0 A"
        )
    if options.whole("box", 512, 64, 4096) % 2:
        raise Misuse(f"option box of {options.job} is odd: it must be even")


def extra_argument(options: Options, name: str) -> bool:
    """Return whether an additional argument of our own says Yes."""
    words = options.text("other_args").split()
    typed = [word for before, word in pairwise(words) if before == name]
    if typed and typed[-1] not in ("Yes", "No"):
        raise Misuse(
            f"option other_args of {options.job} has {name} {typed[-1]}: use {EXTRA[name]}"
        )
    return typed[-1:] == ["Yes"]


def ctf_request(optics: Optics, pictures: Pictures, process: str, options: Options) -> CtfRequest:
    """Return the CTF request of a micrograph.

    Parameters
    ----------
    optics
        Of its movie.
    pictures
        Its files.
    process
        Folder of the job.
    options
        Of the job.
    """
    check_options(options)
    image = pictures.micrograph
    if options.switch("use_noDW", False) and pictures.micrograph_nodw is not None:
        image = pictures.micrograph_nodw
    given = pictures.spectrum if options.switch("use_given_ps", True) else None
    root = output_root(process, given or image)
    window = options.whole("ctf_win", -1, -16, 131_072)
    return CtfRequest(
        movie=optics.movie,
        power_spectrum=given or image,
        root=root.removesuffix(SUFFIX) if given else root,
        image_pixel_A=None if given else pictures.pixel_size_A,
        window_px=window if window > 0 and not given else None,
        micrograph=image if given else None,
        micrograph_pixel_A=pictures.pixel_size_A if given else None,
        voltage_kV=optics.voltage_kV,
        spherical_aberration_mm=optics.spherical_aberration_mm,
        amplitude_contrast=optics.amplitude_contrast,
        box_px=options.whole("box", 512, 64, 4096),
        resolution_min_A=options.number("resmin", 30.0, 1.0, 1000.0),
        resolution_max_A=options.number("resmax", 5.0, 0.5, 100.0),
        defocus_min_A=options.number("dfmin", 5000.0, 1.0, 1e6),
        defocus_max_A=options.number("dfmax", 50000.0, 1.0, 1e6),
        defocus_step_A=options.number("dfstep", 500.0, 1.0, 1e5),
        astigmatism_A=options.number("dast", 100.0, 0.0, 1e5),
        slow_search=options.switch("slow_search", False),
        phase_shift=options.switch("do_phaseshift", False),
        phase_min_deg=options.number("phase_min", 0.0, -360.0, 360.0),
        phase_max_deg=options.number("phase_max", 180.0, -360.0, 360.0),
        phase_step_deg=options.number("phase_step", 10.0, 0.1, 180.0),
        tilt=extra_argument(options, "--tilt"),
        thickness=extra_argument(options, "--thickness"),
    )
