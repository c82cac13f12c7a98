"""EPU's image XML, 1.x to 3.9: bytes in, a record with units, bounds and sources out.

It describes EPU's summed image; pixel and size of the movie are derived.

Source: acquisition.md sections 1.5, 2.3 to 2.5.
"""

import math

from mdcatch.parsers.epucheck import compare
from mdcatch.parsers.epuimage import EpuImage, estimate, image_of, upsampling
from mdcatch.parsers.epukinds import IMAGES, Kind, classify
from mdcatch.parsers.limits import Bounds, integer
from mdcatch.parsers.place import base_name, put_place
from mdcatch.parsers.record import Record, parsed
from mdcatch.parsers.safexml import Element, Leaves, Pair, clean, local, read_leaves
from services.kit.errors import Code, Refused

__all__ = ["EpuImage", "Kind", "boolean", "classify", "parse_epu_image", "parse_image"]

_CAMERA = "microscopeData/acquisition/camera"
_OPTICS = "microscopeData/optics"
_STAGE = "microscopeData/stage/Position"
_INPUT = f"{_CAMERA}/CameraSpecificInput"
_CUSTOM = "CustomData"
_DEGREES = 180.0 / math.pi
_SPAN = Bounds(1, 64)
_FRAME = Bounds(0, 10_000_000)

_TEXTS = {
    "software": "microscopeData/core/ApplicationSoftware",
    "software_version": "microscopeData/core/ApplicationSoftwareVersion",
    "microscope_id": "microscopeData/instrument/InstrumentID",
    "microscope_model": "microscopeData/instrument/InstrumentModel",
    "detector": f"{_CAMERA}/Name",
    "probe_mode": f"{_OPTICS}/ProbeMode",
}
_NUMBERS: tuple[tuple[str, str, float], ...] = (
    ("voltage_kV", "microscopeData/gun/AccelerationVoltage", 1e-3),
    ("image_pixel_size_A", "SpatialScale/pixelSize/x/numericValue", 1e10),
    ("exposure_time_s", f"{_CAMERA}/ExposureTime", 1.0),
    ("magnification", f"{_OPTICS}/TemMagnification/NominalMagnification", 1.0),
    ("lens_defocus_um", f"{_OPTICS}/Defocus", 1e6),
    ("tilt_angle_deg", f"{_STAGE}/A", _DEGREES),
    ("tilt_beta_deg", f"{_STAGE}/B", _DEGREES),
    ("slit_width_eV", f"{_OPTICS}/EnergyFilter/EnergySelectionSlitWidth", 1.0),
    ("beam_diameter_um", f"{_OPTICS}/BeamDiameter", 1e6),
    ("spot_index", f"{_OPTICS}/SpotIndex", 1.0),
)
_VECTORS: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("image_size_px", (f"{_CAMERA}/ReadoutArea/width", f"{_CAMERA}/ReadoutArea/height"), 1.0),
    ("stage_um", (f"{_STAGE}/X", f"{_STAGE}/Y", f"{_STAGE}/Z"), 1e6),
    ("beam_shift", (f"{_OPTICS}/BeamShift/_x", f"{_OPTICS}/BeamShift/_y"), 1.0),
    ("beam_tilt", (f"{_OPTICS}/BeamTilt/_x", f"{_OPTICS}/BeamTilt/_y"), 1.0),
    ("image_shift", (f"{_OPTICS}/ImageShift/_x", f"{_OPTICS}/ImageShift/_y"), 1.0),
)
_SPARED = {"lens_defocus_um", "tilt_beta_deg", "slit_width_eV", "beam_diameter_um", "spot_index"}
_SPARED |= {"stage_um", "beam_tilt", "image_shift"}
_FLAGS = {
    "energy_filter_on": f"{_OPTICS}/EFTEMOn",
    "slit_inserted": f"{_OPTICS}/EnergyFilter/EnergySelectionSlitInserted",
}
_TIME = "microscopeData/acquisition/acquisitionDateTime"
_BOOLEANS = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}


def parse_epu_image(content: bytes, name: str) -> Record:
    """Return the record of an image XML.

    Parameters
    ----------
    content
        Whole file.
    name
        Path of the file: its last component tells the kind, folders and stem the identifiers.

    Raises
    ------
    Refused
        What `read_leaves` raises; XML_BROKEN for another kind of document or a repeated value;
        OUT_OF_RANGE for a number that is none, not finite or beyond its bounds.
    """
    leaves = read_leaves(content)
    if leaves.root != "MicroscopeImage":
        raise Refused(
            Code.XML_BROKEN, f"root element is {leaves.root[:80]!r}, not EPU's MicroscopeImage"
        )
    record = Record(format="epu_xml", kind="")
    for key, path in _TEXTS.items():
        record.put(key, leaves.text(path), "xml")
    put_time(record, "acquisition_time", leaves.text(_TIME))
    _numbers(record, leaves)
    _pairs(record, leaves)
    kind = _kind(record, name)
    record.kind = str(kind)
    if kind in (Kind.EXPOSURE, Kind.OTHER):
        _movie(record)
    else:
        record.notes.append("not a movie: must not produce a movie event")
    put_place(record, name)
    compare(record, name)
    return record


def parse_image(data: bytes) -> EpuImage:
    """Return an image XML in the watcher's form; raises what `parse_epu_image` raises."""
    return image_of(parse_epu_image(data, ""))


def put_time(record: Record, key: str, text: str | None) -> None:
    """Keep a time; one that cannot be read costs a flag, not the file."""
    try:
        record.put(key, text, "xml")
    except Refused as refused:
        record.flag("time_unreadable", refused.detail)


def boolean(text: str | None) -> bool | None:
    """Return yes or no, None for any other text."""
    return _BOOLEANS.get((text or "").lower())


