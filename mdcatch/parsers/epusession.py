"""EpuSession.dm, Sample.dm and ScreeningSession.dm: what a session is set up to do.

Source: acquisition.md section 2.7. EPU rewrites these files in place during the session.
"""

import math
from typing import Any

from mdcatch.parsers.contract import Contract
from mdcatch.parsers.epuxml import boolean, put_time
from mdcatch.parsers.gridsquare import point
from mdcatch.parsers.limits import Bounds, integer
from mdcatch.parsers.record import Record, checked, parsed
from mdcatch.parsers.safexml import Element, clean
from services.kit.errors import Code, Refused

_TEXTS = {
    "session_name": "Name",
    "dose_fractions_output_format": "DoseFractionsOutputFormat",
    "image_file_format": "ImageFileFormat",
    "clustering_mode": "ClusteringMode",
    "autoloader_slot": "AutoloaderSlot",
}
_FLAGS = {
    "phase_plate_enabled": "PhasePlateEnabled",
    "tilted_acquisition": "TiltedAcquisitionEnabled",
}
_START, _RADIUS, _TILT = "StartDateTime", "ClusteringRadius", "TiltAngle"
_SAMPLE_TEXTS = {
    "atlas_path": "AtlasId",
    "grid_type": "GridType",
    "grid_geometry": "GridGeometry",
}
_HOLES = {
    "hole_size_um": "FilterHolesSettings/HoleSize",
    "hole_spacing_um": "FilterHolesSettings/HoleSpacing",
}
_EXPOSURE = "Acquisition/camera/ExposureTime"
_BINNING = "Acquisition/camera/Binning/x"
_BINNINGS = Bounds(0, 64)  # EPU writes 0 into steps that were never set up
_DETECTOR = "Acquisition/camera/Name"
_SHOTS = "TargetAreaTemplate/DataAcquisitionAreas/m_serializationArray"
_INPUT = "Acquisition/camera/CameraSpecificInput/KeyValuePairs"


def parse_epu_session(content: bytes, name: str) -> Record:
    """Return the record of EpuSession.dm; `sections` has one entry per shot of the template.

    Parameters
    ----------
    content
        Whole file.
    name
        Path of the file; not used, the file says it all.

    Raises
    ------
    Refused
        What `Contract` raises; OUT_OF_RANGE.
    """
    document = Contract(content, "EpuSessionXml")
    record = Record(format="EpuSessionXml", kind="epu_session")
    record.put("software_version", document.version, "xml")
    for key, path in _TEXTS.items():
        record.put(key, document.text(path), "xml")
    for key, path in _FLAGS.items():
        record.put(key, boolean(document.text(path)), "xml")
    put_time(record, "start_time", document.text(_START))
    record.read("clustering_radius_um", document.figure(_RADIUS), "xml", 1e6)
    _tilt(record, document.figure(_TILT))
    folders = [document.text("Path", item) for item in document.items("StorageFolders/_items")]
    record.put("storage_folders", tuple(filter(None, folders)) or None, "xml")
    samples = document.items("Samples/_items")
    if samples:
        _sample(record, document, samples[0])
    used = {*_TEXTS.values(), *_FLAGS.values(), _START, _RADIUS, _TILT}
    record.unknown = {k: v for k, v in document.scalars().items() if k not in used}
    if "atlas_path" in record.fields or folders:
        record.notes.append("atlas_path and storage_folders are paths of the microscope's computer")
    return record


def parse_sample(content: bytes, name: str) -> Record:
    """Return the record of a Sample.dm; see `parse_epu_session`."""
    return _named(content, "SampleXml")


def parse_screening_session(content: bytes, name: str) -> Record:
    """Return the record of a ScreeningSession.dm; see `parse_epu_session`."""
    return _named(content, "ScreeningSessionXml")


