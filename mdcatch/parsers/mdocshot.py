"""What one section of an mdoc says about an exposure: numbers with bounds, doses, files.

Source: acquisition.md sections 3.3 and 4.
"""

import re
from collections.abc import Callable
from typing import Any

from mdcatch.parsers.limits import Bounds, integer
from mdcatch.parsers.mdoctime import time_of, time_of_stamp
from mdcatch.parsers.record import Record, checked, parsed
from services.kit.errors import Code, Refused

CONFLICT = 0.1  # share of the total dose by which the listed frame doses may differ
_NO_NAMES = ("", ".", "..")
_HOLE = Bounds(-1_000_000, 1_000_000)  # of a regular array they count from its middle

# Key -> field. A value that is out of its bounds costs the exposure.
_NEEDED = {
    "TiltAngle": "tilt_angle_deg",
    "PixelSpacing": "pixel_size_A",
    "Magnification": "magnification",
    "ExposureTime": "exposure_time_s",
    "NumSubFrames": "n_frames",
    "ExposureDose": "total_dose_e_per_A2",
    "PriorRecordDose": "prior_dose_e_per_A2",
    "Binning": "binning",
    "Voltage": "voltage_kV",
    "Cs": "cs_mm",
}
# A value that is out of its bounds, or NaN, counts as not stated: nothing is computed from it.
_USEFUL = {
    "DoseRate": "dose_rate_e_per_px_s",
    "TargetDefocus": "target_defocus_um",
    "Defocus": "lens_defocus_um",
    "RotationAngle": "rotation_angle_deg",
    "SpotSize": "spot_index",
    "CameraIndex": "camera_index",
    "FramesPerSecond": "frame_rate_hz",
    "RotationAndFlip": "rotation_flip",
}
_FILES = {"GainReference": "gain_reference", "DefectFile": "defects_file"}
_ZERO_IS_UNKNOWN = ("NumSubFrames", "ExposureDose", "Cs", "FramesPerSecond")
_KNOWN = frozenset(
    {*_NEEDED, *_USEFUL, *_FILES, "ImageShift", "FilterSlitAndLoss", "StagePosition", "StageZ"}
    | {"SubFramePath", "FrameDosesAndNumber", "DateTime", "MultishotHoleAndPosition"}
    | {"OperatingMode", "ProbeMode", "PhasePlateInserted", "NavigatorLabel", "PieceCoordinates"}
    | {"FrameTSStartEndFrames"}
)
# Fields of one section, in the order in which they are shown.
KEYS = tuple(
    (
        "frame_dose_sum_e_per_A2 dose_conflict movie_file tilt_angle_deg stage_um pixel_size_A "
        "magnification exposure_time_s n_frames total_dose_e_per_A2 dose_per_frame_e_per_A2 "
        "frame_doses dose_rate_e_per_px_s prior_dose_e_per_A2 binning super_resolution counting "
        "probe_mode target_defocus_um lens_defocus_um image_shift rotation_angle_deg spot_index "
        "camera_index slit_width_eV slit_inserted energy_loss_eV phase_plate gain_reference "
        "defects_file rotation_flip frame_rate_hz acquisition_time navigator_label "
        "hole_and_position"
    ).split()
)
_ZERO = re.compile(r"[+-]?0{1,20}(?:\.0{0,20})?", re.ASCII)
_PROBES = {"0": "NanoProbe", "1": "MicroProbe"}
_MODES = {"0": False, "1": True, "2": True}  # linear, counting, super-resolution


def read_shot(record: Record, values: dict[str, str], *, day_last: bool, one_movie: bool) -> None:
    """Put what a section says into a record.

    Parameters
    ----------
    record
        Receives fields, notes and the keys without a field here.
    values
        Of the section.
    day_last
        Dates are yy-Mon-dd, as TFS Tomography writes them.
    one_movie
        The movie holds a whole tilt series; its listed doses count, for `ExposureDose` has frames
        that were not saved.

    Raises
    ------
    Refused
        OUT_OF_RANGE for a dose, pixel, tilt, time, voltage or number of frames that is no number
        or out of its bounds.
    """
    stated = {key: value for key, value in values.items() if value}
    for key, field in _NEEDED.items():
        if key in stated:
            value = parsed(field, stated[key]) if not _unset(key, stated[key]) else None
            record.put(field, value, "mdoc")
    for key, field in _USEFUL.items():
        if key in stated and not _unset(key, stated[key]):
            offer(record, key, stated[key], lambda text, f=field: {f: parsed(f, text)})
    offer(record, "ImageShift", stated.get("ImageShift"), _pair("image_shift"))
    offer(record, "FilterSlitAndLoss", stated.get("FilterSlitAndLoss"), _slit)
    if "StagePosition" in stated:
        place = f"{stated['StagePosition']} {stated.get('StageZ', '')}"
        offer(record, "StagePosition", place, _pair("stage_um"))
    record.put("movie_file", base_name(stated.get("SubFramePath", "")), "mdoc")
    for key, field in _FILES.items():
        offer(record, key, stated.get(key), lambda text, f=field: {f: base_name(text)})
    label = stated.get("NavigatorLabel")
    offer(record, "NavigatorLabel", label, lambda text: {"navigator_label": text})
    hole = stated.get("MultishotHoleAndPosition")
    offer(record, "MultishotHoleAndPosition", hole, _holes)
    if stated.get("PhasePlateInserted", "").lower() in ("true", "1", "false", "0"):
        inserted = stated["PhasePlateInserted"].lower() in ("true", "1")
        record.put("phase_plate", inserted, "mdoc")
    record.put("counting", _MODES.get(stated.get("OperatingMode", "")), "mdoc")
    record.put("probe_mode", _PROBES.get(stated.get("ProbeMode", "")), "mdoc")
    if (binning := record.get("binning")) is not None:
        record.put("super_resolution", binning < 1, "computed")
    _read_doses(record, stated.get("FrameDosesAndNumber"), one_movie)
    _read_time(record, stated, day_last)
    record.unknown |= {key: value for key, value in values.items() if key not in _KNOWN}


