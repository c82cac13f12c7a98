"""What is told of a session: its own description, and changes of the microscope's settings. Pure.

Source: acquisition.md sections 2.7 and 9.
"""

from typing import Any

import msgspec

from mdcatch.checks import Physics
from mdcatch.parsers.record import Record
from mdcatch.stimuli import Described
from services.kit import events

_decode = msgspec.msgpack.Decoder(Record).decode
_CLUSTERING = {"NoClustering": False, "ClusteringWithImageBeamShift": True}
# Field of the record -> field of the event.
_FIELDS = {
    "software_version": "software_version",
    "start_time": "started_at",
    "dose_fractions_output_format": "movie_format",
    "autoloader_slot": "autoloader_slot",
    "grid_type": "grid_type",
    "grid_geometry": "grid_geometry",
    "hole_size_um": "hole_size_um",
    "hole_spacing_um": "hole_spacing_um",
    "tilt_angle_deg": "tilt_angle_deg",
    "phase_plate_enabled": "phase_plate",
}
# Changes of these are told; defocus changes all the time.
_SETTINGS = (
    "magnification pixel_size_A voltage_kV detector counting exposure_time_s dose_e_A2 n_frames "
    "slit_inserted slit_width_eV phase_plate binning super_resolution_factor"
).split()
SAME = 0.05  # of a number; doses are measured again and again


def description(described: Described) -> events.SessionDescribed:
    """Return the event that tells what EpuSession.dm says."""
    record = _decode(described.record)
    values = {name: record.get(key) for key, name in _FIELDS.items()}
    return events.SessionDescribed(
        session=described.session,
        software="EPU",
        beam_shift_clustering=_CLUSTERING.get(record.get("clustering_mode") or ""),
        **{name: value for name, value in values.items() if value is not None},
    )


def plan(physics: Physics, movie: str, diameter_A: float | None) -> events.SessionPlanned | None:
    """Return what follows for the processing, None while the pixel is unknown.

    Parameters
    ----------
    physics, movie
        An exposure.
    diameter_A
        Of the particle, if a person gave it.
    """
    exposure = physics.exposure
    if exposure.processing_pixel_A is None:
        return None
    suggested = exposure.suggest(diameter_A) if diameter_A else None
    boxes, eer = suggested and suggested.boxes, exposure.eer
    return events.SessionPlanned(
        session=physics.key.optics.session,
        movie=movie,
        processing_pixel_size_A=exposure.processing_pixel_A,
        bin_factor=exposure.bin_factor,
        group_frames=None if eer else exposure.group_frames,
        frames_per_fraction=eer and eer.group,
        fractions=eer and eer.fractions,
        leftover_frames=eer and eer.leftover,
        dose_per_fraction_e_A2=eer and eer.dose_per_fraction_e_A2,
        particle_diameter_A=diameter_A,
        mask_diameter_A=boxes and boxes.mask_A,
        box_px=boxes and boxes.box_px,
        small_box_px=boxes and boxes.scaled_px,
    )


def is_news(plan: events.SessionPlanned, before: events.SessionPlanned | None) -> bool:
    """Tell whether a plan differs; EER movies of one setting differ by a few frames."""
    if before is None:
        return True
    pixels = plan.processing_pixel_size_A, before.processing_pixel_size_A
    names = ("bin_factor", "group_frames", "frames_per_fraction", "particle_diameter_A", "box_px")
    return not _is_same(*pixels) or any(getattr(plan, n) != getattr(before, n) for n in names)


def settings_changed(
    last: events.MovieSettled, movie: events.MovieSettled
) -> events.SettingsChanged | None:
    """Return the event that tells what differs from the exposure before, None when nothing does."""
    if movie.metadata == "inherited" or movie.movie == last.movie:
        return None
    pairs = ((name, getattr(last, name), getattr(movie, name)) for name in _SETTINGS)
    different = [(name, old, new) for name, old, new in pairs if not _is_same(old, new)]
    if not different:
        return None
    return events.SettingsChanged(
        session=movie.session,
        movie=movie.movie,
        before={name: str(old) for name, old, _ in different},
        after={name: str(new) for name, _, new in different},
    )


def _is_same(old: Any, new: Any) -> bool:
    if isinstance(old, float) and isinstance(new, float):
        return abs(old - new) <= SAME * max(abs(old), abs(new))
    return old == new or old is None or new is None