def _numbers(record: Record, leaves: Leaves) -> None:
    for key, path, scale in _NUMBERS:
        text = leaves.text(path)
        if not _unset(record, key, text):
            record.read(key, text, "xml", scale)
    for key, paths, scale in _VECTORS:
        texts = [text for text in map(leaves.text, paths) if not _unset(record, key, text)]
        if len(texts) == len(paths):
            record.put(key, [parsed(key, text, scale) for text in texts if text], "xml")
    binning = leaves.text(f"{_CAMERA}/Binning/x")
    if binning is not None:
        record.put("binning", integer("binning", binning, _SPAN), "xml")
    for key, path in _FLAGS.items():
        record.put(key, boolean(leaves.text(path)), "xml")


def _unset(record: Record, key: str, text: str | None) -> bool:
    """Tell whether a number is not there; NaN is none where no result depends on it."""
    if text == "NaN" and key in _SPARED:
        record.flag("not_a_number", f"{key} is NaN in the file")
        return True
    return text is None


def _pairs(record: Record, leaves: Leaves) -> None:
    """Read the two key/value lists; each key that is used is taken out, the rest is kept."""
    pairs = {**leaves.pairs.get(_INPUT, {}), **leaves.pairs.get(_CUSTOM, {})}

    def take(*keys: str) -> str | None:
        return next((pairs.pop(key).text for key in keys if key in pairs and pairs[key].text), None)

    camera = f"Detectors[{record.get('detector') or ''}]"
    settings = pairs.pop("FractionationSettings", None)
    record.read("super_resolution_factor", take("SuperResolutionFactor"), "xml")
    counted = take("ElectronCountingEnabled", f"{camera}.ElectronCounted")
    record.put("counting", boolean(counted), "xml")
    record.read("total_dose_e_per_A2", take("Dose"), "xml", 1e-20)
    record.read("dose_on_camera_e_per_image_px", take("DoseOnCamera"), "xml")
    record.read("applied_defocus_um", take("AppliedDefocus"), "xml", 1e6)
    record.read("frame_rate_hz", take(f"{camera}.FrameRate"), "xml")
    model = take(f"{camera}.CommercialName", "DetectorCommercialName")
    record.put("detector_model", model, "xml")
    gain = take(f"{camera}.EerGainReference", f"{camera}.GainReference")
    record.put("gain_reference", (gain and base_name(gain)) or None, "xml")
    record.put("phase_plate", boolean(take("PhasePlateUsed")), "xml")
    record.put("c2_aperture", take("Aperture[C2].Name"), "xml")
    record.put("objective_aperture", take("Aperture[OBJ].Name"), "xml")
    if settings is not None:
        _fractions(record, settings)
    record.unknown = {key: pair.text for key, pair in pairs.items()}


def _fractions(record: Record, settings: Pair) -> None:
    """Number of movie frames: stated, or listed one by one; unknown for EER."""
    record.put("fractionation", settings.type or None, "xml")
    inside = [] if settings.element is None else list(settings.element)
    parts = {local(part.tag): part for part in inside}
    if len(parts) < len(inside):
        raise Refused(Code.XML_BROKEN, "FractionationSettings says something twice")
    if (stated := parts.get("NumberOffractions")) is not None:
        record.read("n_frames", clean(stated) or None, "xml")
    elif (listed := parts.get("DoseFractions")) is not None:
        record.put("n_frames", len(listed), "xml")
        lengths = [_length(fraction) for fraction in listed]
        if None not in lengths:
            record.put("raw_frames_per_fraction", lengths, "xml")


def _length(fraction: Element) -> int | None:
    """Camera frames of a fraction: numbered from 1, first and last included."""
    ends = {local(child.tag): child.text or "" for child in fraction}
    first, last = ends.get("StartFrameNumber"), ends.get("EndFrameNumber")
    if first is None or last is None:
        return None
    first, last = first.strip(), last.strip()
    return integer("EndFrameNumber", last, _FRAME) - integer("StartFrameNumber", first, _FRAME) + 1


def _kind(record: Record, name: str) -> Kind:
    """Return the kind by name; of a name that is not EPU's, what the content shows."""
    kind = classify(name, b"")
    if kind in IMAGES:
        return kind
    if kind is not Kind.OTHER:
        record.flag("kind_conflict", f"the name is that of {kind}, the content is an image's")
    if record.get("software") == "TemAppCommon":
        return Kind.ATLAS_TILE
    return Kind.EXPOSURE if "fractionation" in record.fields else Kind.OTHER


def _movie(record: Record) -> None:
    """Derive what belongs to the movie: its pixel, size, frames and dose per frame."""
    factor = upsampling(record.get("super_resolution_factor"), record.get("counting"))
    if (pixel := record.get("image_pixel_size_A")) is not None:
        record.put("pixel_size_A", pixel / factor, "computed")
    if size := record.get("image_size_px"):
        record.put("movie_size_px", [factor * side for side in size], "computed")
    n_frames, exposure_s = record.get("n_frames"), record.get("exposure_time_s")
    guessed = estimate(n_frames, record.get("frame_rate_hz"), exposure_s)
    record.put("n_frames_estimate", guessed or None, "frames x rate")
    frames, dose = n_frames or guessed, record.get("total_dose_e_per_A2")
    if dose is not None and frames:
        record.put("dose_per_frame_e_per_A2", dose / frames, "computed")
    if record.get("fractionation") == "EerFractionation":
        record.put("movie_format", "eer", "xml")
        record.notes.append(
            "the number of EER frames is not in the XML: n_frames_estimate is frame rate x "
            "exposure; take the real number from the movie"
        )
    elif boolean(record.unknown.get("EnableCompression")):
        record.put("movie_format", "tiff", "xml")
