"""EPU says many things twice: where two places of an image XML disagree, a flag tells.

Source: acquisition.md sections 2.3, 2.4, 9 (flags).
"""

import math
from datetime import datetime, timedelta

from mdcatch.parsers.limits import Bounds, number
from mdcatch.parsers.place import time_in
from mdcatch.parsers.record import Record
from services.kit.errors import Refused

SAME = 0.01  # relative; in all samples the two doses agree to six digits
SKEW = timedelta(hours=2)  # of the clocks of two computers in one room, summer time included
_ANY = Bounds(0.0, 1e12)


def compare(record: Record, name: str) -> None:
    """Flag what contradicts itself: dose, exposure, frames, mode, camera, time.

    Parameters
    ----------
    record
        Of an image XML; is added to.
    name
        Path of the file; EPU writes the time into it.
    """
    _doses(record)
    _times(record, name)
    camera = f"Detectors[{record.get('detector') or ''}]"
    for key, other in (
        ("detector", "BinaryResult.Detector"),
        ("detector_model", "DetectorCommercialName"),
    ):
        _texts(record, key, other)
    counted = record.unknown.get(f"{camera}.ElectronCounted", "").lower()
    if counted in ("true", "false") and record.get("counting") is (counted == "false"):
        record.flag("mode_conflict", f"the camera's ElectronCounted is {counted}")
    exposure = _number(record.unknown.get(f"{camera}.ExposureTime"))
    if _differ(record.get("exposure_time_s"), exposure, 0.05):
        record.flag(
            "exposure_conflict",
            f"exposure_time_s is {record.get('exposure_time_s'):g}, the camera's is {exposure:g}",
        )


def _doses(record: Record) -> None:
    """Dose x pixel^2 is the dose on the camera; dose / dose rate x frame rate is the frames."""
    dose, pixel = record.get("total_dose_e_per_A2"), record.get("image_pixel_size_A")
    if dose is not None and pixel is not None:
        expected, stated = dose * pixel**2, record.get("dose_on_camera_e_per_image_px")
        if _differ(stated, expected, SAME):
            record.flag(
                "dose_conflict",
                f"dose_on_camera_e_per_image_px is {stated:g}, "
                f"but total_dose_e_per_A2 x image_pixel_size_A^2 is {expected:g}",
            )
    camera = f"Detectors[{record.get('detector') or ''}]"
    total = _number(record.unknown.get(f"{camera}.TotalDose"))
    rate = _number(record.unknown.get(f"{camera}.DoseRate"))
    estimate, per_second = record.get("n_frames_estimate"), record.get("frame_rate_hz")
    if total and rate and estimate and per_second:
        frames = total / rate * per_second
        if _differ(estimate, frames, SAME):
            record.flag(
                "frames_mismatch",
                f"n_frames_estimate is {estimate}, "
                f"but total dose / dose rate x frame rate is {frames:.1f}",
            )


def _times(record: Record, name: str) -> None:
    """The name has the local time of EPU's computer."""
    named, text = time_in(name), record.get("acquisition_time")
    if named is None or text is None:
        return
    stated = datetime.fromisoformat(text).replace(tzinfo=None)
    if abs(stated - named) > SKEW:
        record.flag("clock_skew", f"acquisition_time is {text}, the name says {named.isoformat()}")


def _texts(record: Record, key: str, other: str) -> None:
    value, again = record.get(key), record.unknown.get(other)
    if value and again and value != again:
        record.flag(f"{key}_conflict", f"{key} is {value!r}, but {other} is {again[:80]!r}")


def _differ(first: float | None, second: float | None, tolerance: float) -> bool:
    if first is None or second is None:
        return False
    return not math.isclose(first, second, rel_tol=tolerance, abs_tol=1e-12)


def _number(text: str | None) -> float | None:
    """Return a number that is only compared; what is none is not worth a refusal."""
    if text is None:
        return None
    try:
        return number("", text, _ANY)
    except Refused:
        return None
