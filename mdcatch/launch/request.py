"""What a person, or the policy of a site, asks for: the arguments of the command `session.open`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from services.kit.errors import Misuse
from services.kit.events import DoseEA2, Fraction, PixelSizeA, SphericalAberrationMM, VoltageKV
from services.kit.sitetables import Site

KIND = "session.open"

Pipeline = Literal["native", "relion", "scipion"]
Picker = Literal["log", "topaz", "cryolo"]
Runner = Literal["relion_schemer", "schemer"]
PIPELINES: tuple[Pipeline, ...] = ("native", "relion", "scipion")
PICKERS: tuple[Picker, ...] = ("log", "topaz", "cryolo")
RUNNERS: tuple[Runner, ...] = ("relion_schemer", "schemer")
# MDCatch's own limits: from a small protein to the longest filament's width.
SMALLEST_A, LARGEST_A = 10.0, 9999.0

AbsolutePath = Annotated[
    str,
    Meta(
        pattern=r"^/(?!(.*/)?\.\.(/|$))[^\0\n]*[^\0\n/]$",
        max_length=1000,
        description="an absolute path without ..",
    ),
]
Symmetry = Annotated[
    str,
    Meta(
        pattern=r"^([CD][1-9]\d?|[TO]|I[1-4]?)$",
        description="a point group such as C1, D2, T, O or I",
    ),
]
Gpus = Annotated[
    str, Meta(pattern=r"^(\d+(,\d+)*)?$", max_length=100, description="numbers such as 0,1")
]

Executor = Annotated[
    str, Meta(pattern=r"^(native|relion)(,(native|relion))?$", description="native or relion")
]


class OpenRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A session to open; None leaves a value to the metadata, the site or the pipeline."""

    raw: AbsolutePath  # the session's folder: its metadata, and its movies unless `movies` is given
    project: AbsolutePath  # to be made
    movies: AbsolutePath | None = None  # where the camera writes, if that is another tree
    pipeline: Pipeline = "native"
    picker: Picker = "log"
    picker_model: AbsolutePath | None = None  # trained model of Topaz or crYOLO
    # Longest diameter of a particle, or width of a filament.
    particle_diameter_A: Annotated[float, Meta(ge=SMALLEST_A, le=LARGEST_A)] | None = None
    helical: bool = False
    symmetry: Symmetry = "C1"
    gain: AbsolutePath | None = None
    gain_rotation: Annotated[int, Meta(ge=0, le=3)] | None = None  # quarter turns, before the flip
    gain_flip: Annotated[int, Meta(ge=0, le=2)] | None = None  # 0 none, 1 up-down, 2 left-right
    defects: AbsolutePath | None = None
    mtf: AbsolutePath | None = None
    pixel_size_A: PixelSizeA | None = None  # of the movie file, over the metadata
    dose_e_A2: DoseEA2 | None = None  # whole exposure, over the metadata
    voltage_kV: VoltageKV | None = None
    spherical_aberration_mm: SphericalAberrationMM | None = None
    amplitude_contrast: Fraction = 0.1
    dose_per_fraction_e_A2: Annotated[float, Meta(gt=0.0, le=100.0)] = 1.0  # for EER
    batch: Annotated[int, Meta(ge=1, le=100_000)] = 50  # movies per round of a Scheme
    schemes: AbsolutePath | None = None  # folder with a site's Schemes, in place of ours
    runner: Runner = "relion_schemer"  # who runs the Schemes of the pipeline relion
    executor: Executor = "relion"  # how `schemer` does the jobs, as its --executor
    relion: Literal["5.0", "4.0"] = "5.0"  # whose project files to write
    gpus: Gpus = ""
    workers: Annotated[int, Meta(ge=1, le=1024)] | None = None  # of the native pipeline
    settings: dict[str, str] = {}  # prep__motioncorr__patch_x = "5", over everything else
    start: bool = True  # False: make the project, start nothing
    origin: Literal["operator", "automatic"] = "operator"

    @property
    def operator(self) -> dict[str, float]:
        """Return the values that a person knows better, by the names of `mdcatch.parsers`."""
        given = {
            "pixel_size_A": self.pixel_size_A,
            "total_dose_e_per_A2": self.dose_e_A2,
            "voltage_kV": self.voltage_kV,
            "cs_mm": self.spherical_aberration_mm,
        }
        return {key: value for key, value in given.items() if value is not None}

    @property
    def movie_root(self) -> Path:
        """Return the folder that holds the movies."""
        return Path(self.movies or self.raw)


def from_arguments(arguments: Mapping[str, Any], *, strict: bool = True) -> OpenRequest:
    """Return the request that a command carries.

    Parameters
    ----------
    arguments
        By the names of the fields.
    strict
        False: numbers may be text, as a command line has them.

    Raises
    ------
    Misuse
        A field does not fit; the message names it.
    """
    try:
        return msgspec.convert(dict(arguments), OpenRequest, strict=strict)
    except msgspec.ValidationError as error:
        raise Misuse(f"{KIND}: {error}") from error


def to_arguments(request: OpenRequest) -> dict[str, Any]:
    """Return the arguments of a command; what is as by default is left out."""
    usual = {field.name: field.default for field in msgspec.structs.fields(OpenRequest)}
    plain = msgspec.to_builtins(request)
    return {key: value for key, value in plain.items() if value != usual[key]}


def site_defaults(site: Site) -> dict[str, Any]:
    """Return what a site sets of every request, by the names of `OpenRequest`'s fields."""
    defaults = site.defaults
    fields = {
        "pipeline": defaults.pipeline,
        "picker": defaults.picker,
        "picker_model": defaults.picker_model,
        "particle_diameter_A": defaults.particle_diameter_A,
        "symmetry": defaults.symmetry,
        "amplitude_contrast": defaults.amplitude_contrast,
        "dose_per_fraction_e_A2": defaults.dose_per_fraction_e_A2,
        "workers": site.cluster.workers,
        "settings": dict(defaults.settings) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}