def base_name(path: str) -> str | None:
    r"""Return the part of a path after the last `\` or `/`; None where there is none.

    Nothing else of a foreign path is ever used.
    """
    name = path.replace("\\", "/").rpartition("/")[2].strip()
    return None if name in _NO_NAMES else name


def _unset(key: str, text: str) -> bool:
    """A dose or count of 0 means that it was not calibrated or not counted."""
    return key in _ZERO_IS_UNKNOWN and _ZERO.fullmatch(text) is not None


def offer(
    record: Record, key: str, text: str | None, read: Callable[[str], dict[str, Any]]
) -> None:
    """Put fields that can be done without: what cannot be read is left out, and said.

    Parameters
    ----------
    record
        Receives the fields, or a note.
    key
        Of the mdoc, for the note.
    text
        What the mdoc says; nothing and NaN count as not stated.
    read
        Returns fields and values of the text, or raises Refused.
    """
    if not text or text.lower() == "nan":
        return
    try:
        for field, value in read(text).items():
            record.put(field, value, "mdoc")
    except Refused as error:
        record.notes.append(f"{key} is left out: {error.detail}")


def _pair(field: str) -> Callable[[str], dict[str, Any]]:
    return lambda text: {field: tuple(parsed(field, part) for part in text.split())}


def _holes(text: str) -> dict[str, Any]:
    return {"hole_and_position": [integer("hole", part, _HOLE) for part in text.split()]}


def _slit(text: str) -> dict[str, Any]:
    """Width and loss; `0 0` is a slit that is out."""
    width, _, loss = text.partition(" ")
    value = parsed("slit_width_eV", width)
    lost = parsed("energy_loss_eV", loss.strip()) if loss.strip() else None
    return {"slit_width_eV": value, "slit_inserted": value > 0, "energy_loss_eV": lost}


def _read_doses(record: Record, text: str | None, one_movie: bool) -> None:
    """Frame doses, their sum, and the mean dose of a frame by the rules of section 3.3."""
    pairs = _dose_pairs(text) if text else ()
    total, frames = record.get("total_dose_e_per_A2"), record.get("n_frames")
    listed = sum(count for _, count in pairs)
    amount = checked("frame_dose_sum_e_per_A2", sum(dose * count for dose, count in pairs)) or None
    if frames is None and listed:
        record.put("n_frames", frames := listed, "computed")
    record.put("frame_doses", [list(pair) for pair in pairs] or None, "mdoc")
    record.put("frame_dose_sum_e_per_A2", amount, "computed")
    conflict = bool(amount and total and abs(amount - total) > CONFLICT * total)
    record.put("dose_conflict", conflict, "computed")
    if conflict:
        record.flag(
            "dose_conflict",
            f"ExposureDose is {total:g} e/A^2, FrameDosesAndNumber sums to {amount:g}",
        )
    covered = listed == frames
    if amount and not covered:
        record.notes.append(f"FrameDosesAndNumber lists {listed} frames, NumSubFrames is {frames}")
    if amount and (total is None or (one_movie and conflict)):
        record.put("dose_per_frame_e_per_A2", amount / listed, "computed")
        if total is None and covered:
            record.put("total_dose_e_per_A2", amount, "computed")
    elif total is not None and frames:
        record.put("dose_per_frame_e_per_A2", total / frames, "computed")


def _dose_pairs(text: str) -> tuple[tuple[float, int], ...]:
    parts = text.split()
    if len(parts) % 2:
        raise Refused(
            Code.OUT_OF_RANGE,
            f"FrameDosesAndNumber is {text[:80]!r}; it must be pairs of a dose and a number",
        )
    return tuple(
        (float(parsed("dose_per_frame_e_per_A2", dose)), int(parsed("n_frames", count)))
        for dose, count in zip(parts[::2], parts[1::2], strict=True)
    )


def _read_time(record: Record, stated: dict[str, str], day_last: bool) -> None:
    text = stated.get("DateTime", "")
    time = time_of(text, day_last=day_last)
    record.put("acquisition_time", time, "mdoc")
    if text and time is None:
        record.notes.append(f"DateTime {text[:40]!r} is not a date")
    if time is None and (stamp := time_of_stamp(stated.get("TimeStamp", ""))):
        record.notes.append(f"no date; by TimeStamp the exposure was taken at {stamp}")
