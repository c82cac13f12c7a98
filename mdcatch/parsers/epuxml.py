"""EPU's image XML: bytes in, a record with units and bounds out. What a file does not say is None.

Source: acquisition.md sections 1.5, 2.3 to 2.5.
"""

import math
import re
from enum import StrEnum
from pathlib import PurePosixPath

import msgspec

from mdcatch.parsers.limits import MAX_TEXT_FIELD, Bounds, integer, number
from mdcatch.parsers.safexml import Leaves, Pair, read_leaves
from services.kit.errors import Code, Refused


class Kind(StrEnum):
    """What an EPU file is; only EXPOSURE may lead to a movie."""

    EXPOSURE = "exposure"
    FOIL_HOLE_IMAGE = "foil_hole_image"
    GRID_SQUARE_IMAGE = "grid_square_image"
    ATLAS_TILE = "atlas_tile"
    ATLAS_MOSAIC = "atlas_mosaic"
    FRACTION_TABLE = "fraction_table"
    SESSION = "epu_session"
    GRID_SQUARE = "grid_square"
    ATLAS = "atlas"
    OTHER = "other"


_KINDS: tuple[tuple[re.Pattern[str], Kind, bytes], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.ASCII), kind, root)
    for pattern, kind, root in (
        (r"FoilHole_\d+_Data_.*_Fractions\.xml", Kind.FRACTION_TABLE, b"<Acquisition"),
        (r"FoilHole_\d+_Data_.*\.xml", Kind.EXPOSURE, b"<MicroscopeImage"),
        (r"FoilHole_.*\.xml", Kind.FOIL_HOLE_IMAGE, b"<MicroscopeImage"),
        (r"GridSquare_.*\.xml", Kind.GRID_SQUARE_IMAGE, b"<MicroscopeImage"),
        (r"Tile_.*\.xml", Kind.ATLAS_TILE, b"<MicroscopeImage"),
        (r"Atlas_.*\.xml", Kind.ATLAS_MOSAIC, b"<MicroscopeImage"),
        (r"EpuSession\.dm", Kind.SESSION, b"<EpuSessionXml"),
        (r"GridSquare_.*\.dm", Kind.GRID_SQUARE, b"<GridSquareXml"),
        (r"Atlas\.dm", Kind.ATLAS, b"<AtlasSessionXml"),
    )
)


def classify(path: str, head: bytes) -> Kind:
    """Tell what an EPU file is by its name and root element, before any parsing.

    Parameters
    ----------
    path
        File path; only the last component counts.
    head
        First bytes of the file, enough to hold the root's opening tag; empty to go by name alone.
    """
    name = PurePosixPath(path).name
    for pattern, kind, root in _KINDS:
        if pattern.fullmatch(name):
            return kind if not head or root in head else Kind.OTHER
    return Kind.OTHER


class EpuImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image XML: it describes EPU's sum; pixel and size of the movie are derived."""

    software: str | None = None  # EPU, or TemAppCommon for atlas files
    software_version: str | None = None
    microscope_id: str | None = None
    microscope_model: str | None = None
    voltage_kV: float | None = None
    image_pixel_size_A: float | None = None
    super_resolution_factor: int | None = None
    binning: int | None = None
    image_width_px: int | None = None
    image_height_px: int | None = None
    exposure_time_s: float | None = None
    dose_e_A2: float | None = None  # whole exposure, at the specimen
    dose_on_camera_e_px: float | None = None  # whole exposure, per image pixel
    n_frames: int | None = None
    fractionation: str | None = None
    frame_rate_hz: float | None = None
    detector: str | None = None
    detector_model: str | None = None
    counting: bool | None = None
    gain_reference: str | None = None  # base name
    magnification: float | None = None
    applied_defocus_um: float | None = None
    lens_defocus_um: float | None = None
    tilt_alpha_deg: float | None = None
    tilt_beta_deg: float | None = None
    stage_um: tuple[float, float, float] | None = None
    beam_shift: tuple[float, float] | None = None  # arbitrary unit: for grouping only
    beam_tilt_rad: tuple[float, float] | None = None
    image_shift: tuple[float, float] | None = None
    energy_filter_on: bool | None = None
    slit_width_eV: float | None = None
    slit_inserted: bool | None = None
    phase_plate: bool | None = None
    c2_aperture: str | None = None
    objective_aperture: str | None = None
    spot_index: int | None = None
    beam_diameter_um: float | None = None
    probe_mode: str | None = None
    acquired_at: str | None = None  # ISO 8601, verbatim
    other: dict[str, str] = {}  # keys of the two lists that have no field here, untouched

    @property
    def upsampling(self) -> int:
        """Movie pixels per image pixel along one axis; super-resolution exists only in counting."""
        return (self.super_resolution_factor or 1) if self.counting is not False else 1

    @property
    def pixel_size_A(self) -> float | None:
        """Pixel of the movie on disk."""
        return (
            None if self.image_pixel_size_A is None else self.image_pixel_size_A / self.upsampling
        )

    @property
    def movie_size_px(self) -> tuple[int, int] | None:
        """Width and height of the movie: read-out area times the super-resolution factor."""
        if self.image_width_px is None or self.image_height_px is None:
            return None
        return self.image_width_px * self.upsampling, self.image_height_px * self.upsampling

    @property
    def n_frames_estimate(self) -> int | None:
        """Raw frames of an EER exposure; the file itself knows better."""
        if self.n_frames is not None or self.frame_rate_hz is None or self.exposure_time_s is None:
            return None
        return round(self.frame_rate_hz * self.exposure_time_s)

    @property
    def dose_per_frame_e_A2(self) -> float | None:
        """Dose over the stated, else the estimated, number of frames."""
        frames = self.n_frames or self.n_frames_estimate
        return self.dose_e_A2 / frames if self.dose_e_A2 is not None and frames else None