def _named(content: bytes, root: str) -> Record:
    document = Contract(content, root)
    record = Record(format=root, kind=root)
    record.put("software_version", document.version, "xml")
    record.put("name", document.text("Name"), "xml")
    put_time(record, "start_time", document.text(_START))
    record.put("n_children", len(document.root), "xml")
    record.unknown = {k: v for k, v in document.scalars().items() if k not in ("Name", _START)}
    return record


def _tilt(record: Record, text: str | None) -> None:
    """Keep the session's tilt. EPU's angles are radians; what is none of a stage is degrees."""
    if text is None:
        return
    angle = parsed("tilt_angle_deg", text)
    if abs(angle) <= math.pi / 2:
        angle = math.degrees(angle)
        if angle:
            record.notes.append(f"TiltAngle {text} is taken for radians")
    record.put("tilt_angle_deg", angle, "xml")


def _sample(record: Record, document: Contract, sample: Element) -> None:
    for key, path in _SAMPLE_TEXTS.items():
        record.put(key, document.text(path, sample), "xml")
    for key, path in _HOLES.items():
        record.read(key, document.figure(path, sample), "xml", 1e6)
    presets: dict[str, dict[str, Any]] = {}
    for step, settings in document.pairs("MicroscopeSettings/KeyValuePairs", sample):
        preset = _preset(record, document, step, settings)
        if presets.setdefault(checked("name", step), preset) != preset:
            raise Refused(Code.XML_BROKEN, f"preset {step[:80]!r} is given twice, not the same")
    record.put("presets", presets or None, "xml")
    shots = document.pairs(_SHOTS, sample)
    record.sections = [_shot(document, key, value) for key, value in shots]


def _shot(document: Contract, key: str, value: Element) -> dict[str, Any]:
    """Return one shot position of the template: `acquisition_area_id` is the one in file names."""
    settings = "ImageAcquisitionSettingXml"
    exposure = document.figure(f"{settings}/ExposureTime", value)
    defoci = [clean(one) for one in document.items(f"{settings}/Defocus", value)]
    return {
        "acquisition_area_id": checked("acquisition_area_id", key),
        "shift_px": point(document, value, "ShiftInPixels", ("width", "height")),
        "exposure_time_s": None if exposure is None else parsed("exposure_time_s", exposure),
        "defocus_um": tuple(parsed("applied_defocus_um", text, 1e6) for text in defoci),
    }


def _preset(record: Record, document: Contract, step: str, settings: Element) -> dict[str, Any]:
    """Return camera and beam of one imaging step; what it does not state itself is None."""
    preset: dict[str, Any] = {"detector": _short(document.text(_DETECTOR, settings))}
    if preset["detector"] and document.is_reference(_DETECTOR, settings):
        record.notes.append(f"preset {step}: the detector is that of another: {preset['detector']}")
        preset["detector"] = None

    def read(key: str, path: str, scale: float = 1.0) -> float | None:
        text = document.figure(path, settings)
        return None if text is None else parsed(key, text, scale)

    binning = document.text(_BINNING, settings)
    return preset | {
        "exposure_time_s": read("exposure_time_s", _EXPOSURE),
        "binning": None if binning is None else integer("binning", binning, _BINNINGS),
        "n_frames": _fractions(document, settings),
        "spot_index": read("spot_index", "Optics/SpotIndex"),
        "beam_diameter_um": read("beam_diameter_um", "Optics/BeamDiameter", 1e6),
        "probe_mode": _short(document.text("Optics/ProbeMode", settings)),
    }


def _short(text: str | None) -> str | None:
    """Return a short printable text; None stays."""
    return None if text is None else checked("name", text)


def _fractions(document: Contract, settings: Element) -> int | None:
    """Return the number of fractions that a step asks for: stated, or listed one by one."""
    for key, value in document.pairs(_INPUT, settings):
        if key == "FractionationSettings":
            stated = document.text("NumberOffractions", value)
            stated = stated or document.text("DoseFractions/_size", value)
            return None if stated is None else int(parsed("n_frames", stated))
    return None
