"""Is what is asked for possible? One line per doubt, for the command line and the launcher. Pure.

An error stops an opening; a warning is told. `Surroundings` holds what was looked up on this host,
so that the window can check on every key without touching the disk.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from mdcatch.derive import Suggestion
from mdcatch.launch.known import Known
from mdcatch.launch.request import OpenRequest

MODEL_SUFFIXES = {"topaz": (".sav",), "cryolo": (".h5",)}
PICKER_NAMES = {"log": "Laplacian of Gaussian", "topaz": "Topaz", "cryolo": "crYOLO"}
# Below this a particle is noise to every picker; RELION's own tests begin at 8 px.
FEWEST_PX = 8


class Doubt(NamedTuple):
    """What is wrong or odd: the field of the request it is about, and one sentence."""

    field: str
    level: Literal["error", "warning"]
    text: str


class Surroundings(NamedTuple):
    """What was found on this host."""

    missing: dict[str, str] = {}  # program that is not there -> what to do about it
    absent: frozenset[str] = frozenset()  # files and folders of the request that are not there
    project: str = ""  # why the project folder cannot be made; "" if it can


def doubts(request: OpenRequest, known: Known | None, around: Surroundings) -> Iterator[Doubt]:
    """Yield everything that stops or should be known before a session is opened.

    Parameters
    ----------
    request
        What is asked for.
    known
        Of the newest exposure; None while nothing has been looked at.
    around
        Of this host.
    """
    yield from _places(request, around)
    yield from _particle(request)
    yield from _picker(request, around)
    yield from _runner(request)
    yield from _programs(request, around)
    if known is not None:
        yield from _measured(request, known)
        yield from _sizes(request, known)
        for text in known.warnings:
            is_of_gain = text.startswith(("gain ", "no gain "))
            yield _warning("gain" if is_of_gain else "raw", text)


def errors(found: Iterable[Doubt]) -> list[str]:
    """Return the sentences that stop an opening."""
    return [doubt.text for doubt in found if doubt.level == "error"]


def _error(field: str, text: str) -> Doubt:
    return Doubt(field, "error", text)


def _warning(field: str, text: str) -> Doubt:
    return Doubt(field, "warning", text)


def _places(request: OpenRequest, around: Surroundings) -> Iterator[Doubt]:
    for field in ("raw", "movies"):
        path = getattr(request, field)
        if path in around.absent:
            yield _error(field, f"{path} is not a folder: give the session's folder")
    for field in ("gain", "defects", "mtf", "picker_model"):
        path = getattr(request, field)
        if path is not None and path in around.absent:
            yield _error(field, f"{path} is not a file")
    if around.project:
        yield _error("project", around.project)
    if f"{request.project}/".startswith(f"{request.raw}/"):
        yield _error("project", "the project lies inside the session's folder: keep them apart")
    if request.schemes is not None:
        if request.schemes in around.absent:
            yield _error("schemes", f"{request.schemes} holds no Schemes")
        if request.pipeline != "relion":
            yield _warning("schemes", "a site's Schemes are used by the pipeline relion only")


def _particle(request: OpenRequest) -> Iterator[Doubt]:
    needed = request.pipeline != "native" or request.helical
    if request.particle_diameter_A is None and needed:
        what = "the filament's width" if request.helical else "the particle's diameter"
        yield _error("particle_diameter_A", f"give {what} in A: the boxes follow from it")
    if not request.helical:
        return
    if request.pipeline != "relion":
        yield _error("helical", f"the pipeline {request.pipeline} has no helices: choose relion")
    elif request.picker != "cryolo" or request.picker_model is None:
        yield _error("helical", "filaments are picked by crYOLO with a trained model: give both")
    if request.symmetry != "C1":
        yield _error("symmetry", "filaments have C1 here: 3D needs twist and rise, and is not run")


def _picker(request: OpenRequest, around: Surroundings) -> Iterator[Doubt]:
    if request.pipeline == "native" and request.picker != "log":
        name = PICKER_NAMES[request.picker]
        yield _error(
            "picker",
            f"the native pipeline picks with the Laplacian of Gaussian; for {name} choose the "
            "pipeline relion or scipion",
        )
    model = request.picker_model
    if model is None:
        wants_one = request.picker == "cryolo" and request.pipeline == "relion"
        if wants_one and not request.helical:  # of filaments it is said elsewhere
            yield _error("picker_model", "give crYOLO's general model, or one of yours (.h5)")
        return
    suffixes = MODEL_SUFFIXES.get(request.picker)
    if suffixes is None:
        yield _error("picker_model", "the Laplacian of Gaussian has no model: leave it empty")
    elif not model.lower().endswith(suffixes):
        yield _error(
            "picker_model",
            f"a model of {PICKER_NAMES[request.picker]} ends with {' or '.join(suffixes)}",
        )
    elif request.pipeline == "relion" and any(map(str.isspace, model)):
        yield _error("picker_model", "RELION's command lines take no blanks in a path: rename it")


def _runner(request: OpenRequest) -> Iterator[Doubt]:
    """Who does the jobs of the Schemes, where our own algorithms cannot do them all."""
    if request.pipeline != "relion" or request.runner != "schemer":
        return
    if request.executor == "native":
        level = _warning if request.picker == "log" else _error
        yield level(
            "executor",
            "the executor native picks with the Laplacian of Gaussian and ends at the selection of "
            "classes: native,relion takes RELION's programs for the rest",
        )


def _programs(request: OpenRequest, around: Surroundings) -> Iterator[Doubt]:
    """Programs that cannot be started; without a start they are needed later, elsewhere."""
    for name, remedy in around.missing.items():
        text = f"{name} is not installed here: {remedy}"
        can_wait = not request.start or request.pipeline == "scipion"
        yield (_warning if can_wait else _error)("pipeline", text)


def _measured(request: OpenRequest, known: Known) -> Iterator[Doubt]:
    if known.newest.metadata is None and known.newest.movie is None:
        text = "no exposure is there yet, so nothing is known of the microscope"
        if request.pipeline == "native":
            yield _warning("raw", f"{text}; processing begins with the first one")
            return
        yield _error("raw", f"{text}: wait for the first one")
        return
    if request.pipeline == "native":
        return
    exposure = known.exposure
    for field, value, what in (
        ("voltage_kV", exposure.voltage_kV, "voltage"),
        ("pixel_size_A", exposure.pixel_size_A, "pixel size of the movies"),
        ("dose_e_A2", exposure.dose_e_A2, "dose of a movie"),
    ):
        if value is None:
            yield _error(field, f"the metadata do not say the {what}: give it")
    if known.newest.movie is None:
        yield _error("movies", "no movie is there yet: give the folder of the movies, or wait")
    elif exposure.n_frames is None:
        yield _error("movies", f"{known.newest.movie.name}: its number of frames is not known yet")
    if exposure.spherical_aberration_mm is None and request.spherical_aberration_mm is None:
        yield _warning(
            "spherical_aberration_mm", "the site does not say Cs of this microscope: 2.7 mm is used"
        )
    gain = known.files.gain
    if gain is not None and gain.suffix.lower() == ".dm4":
        yield _error("gain", f"{gain.name}: RELION does not read DM4; give the gain as MRC or TIFF")
    if gain is not None and known.is_eer and gain.suffix.lower() == ".mrc":
        yield _warning(
            "gain", f"{gain.name}: RELION divides EER by a gain in MRC; prefer its .gain twin"
        )


def suggestion(request: OpenRequest, known: Known | None) -> Suggestion | None:
    """Return the boxes of a request, None while diameter or pixel are unknown."""
    if known is None or request.particle_diameter_A is None:
        return None
    try:
        return known.exposure.suggest(request.particle_diameter_A, is_helix=request.helical)
    except ValueError:  # the rules have no size for it
        return None


def _sizes(request: OpenRequest, known: Known) -> Iterator[Doubt]:
    found = suggestion(request, known)
    pixel_A, diameter_A = known.exposure.processing_pixel_A, request.particle_diameter_A
    if found is None or pixel_A is None or diameter_A is None:
        return
    if diameter_A < FEWEST_PX * pixel_A:
        yield _error(
            "particle_diameter_A",
            f"{diameter_A:g} A are {diameter_A / pixel_A:.1f} px of {pixel_A:.3g} A: too small",
        )
    size = known.exposure.movie_size_px
    if size is not None:
        side = min(size) // known.exposure.bin_factor
        if found.boxes.box_px > side:
            yield _error(
                "particle_diameter_A",
                f"the box of {found.boxes.box_px} px is larger than the micrograph ({side} px)",
            )