_CAMERA = "microscopeData/acquisition/camera"
_OPTICS = "microscopeData/optics"
_STAGE = "microscopeData/stage/Position"
_CUSTOM = "CustomData"
_INPUT = f"{_CAMERA}/CameraSpecificInput"
_FRACTIONS = f"{_INPUT}/KeyValueOfstringanyType/Value"
_DEGREES = 180.0 / math.pi

_TEXTS = {
    "software": "microscopeData/core/ApplicationSoftware",
    "software_version": "microscopeData/core/ApplicationSoftwareVersion",
    "microscope_id": "microscopeData/instrument/InstrumentID",
    "microscope_model": "microscopeData/instrument/InstrumentModel",
    "detector": f"{_CAMERA}/Name",
    "probe_mode": f"{_OPTICS}/ProbeMode",
}
_SIGNED_UM = Bounds(-1e5, 1e5, "um")
_ANGLE = Bounds(-180.0, 180.0, "degrees")
_ARBITRARY = Bounds(-1e3, 1e3)
_NUMBERS: dict[str, tuple[str, float, Bounds]] = {
    "voltage_kV": ("microscopeData/gun/AccelerationVoltage", 1e-3, Bounds(10.0, 1500.0, "kV")),
    # Up to an atlas mosaic's 0.5 um; a movie's own bounds are those of the event.
    "image_pixel_size_A": ("SpatialScale/pixelSize/x/numericValue", 1e10, Bounds(0.01, 1e6, "A")),
    "exposure_time_s": (f"{_CAMERA}/ExposureTime", 1.0, Bounds(0.0, 1e5, "s")),
    "magnification": (
        f"{_OPTICS}/TemMagnification/NominalMagnification",
        1.0,
        Bounds(1.0, 1e8, "times"),
    ),
    "lens_defocus_um": (f"{_OPTICS}/Defocus", 1e6, _SIGNED_UM),
    "tilt_alpha_deg": (f"{_STAGE}/A", _DEGREES, _ANGLE),
    "tilt_beta_deg": (f"{_STAGE}/B", _DEGREES, _ANGLE),
    "slit_width_eV": (
        f"{_OPTICS}/EnergyFilter/EnergySelectionSlitWidth",
        1.0,
        Bounds(0.0, 1e4, "eV"),
    ),
    "beam_diameter_um": (f"{_OPTICS}/BeamDiameter", 1e6, Bounds(0.0, 1e5, "um")),
}
_INTEGERS: dict[str, tuple[str, Bounds]] = {
    "binning": (f"{_CAMERA}/Binning/x", Bounds(1, 16)),
    "image_width_px": (f"{_CAMERA}/ReadoutArea/width", Bounds(1, 131_072, "px")),
    "image_height_px": (f"{_CAMERA}/ReadoutArea/height", Bounds(1, 131_072, "px")),
    "spot_index": (f"{_OPTICS}/SpotIndex", Bounds(0, 100)),
}
_VECTORS: dict[str, tuple[tuple[str, ...], float, Bounds]] = {
    "stage_um": ((f"{_STAGE}/X", f"{_STAGE}/Y", f"{_STAGE}/Z"), 1e6, _SIGNED_UM),
    "beam_shift": ((f"{_OPTICS}/BeamShift/_x", f"{_OPTICS}/BeamShift/_y"), 1.0, _ARBITRARY),
    "beam_tilt_rad": ((f"{_OPTICS}/BeamTilt/_x", f"{_OPTICS}/BeamTilt/_y"), 1.0, _ARBITRARY),
    "image_shift": ((f"{_OPTICS}/ImageShift/_x", f"{_OPTICS}/ImageShift/_y"), 1.0, _ARBITRARY),
}
_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)?", re.ASCII)


