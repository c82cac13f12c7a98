"""Are a movie and its metadata consistent, and what exactly is published? Pure.

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
from services.kit.sitetables import Camera

ESTABLISHED = 3  # settled movies before their common size binds the others
_decode = msgspec.msgpack.Decoder(Record).decode
# Field of the metadata -> field of the event, for what is passed on as it is.
_PLAIN = {
    "exposure_time_s": "exposure_time_s",
    "magnification": "magnification",
    "counting": "counting",
    "slit_inserted": "slit_inserted",
    "slit_width_eV": "slit_width_eV",
    "phase_plate": "phase_plate",
    "tilt_angle_deg": "tilt_angle_deg",
    "tilt_axis_angle_deg": "tilt_axis_deg",
    "prior_dose_e_per_A2": "pre_exposure_e_A2",
}
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
    """Checked physical values of an exposure, where each came from, and remarks."""

    key: OpticsKey
    exposure: Exposure
    record: Record  # of the metadata, or what was inherited in their place
    places: Identifiers
    detector: str
    sources: dict[str, str]
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
    inherited = {} if own is not None or last is None else _heritage(last)
    record = own or Record(format="", kind="", fields=inherited)
    microscope = config.site.microscope(record.get("microscope_id"))
    camera = (
        None
        if microscope is None
        else microscope.camera(record.get("detector_model"), record.get("detector"))
    )
    exposure = reconcile(
        own,
        header,
        microscope=microscope,
        camera=camera,
        operator=_operator(config),
        inherited=inherited,
        dose_per_fraction_e_A2=config.dose_per_fraction_e_A2,
    )
    flags = [*_check_size(ready, record, sizes), *exposure.flags, *ready.flags]
    contrast, sources = _defaults(exposure, record, config, flags)
    _require(exposure, ready)
    if ready.gain_path is None and _needs_gain(ready, record):
        flags.append("gain_missing")
    if "size_mismatch" in flags:
        flags.remove("size_mismatch")  # it is refused, or transposed
    detector = record.get("detector_model") or record.get("detector")
    detector = detector or header.get("detector_model")
    if not detector and inherited and last is not None:
        detector = last.detector
    places = _places(ready.movie, record)
    key = _key(exposure, record, contrast, session, places, detector or "")
    whose = "own" if own is not None else "inherited" if inherited else "operator"
    return Physics(
        key,
        exposure,
        record,
        places,
        detector or "",
        sources | _sources(record),
        tuple(dict.fromkeys(flags)),
        whose,
        camera,
    )


def publication(
    ready: Ready,
    physics: Physics,
    optics_group: int,
    *,
    provisional: bool | None = None,
    link: str | None = None,
    path: str | None = None,
) -> events.MovieSettled:
    """Return the event that publishes an exposure, its bounds checked.

    Parameters
    ----------
    ready, physics
        What is known.
    optics_group, provisional
        Its group, and whether the grouping is trusted.
    link, path
        The root of the movie in the project and its path below that, when it is not `Movies`.

    Raises
    ------
    Refused
        OUT_OF_RANGE, naming the field.
    """
    record, exposure, header = physics.record, physics.exposure, ready.header
    plain = {name: record.get(key) for key, name in _PLAIN.items()}
    defocus = record.get("applied_defocus_um")
    frame_doses = exposure.frame_doses or None
    body = events.MovieSettled(
        movie=ready.movie,
        path=path or ready.path,
        metadata_path=ready.metadata_path,
        format=header.format,
        size_bytes=ready.size_bytes,
        mtime_ns=ready.mtime_ns,
        digest=header.digest,
        width_px=header.width_px,
        height_px=header.height_px,
        n_frames=header.n_frames,
        voltage_kV=physics.key.optics.voltage_kV,
        spherical_aberration_mm=physics.key.optics.spherical_aberration_mm,
        amplitude_contrast=physics.key.optics.amplitude_contrast,
        pixel_size_A=physics.key.optics.pixel_size_A,
        dose_e_A2=exposure.dose_e_A2 or 0.0,
        dose_per_frame_e_A2=exposure.dose_per_frame_e_A2 or 0.0,
        applied_defocus_um=record.get("target_defocus_um") if defocus is None else defocus,
        detector=physics.detector,
        super_resolution_factor=_upsampling(exposure),
        binning=max(1, round(record.get("binning") or 1)),
        grid_square=physics.places.grid_square,
        foil_hole=physics.places.foil_hole,
        acquisition_area=physics.places.acquisition_area,
        beam_shift=_vector(record, "beam_shift", 2),
        beam_tilt=_vector(record, "beam_tilt", 2),
        image_shift=_vector(record, "image_shift", 2),
        stage_um=_vector(record, "stage_um", 3),
        acquired_at=record.get("acquisition_time") or "",
        gain_path=ready.gain_path,
        gain_rotation=physics.camera.gain_rotation if physics.camera else None,
        gain_flip=physics.camera.gain_flip if physics.camera else None,
        defects_path=ready.defects_path,
        optics_group=optics_group,
        sources=physics.sources,
        flags=physics.flags,
        link=link,
        session=physics.key.optics.session,
        software=record.get("software") or "",
        metadata=physics.metadata,
        complete_by=ready.complete_by,
        compression=header.compression,
        exposure_name=ready.movie.rpartition("/")[2],
        tilt_series=ready.series,
        tilt_index=ready.section,
        frame_doses=frame_doses,
        processing_pixel_size_A=exposure.processing_pixel_A,
        bin_factor=exposure.bin_factor,
        frames_per_fraction=exposure.eer.group if exposure.eer else None,
        optics_provisional=provisional,
        **plain,
    )
    try:
        events.decode(events.encode(body))  # what the journal's readers will check
    except msgspec.ValidationError as error:
        raise Refused(Code.OUT_OF_RANGE, f"{ready.path}: {error}") from None
    return body


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


def _heritage(last: events.MovieSettled) -> dict[str, Field]:
    values = ((key, getattr(last, name)) for name, key in _INHERITED.items())
    return {key: Field(value, "inherited") for key, value in values if value is not None}


def _defaults(
    exposure: Exposure, record: Record, config: MdcatchConfig, flags: list[str]
) -> tuple[float, dict[str, str]]:
    """Fill in Cs, which the site knows; return the amplitude contrast and the sources so far."""
    sources = {key: str(source) for key, source in exposure.sources.items()}
    if sources.get("spherical_aberration_mm") != "operator":
        instrument = record.get("microscope_id") or ""
        if instrument in config.spherical_aberrations_mm:
            exposure.spherical_aberration_mm = config.spherical_aberrations_mm[instrument]
            sources["spherical_aberration_mm"] = "site"
        elif exposure.spherical_aberration_mm is None:
            exposure.spherical_aberration_mm = config.default_spherical_aberration_mm
            sources["spherical_aberration_mm"] = "site default"
            flags.append("cs_assumed")
    contrast = config.overrides.amplitude_contrast
    sources["amplitude_contrast"] = "site default" if contrast is None else "operator"
    return config.default_amplitude_contrast if contrast is None else contrast, sources


def _require(exposure: Exposure, ready: Ready) -> None:
    """Refuse an exposure without what processing needs."""
    for field, value, wanted in (
        ("pixel_size_A", exposure.pixel_size_A, "pixel size"),
        ("voltage_kV", exposure.voltage_kV, "voltage"),
        ("dose_e_A2", exposure.dose_e_A2, "dose of the exposure"),
    ):
        if not value:
            stated = ready.metadata_path or f"{ready.path} has no metadata, and its header"
            raise Refused(
                Code.MISSING_FIELD, f"{stated} does not state the {wanted}; set overrides.{field}"
            )


def _check_size(ready: Ready, record: Record, sizes: dict[str, int]) -> list[str]:
    """Compare a size with the metadata's and the session's; K2 files may be transposed."""
    size = ready.header.width_px, ready.header.height_px
    stated = _vector(record, "movie_size_px", 2)
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


def _key(
    exposure: Exposure,
    record: Record,
    contrast: float,
    session: str,
    places: Identifiers,
    detector: str,
) -> OpticsKey:
    shift = _vector(record, "beam_shift", 2) or _vector(record, "image_shift", 2)
    optic = Class(
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
    return OpticsKey(optic, places.acquisition_area, shift)


def _sources(record: Record) -> dict[str, str]:
    return {
        name: str(record.fields[key].source) for key, name in _PLAIN.items() if key in record.fields
    }


def _upsampling(exposure: Exposure) -> int:
    return exposure.sampling.super_resolution if exposure.sampling else 1


def _vector(record: Record, key: str, length: int) -> Any:
    value = record.get(key)
    return tuple(value) if value is not None and len(value) == length else None
