"""From what is known of an exposure to the event that publishes it. Pure.

Source: acquisition.md section 9.
"""

from typing import Any

import msgspec

from mdcatch.checks import Physics, vector
from mdcatch.mtf import choose_mtf
from mdcatch.parsers.record import Record
from mdcatch.stimuli import Ready
from services.kit import events
from services.kit.errors import Code, Refused

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
_VECTORS = {"beam_shift": 2, "beam_tilt": 2, "image_shift": 2, "stage_um": 3}


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
        Its group, and whether the grouping may still be wrong.
    link, path
        The root of the movie in the project and its path below that, when it is not `Movies`.

    Raises
    ------
    Refused
        OUT_OF_RANGE, naming the field.
    """
    body = events.MovieSettled(
        path=path or ready.path,
        link=link,
        optics_group=optics_group,
        optics_provisional=provisional,
        flags=physics.flags,
        notes=_notes(physics),
        metadata=physics.metadata,
        session=physics.key.optics.session,
        **_file(ready),
        **_optics(physics),
        **_doses(physics),
        **_places(ready, physics),
        **_calibration(ready, physics),
    )
    try:
        events.decode(events.encode(body))  # what the journal's readers will check
    except msgspec.ValidationError as error:
        raise Refused(Code.OUT_OF_RANGE, f"{ready.path}: {error}") from None
    return body


def mtf_path(physics: Physics) -> str | None:
    """Return the modulation transfer function of an exposure's camera, as the site has it."""
    exposure = physics.exposure
    fine = exposure.bin_factor > 1
    chosen = choose_mtf(
        physics.camera, exposure.voltage_kV, physics.record.get("counting"), super_resolution=fine
    )
    return None if chosen.path is None else str(chosen.path)


# ---- parts


def _file(ready: Ready) -> dict[str, Any]:
    header = ready.header
    return {
        "movie": ready.movie,
        "exposure_name": ready.movie.rpartition("/")[2],
        "metadata_path": ready.metadata_path,
        "format": header.format,
        "compression": header.compression,
        "size_bytes": ready.size_bytes,
        "mtime_ns": ready.mtime_ns,
        "digest": header.digest,
        "width_px": header.width_px,
        "height_px": header.height_px,
        "n_frames": header.n_frames,
        "complete_by": ready.complete_by,
    }


def _optics(physics: Physics) -> dict[str, Any]:
    record, exposure, optics = physics.record, physics.exposure, physics.key.optics
    fields = record.fields.items()
    stated = {_PLAIN[key]: str(field.source) for key, field in fields if key in _PLAIN}
    return {
        "voltage_kV": optics.voltage_kV,
        "spherical_aberration_mm": optics.spherical_aberration_mm,
        "amplitude_contrast": optics.amplitude_contrast,
        "pixel_size_A": optics.pixel_size_A,
        "processing_pixel_size_A": exposure.processing_pixel_A,
        "bin_factor": exposure.bin_factor,
        "detector": physics.detector,
        "super_resolution_factor": exposure.sampling.super_resolution if exposure.sampling else 1,
        "binning": max(1, round(record.get("binning") or 1)),
        "sources": {key: str(source) for key, source in exposure.sources.items()} | stated,
        **{name: record.get(key) for key, name in _PLAIN.items()},
    }


def _doses(physics: Physics) -> dict[str, Any]:
    exposure = physics.exposure
    return {
        "dose_e_A2": exposure.dose_e_A2 or 0.0,
        "dose_per_frame_e_A2": exposure.dose_per_frame_e_A2 or 0.0,
        "frame_doses": exposure.frame_doses or None,
        "group_frames": None if exposure.eer else exposure.group_frames,
        "frames_per_fraction": exposure.eer.group if exposure.eer else None,
    }


def _places(ready: Ready, physics: Physics) -> dict[str, Any]:
    record, places = physics.record, physics.places
    return {
        "software": record.get("software") or "",
        "grid_square": places.grid_square,
        "foil_hole": places.foil_hole,
        "acquisition_area": places.acquisition_area,
        "tilt_series": ready.series,
        "tilt_index": ready.section,
        "acquired_at": record.get("acquisition_time") or "",
        "applied_defocus_um": _defocus(record),
        **{name: vector(record, name, length) for name, length in _VECTORS.items()},
    }


def _calibration(ready: Ready, physics: Physics) -> dict[str, Any]:
    camera = physics.camera
    return {
        "gain_path": ready.gain_path,
        "gain_rotation": None if camera is None else camera.gain_rotation,
        "gain_flip": None if camera is None else camera.gain_flip,
        "defects_path": ready.defects_path,
        "mtf_path": mtf_path(physics),
    }


def _notes(physics: Physics) -> dict[str, str]:
    said = physics.exposure.flags.items()
    return {flag: note for flag, note in said if flag in physics.flags and note != flag}


def _defocus(record: Record) -> float | None:
    """Return the defocus that was asked for: EPU says applied, SerialEM target."""
    applied = record.get("applied_defocus_um")
    return record.get("target_defocus_um") if applied is None else applied
