"""Are a movie and its metadata consistent, and what is physically known of them? Pure.

Precedence: person, then site, then metadata; number of frames and size are the file header's.
Every value says where it came from; nothing is invented but Cs and amplitude contrast, which no
file states and which are marked as the site's.

Source: acquisition.md sections 2.5, 7 and 9.
"""

from typing import Any, NamedTuple

import msgspec

from mdcatch import optics
from mdcatch.config import MdcatchConfig
from mdcatch.names import Identifiers, identifiers
from mdcatch.optics import Class, OpticsKey
from mdcatch.parsers.record import Field, Record
from mdcatch.reconcile import Exposure, reconcile
from mdcatch.stimuli import Ready
from services.kit import events
from services.kit.errors import Code, Refused
from services.kit.sitetables import Camera, Microscope

ESTABLISHED = 3  # settled movies before their common size binds the others
_decode = msgspec.msgpack.Decoder(Record).decode
# What may be taken over from the exposure before, by the names of the fields.
_INHERITED = {
    "voltage_kV": "voltage_kV",
    "spherical_aberration_mm": "cs_mm",
    "pixel_size_A": "pixel_size_A",
    "dose_e_A2": "total_dose_e_per_A2",
    "magnification": "magnification",
    "exposure_time_s": "exposure_time_s",
    "slit_inserted": "slit_inserted",
    "slit_width_eV": "slit_width_eV",
    "phase_plate": "phase_plate",
    "counting": "counting",
}


class Physics(NamedTuple):
    """Checked physical values of an exposure, and remarks."""

    key: OpticsKey
    exposure: Exposure
    record: Record  # of the metadata, or what was inherited in their place
    places: Identifiers
    detector: str
    flags: tuple[str, ...]
    metadata: str  # own, inherited or operator
    camera: Camera | None = None


def records(ready: Ready) -> tuple[Record | None, Record]:
    """Return what metadata and header of an exposure say."""
    metadata = None if ready.record is None else _decode(ready.record)
    return metadata, _decode(ready.header.record)


def check(
    ready: Ready,
    config: MdcatchConfig,
    sizes: dict[str, int],
    session: str = "",
    last: events.MovieSettled | None = None,
) -> Physics:
    """Return what is physically known of an exposure.

    Parameters
    ----------
    ready
        The exposure.
    config
        The site's and the person's values.
    sizes
        How many settled movies of the session have each size; see `size_text`.
    session
        Session of the acquisition software.
    last
        The session's last movie, for one without metadata.

    Raises
    ------
    Refused
        GEOMETRY_MISMATCH, MISSING_FIELD.
    """
    own, header = records(ready)
    inherited = {} if own is not None or last is None else heritage(last)
    record = own or Record(format="", kind="", fields=inherited)
    microscope, camera = instruments(config, record)
    exposure = reconcile(
        own,
        header,
        microscope=microscope,
        camera=camera,
        operator=_operator(config),
        inherited=inherited,
        dose_per_fraction_e_A2=config.dose_per_fraction_e_A2,
    )
    assumed = _assume(exposure, record, config)
    contrast = config.overrides.amplitude_contrast
    exposure.sources["amplitude_contrast"] = "site default" if contrast is None else "operator"
    _require(exposure, ready)
    named = (record.get("detector_model"), record.get("detector"), header.get("detector_model"))
    detector = next(filter(None, named), last.detector if inherited and last is not None else "")
    places = _places(ready.movie, record)
    contrast = config.default_amplitude_contrast if contrast is None else contrast
    optic = _class(exposure, record, contrast, session, detector)
    return Physics(
        key=OpticsKey(optic, places.acquisition_area, _shift(record)),
        exposure=exposure,
        record=record,
        places=places,
        detector=detector,
        flags=_flags(ready, record, sizes, [*exposure.flags, *assumed]),
        metadata="own" if own is not None else "inherited" if inherited else "operator",
        camera=camera,
    )


def instruments(config: MdcatchConfig, record: Record) -> tuple[Microscope | None, Camera | None]:
    """Return microscope and camera of the site that a record names, None where it knows none."""
    microscope = config.site.microscope(record.get("microscope_id"))
    if microscope is None:
        return None, None
    return microscope, microscope.camera(record.get("detector_model"), record.get("detector"))


def expected_frames(record: Record) -> int | None:
    """Return how many frames a movie has at least, as its metadata say; None when they do not."""
    stated, estimate = record.get("n_frames"), record.get("n_frames_estimate")
    if stated is not None and stated > 1:  # TFS Tomography says 1 of every EER movie
        return int(stated)
    return int(0.9 * estimate) if estimate is not None else None


def size_text(width_px: int, height_px: int) -> str:
    """Return a size as people and the session's table write it."""
    return f"{width_px} x {height_px}"


# ---- parts


