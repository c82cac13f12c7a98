"""EPU's image XML, 1.x to 3.9: bytes in, a record with units, bounds and sources out.

It describes EPU's summed image; pixel and size of the movie are derived.

Source: acquisition.md sections 1.5, 2.3 to 2.5.
"""

import math

from mdcatch.parsers.epucheck import compare
from mdcatch.parsers.epukinds import IMAGES, Kind, classify
from mdcatch.parsers.epumovie import put_movie
from mdcatch.parsers.fractionation import put_fractions
from mdcatch.parsers.limits import Bounds, integer
from mdcatch.parsers.place import base_name, put_place
from mdcatch.parsers.record import Record, parsed
from mdcatch.parsers.safexml import Leaves, Pair, read_leaves
from services.kit.errors import Code, Refused

__all__ = ["Kind", "boolean", "classify", "parse_epu_image"]

_CAMERA = "microscopeData/acquisition/camera"
_OPTICS = "microscopeData/optics"
_STAGE = "microscopeData/stage/Position"
_INPUT = f"{_CAMERA}/CameraSpecificInput"
_CUSTOM = "CustomData"
_DEGREES = 180.0 / math.pi
_SPAN = Bounds(1, 64)

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
_SPARED |= {"stage_um", "beam_tilt", "image_shift", "applied_defocus_um", "frame_rate_hz"}
_SPARED |= {"dose_on_camera_e_per_image_px"}
_FLAGS = {
    "energy_filter_on": f"{_OPTICS}/EFTEMOn",
    "slit_inserted": f"{_OPTICS}/EnergyFilter/EnergySelectionSlitInserted",
}
_TIME = "microscopeData/acquisition/acquisitionDateTime"
_UNSET_TIME = "0001-01-01T00:00:00"  # what .NET writes for no time
_UNIT = "SpatialScale/pixelSize/x/unit"
# What .NET makes of <Symbol> and <PrefixExponent>; all files seen have 1 and m for the metre.
_SYMBOL = f"{_UNIT}/_x003C_Symbol_x003E_k__BackingField"
_PREFIX = f"{_UNIT}/_x003C_PrefixExponent_x003E_k__BackingField"
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
    if kind is Kind.EXPOSURE:
        put_movie(record)
    else:
        record.notes.append("not a movie: must not produce a movie event")
    put_place(record, name)
    compare(record, name)
    return record


def put_time(record: Record, key: str, text: str | None) -> None:
    """Keep a time; one that cannot be read costs a flag, not the file."""
    if text is not None and text.startswith(_UNSET_TIME):
        return
    try:
        record.put(key, text, "xml")
    except Refused as refused:
        record.flag("time_unreadable", refused.detail)


def boolean(text: str | None) -> bool | None:
    """Return yes or no, None for any other text."""
    return _BOOLEANS.get((text or "").lower())


def _check_unit(record: Record, leaves: Leaves) -> None:
    """Flag a pixel that is not in metres, as that of a diffraction pattern."""
    symbol, prefix = leaves.text(_SYMBOL), leaves.text(_PREFIX)
    if symbol not in (None, "m") or prefix not in (None, "0", "1"):
        told = f"the pixel size is in {(symbol or '')[:40]!r}, prefix {(prefix or '')[:40]!r}"
        record.flag("unit_unknown", f"{told}: it is left out, for it is not in metres")


def _numbers(record: Record, leaves: Leaves) -> None:
    _check_unit(record, leaves)
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
    if key == "image_pixel_size_A" and "unit_unknown" in record.flags:
        return True
    if text == "NaN" and key in _SPARED:
        record.flag("not_a_number", f"{key} is NaN in the file")
        return True
    return text is None


def _pairs(record: Record, leaves: Leaves) -> None:
    """Read the two key/value lists; each key that is used is taken out, the rest is kept."""
    inside, custom = leaves.pairs.get(_INPUT, {}), leaves.pairs.get(_CUSTOM, {})
    pairs = {**inside, **custom}
    twice = {key for key in inside.keys() & custom.keys() if inside[key][:2] != custom[key][:2]}

    def pop(key: str) -> Pair | None:
        if key in twice:
            raise Refused(Code.XML_BROKEN, f"key {key[:80]!r} is given twice, not the same")
        return pairs.pop(key, None)

    def take(*keys: str) -> str | None:
        for key in keys:
            if key in pairs and pairs[key].text and (pair := pop(key)):
                return pair.text
        return None

    camera = f"Detectors[{record.get('detector') or ''}]"
    settings = pop("FractionationSettings")
    factor = take("SuperResolutionFactor")
    record.read("super_resolution_factor", None if factor == "0" else factor, "xml")
    counted = take("ElectronCountingEnabled", f"{camera}.ElectronCounted")
    record.put("counting", boolean(counted), "xml")
    for key, name, scale in (
        ("total_dose_e_per_A2", "Dose", 1e-20),
        ("dose_on_camera_e_per_image_px", "DoseOnCamera", 1.0),
        ("applied_defocus_um", "AppliedDefocus", 1e6),
        ("frame_rate_hz", f"{camera}.FrameRate", 1.0),
    ):
        text = take(name)
        record.read(key, None if _unset(record, key, text) else text, "xml", scale)
    model = take(f"{camera}.CommercialName", "DetectorCommercialName")
    record.put("detector_model", model, "xml")
    gain = take(f"{camera}.EerGainReference", f"{camera}.GainReference")
    record.put("gain_reference", (gain and base_name(gain)) or None, "xml")
    record.put("phase_plate", boolean(take("PhasePlateUsed")), "xml")
    record.put("c2_aperture", take("Aperture[C2].Name"), "xml")
    record.put("objective_aperture", take("Aperture[OBJ].Name"), "xml")
    if settings is not None:
        put_fractions(record, settings)
    record.unknown = {key: pair.text for key, pair in pairs.items()}


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