def parse_image(data: bytes) -> EpuImage:
    """Return the record of an image XML.

    Parameters
    ----------
    data
        Whole file.

    Raises
    ------
    Refused
        What `read_leaves` raises; XML_BROKEN for another kind of document; OUT_OF_RANGE for a
        number that is none, not finite or beyond its bounds.
    """
    leaves = read_leaves(data)
    if leaves.root != "MicroscopeImage":
        raise Refused(
            Code.XML_BROKEN, f"root element is {leaves.root[:80]!r}, not EPU's MicroscopeImage"
        )
    fields: dict[str, object] = {
        field: leaves.texts[path][:MAX_TEXT_FIELD]
        for field, path in _TEXTS.items()
        if path in leaves.texts
    }
    fields |= _numbers(leaves)
    fields |= _pairs(leaves, str(fields.get("detector", "")))
    for field, name in (
        ("energy_filter_on", "EFTEMOn"),
        ("slit_inserted", "EnergyFilter/EnergySelectionSlitInserted"),
    ):
        fields[field] = _boolean(leaves.texts.get(f"{_OPTICS}/{name}"))
    acquired = leaves.texts.get("microscopeData/acquisition/acquisitionDateTime", "")
    fields["acquired_at"] = acquired if _ISO_TIME.fullmatch(acquired) else None
    return EpuImage(**fields)  # pyright: ignore[reportArgumentType]


def _numbers(leaves: Leaves) -> dict[str, object]:
    texts = leaves.texts
    fields: dict[str, object] = {}
    for field, (path, scale, bounds) in _NUMBERS.items():
        if path in texts:
            fields[field] = number(field, texts[path], bounds, scale)
    for field, (path, bounds) in _INTEGERS.items():
        if path in texts:
            fields[field] = integer(field, texts[path], bounds)
    for field, (paths, scale, bounds) in _VECTORS.items():
        if all(path in texts for path in paths):
            fields[field] = tuple(number(field, texts[path], bounds, scale) for path in paths)
    return fields


def _pairs(leaves: Leaves, detector: str) -> dict[str, object]:
    """Fields of the two key/value lists; each key that is read is taken out, the rest is kept."""
    pairs = {**leaves.pairs.get(_INPUT, {}), **leaves.pairs.get(_CUSTOM, {})}

    def take(*keys: str) -> str | None:
        found = [pairs.pop(key).text for key in keys if key in pairs]
        return found[0] if found and found[0] else None

    def measured(field: str, key: str, scale: float, bounds: Bounds) -> float | None:
        text = take(key)
        return None if text is None else number(field, text, bounds, scale)

    def word(*keys: str) -> str | None:
        text = take(*keys)
        return None if text is None else text[:MAX_TEXT_FIELD]

    camera = f"Detectors[{detector}]"
    settings = pairs.pop("FractionationSettings", None)
    factor = take("SuperResolutionFactor")
    gain = word(f"{camera}.EerGainReference", f"{camera}.GainReference")
    return {
        "super_resolution_factor": None
        if factor is None
        else integer("super_resolution_factor", factor, Bounds(1, 4)),
        "counting": _boolean(take("ElectronCountingEnabled", f"{camera}.ElectronCounted")),
        "fractionation": settings.type[:MAX_TEXT_FIELD] or None if settings else None,
        "n_frames": _fractions(leaves, settings),
        "dose_e_A2": measured("dose_e_A2", "Dose", 1e-20, Bounds(0.0, 1e4, "e/A2")),
        "dose_on_camera_e_px": measured(
            "dose_on_camera_e_px", "DoseOnCamera", 1.0, Bounds(0.0, 1e9, "e/pixel")
        ),
        "applied_defocus_um": measured("applied_defocus_um", "AppliedDefocus", 1e6, _SIGNED_UM),
        "frame_rate_hz": measured(
            "frame_rate_hz", f"{camera}.FrameRate", 1.0, Bounds(0.0, 1e6, "Hz")
        ),
        "detector_model": word(f"{camera}.CommercialName", "DetectorCommercialName"),
        "gain_reference": gain and PurePosixPath(gain.replace("\\", "/")).name,
        "phase_plate": _boolean(take("PhasePlateUsed")),
        "c2_aperture": word("Aperture[C2].Name"),
        "objective_aperture": word("Aperture[OBJ].Name"),
        "other": {key: pair.text for key, pair in pairs.items()},
    }


def _fractions(leaves: Leaves, settings: Pair | None) -> int | None:
    """Number of movie frames: stated, or listed one by one; unknown for EER."""
    if settings is None:
        return None
    stated = leaves.texts.get(f"{_FRACTIONS}/NumberOffractions")
    if stated is not None:
        return integer("n_frames", stated, Bounds(1, 65_535))
    listed = leaves.counts.get(f"{_FRACTIONS}/DoseFractions/anyType")
    return None if listed is None else integer("n_frames", str(listed), Bounds(1, 65_535))


def _boolean(text: str | None) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get((text or "").lower())