def _operator(config: MdcatchConfig) -> dict[str, float]:
    person = config.overrides
    given = {
        "pixel_size_A": person.pixel_size_A,
        "voltage_kV": person.voltage_kV,
        "cs_mm": person.spherical_aberration_mm,
        "total_dose_e_per_A2": person.dose_e_A2,
    }
    return {key: value for key, value in given.items() if value is not None}


def heritage(last: events.MovieSettled) -> dict[str, Field]:
    """Return what an exposure without metadata takes over from the one before."""
    values = ((key, getattr(last, name)) for name, key in _INHERITED.items())
    return {key: Field(value, "inherited") for key, value in values if value is not None}


def _assume(exposure: Exposure, record: Record, config: MdcatchConfig) -> list[str]:
    """Fill in Cs, which no file says; return the flags that tell of an assumption."""
    if exposure.sources.get("spherical_aberration_mm") == "operator":
        return []
    known = config.spherical_aberrations_mm.get(record.get("microscope_id") or "")
    if known is not None:
        exposure.spherical_aberration_mm = known
        exposure.sources["spherical_aberration_mm"] = "site"
    if exposure.spherical_aberration_mm is not None:
        return []
    exposure.spherical_aberration_mm = config.default_spherical_aberration_mm
    exposure.sources["spherical_aberration_mm"] = "site default"
    return ["cs_assumed"]


def _flags(
    ready: Ready, record: Record, sizes: dict[str, int], known: list[str]
) -> tuple[str, ...]:
    """Return all flags once; a size that does not fit is refused, or was only transposed."""
    flags = [*_check_size(ready, record, sizes), *known, *ready.flags]
    if ready.gain_path is None and _needs_gain(ready, record):
        flags.append("gain_missing")
    return tuple(dict.fromkeys(flag for flag in flags if flag != "size_mismatch"))


def _require(exposure: Exposure, ready: Ready) -> None:
    """Refuse an exposure without what processing needs."""
    for value, wanted, remedy in (
        (exposure.pixel_size_A, "pixel size", "start again with --pixel-size"),
        (
            exposure.voltage_kV,
            "voltage",
            "give --voltage, or set the microscope's voltage_kV in the site's file",
        ),
        (exposure.dose_e_A2, "dose of the exposure", "start again with --dose"),
    ):
        if not value:
            stated = ready.metadata_path or f"{ready.path} has no metadata, and its header"
            raise Refused(Code.MISSING_FIELD, f"{stated} does not state the {wanted}; {remedy}")


def _check_size(ready: Ready, record: Record, sizes: dict[str, int]) -> list[str]:
    """Compare a size with the metadata's and the session's; K2 files may be transposed."""
    size = ready.header.width_px, ready.header.height_px
    stated = vector(record, "movie_size_px", 2)
    if stated is not None and size not in (stated, stated[::-1]):
        raise Refused(
            Code.GEOMETRY_MISMATCH,
            f"{ready.path} is {size_text(*size)} px, its metadata says {size_text(*stated)}",
        )
    text, total = size_text(*size), sum(sizes.values())
    usual = max(sizes, key=lambda item: sizes[item], default=text)
    if total >= ESTABLISHED and 2 * sizes[usual] > total and text != usual:
        raise Refused(
            Code.GEOMETRY_MISMATCH,
            f"{ready.path} is {text} px, the session's movies are {usual}; "
            "movies of another size need a session of their own",
        )
    return ["size_transposed"] if stated is not None and size != stated else []


def _needs_gain(ready: Ready, record: Record) -> bool:
    """Falcons write gain-corrected MRC; every TIFF and EER needs its gain."""
    corrected = record.get("gain_corrected")
    return ready.header.format != "mrc" if corrected is None else not corrected


def _places(movie: str, record: Record) -> Identifiers:
    """Return square, hole and area: of EPU's names, else of SerialEM's multishot.

    SerialEM counts holes within its pattern: hole and position together are what the acquisition
    area of EPU's template is.
    """
    found = identifiers(movie)
    shot = record.get("hole_and_position")
    if found.acquisition_area or not shot:
        return found
    return Identifiers(found.grid_square, found.foil_hole, "-".join(map(str, shot)))


def _class(
    exposure: Exposure, record: Record, contrast: float, session: str, detector: str
) -> Class:
    return Class(
        exposure.voltage_kV or 0.0,
        exposure.spherical_aberration_mm or 0.0,
        contrast,
        exposure.pixel_size_A or 0.0,
        record.get("magnification"),
        session,
        detector,
        optics.slit_of(record.get("slit_inserted"), record.get("slit_width_eV")),
        record.get("phase_plate"),
    )


def _shift(record: Record) -> tuple[float, float] | None:
    return vector(record, "beam_shift", 2) or vector(record, "image_shift", 2)


def vector(record: Record, key: str, length: int) -> Any:
    """Return a tuple of numbers, None where it is absent or has another length."""
    value = record.get(key)
    return tuple(value) if value is not None and len(value) == length else None
