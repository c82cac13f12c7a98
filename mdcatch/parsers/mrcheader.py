"""Headers of MRC files: main header, and the first record of TFS's extended header.

Source: acquisition.md section 5.
"""

import math
import struct
from typing import Any

from algorithms.formats import mrc
from algorithms.formats.errors import FormatError
from algorithms.formats.movie import MAX_FRAMES
from mdcatch.parsers import fei
from mdcatch.parsers.fei import Value
from mdcatch.parsers.record import Record
from mdcatch.parsers.window import Window, refusal
from services.kit.errors import Code, Refused

_OLD_FEI_BYTES = 1024 * 128  # of tomography files before FEI1: 1024 records, no type
_PROBES = {1: "NanoProbe", 2: "MicroProbe"}
# Field -> names in the record and the factor to our unit. Out of bounds costs the file ...
_NEEDED: dict[str, tuple[str, float]] = {
    "voltage_kV": ("HT", 1e-3),
    "exposure_time_s": ("Integration time", 1.0),
    "magnification": ("Magnification", 1.0),
    "binning": ("Binning Width", 1.0),
}
# ... or only the field.
_USEFUL: dict[str, tuple[str, float]] = {
    "tilt_angle_deg": ("Alpha tilt", 1.0),  # degrees here, radians in EPU's XML
    "tilt_beta_deg": ("Beta tilt", 1.0),
    "lens_defocus_um": ("Defocus", 1e6),
    "applied_defocus_um": ("Applied defocus", 1e6),
    "beam_diameter_um": ("Illuminated area", 1e6),
    "spot_index": ("Spot index", 1.0),
    "slit_width_eV": ("Slit width", 1.0),
}
_VECTORS: dict[str, tuple[tuple[str, ...], float]] = {
    "stage_um": (("X-Stage", "Y-Stage", "Z-Stage"), 1e6),
    "beam_shift": (("Shift X", "Shift Y"), 1.0),
    "image_shift": (("Shift offset X", "Shift offset Y"), 1.0),
}
_AS_IS = {
    "software": "Application",
    "software_version": "Application version",
    "microscope_id": "D-Number",
    "microscope_model": "Microscope type",
    "detector": "Camera name",
    "detector_model": "Detector commercial name",
    "objective_aperture": "Objective aperture name",
    "energy_filter_on": "EFTEM On",
    "slit_inserted": "Slit inserted",
    "counting": "Direct detector electron counting",
    "phase_plate": "Phase Plate",
}
_ELSEWHERE = {"Timestamp", "Dose", "Pixel size X", "Probe mode"}


def parse_mrc(window: Window, name: str) -> Record:
    """Return the record of an MRC file, from its headers alone.

    Parameters
    ----------
    window
        Onto the file; the pixels may be missing: `complete` is False then.
    name
        Of the file, for messages.

    Raises
    ------
    Refused
        EMPTY_FILE, TRUNCATED (inside the headers), BAD_HEADER, UNSUPPORTED (complex modes),
        TOO_LARGE, or OUT_OF_RANGE for voltage, dose, pixel, exposure time and the like.
    """
    if window.size == 0:
        raise Refused(Code.EMPTY_FILE, f"{name}: 0 bytes")
    raw = window.take(0, mrc.HEADER_BYTES, f"{name}: the MRC header")
    try:
        header = mrc.parse_header(raw, name)
    except FormatError as error:
        raise refusal(error) from None
    if header.nz > MAX_FRAMES:
        raise Refused(Code.TOO_LARGE, f"{name}: {header.nz} sections, the limit is {MAX_FRAMES}")
    order = "<" if struct.unpack_from("<i", raw)[0] == header.nx else ">"
    record = Record(format="mrc", kind="movie" if header.nz > 1 else "image")
    record.put("mode", header.mode, "header")
    record.put("n_sections", header.nz, "header")
    record.put("n_frames", header.nz if header.nz > 1 else None, "header")
    size = (header.nx, header.ny)
    record.put("movie_size_px" if header.nz > 1 else "image_size_px", size, "header")
    record.put("header_voxel_A", _voxel(raw, order), "header")
    record.put("size_bytes", window.size, "header")
    record.put("extended_header_bytes", header.extended_bytes, "header")
    record.put("complete", window.size >= header.complete_bytes, "header")
    if window.size > header.complete_bytes:
        surplus = window.size - header.complete_bytes
        record.notes.append(f"{surplus} bytes stand behind the last section")
    if header.extended_type in fei.TYPES:
        record.put("image_size_px", size, "header")
        _read_extended(record, window, header, order, name)
    elif header.extended_bytes == _OLD_FEI_BYTES:
        record.notes.append("an extended header of an old FEI program is skipped")
    pixel = "pixel_size_A" if header.nz > 1 else "image_pixel_size_A"
    if record.get(pixel) is None:
        _offer(record, pixel, header.pixel_size_A)
    if order == ">":
        record.notes.append("the file is big-endian")
    if raw[208:211] != b"MAP":
        record.notes.append('the header has no "MAP"')
    return record


def _voxel(raw: bytes, order: str) -> tuple[float, float] | None:
    """Cell over grid along x and y; None where the header gives none."""
    mx, my, _, cell_x, cell_y = struct.unpack_from(f"{order}3i2f", raw, 28)
    if min(mx, my) < 1 or not (0 < cell_x < math.inf and 0 < cell_y < math.inf):
        return None
    voxel = cell_x / mx, cell_y / my
    return voxel if max(voxel) <= 1e7 else None


def _read_extended(
    record: Record, window: Window, header: mrc.Header, order: str, name: str
) -> None:
    kind = header.extended_type
    record.format = f"mrc_{kind.lower()}"
    if record.kind == "image":
        record.kind = "integrated_image"
    needed = fei.TYPES[kind]
    if header.extended_bytes < needed:
        record.flag(
            "extended_header_broken",
            f"{header.extended_bytes} bytes, one record of {kind} has {needed}",
        )
        return
    raw = window.take(mrc.HEADER_BYTES, needed, f"{name}: the {kind} extended header")
    (block,) = struct.unpack_from(f"{order}i", raw)
    if not needed <= block <= header.extended_bytes:
        record.flag(
            "extended_header_broken",
            f"Metadata size is {block}; it must be {needed} to {header.extended_bytes}",
        )
        return
    _offer(record, "metadata_block_bytes", block)
    _fill(record, fei.read_record(raw, kind, order), header.nz)


def _fill(record: Record, fields: dict[str, Value], sections: int) -> None:
    for key, (source, scale) in _NEEDED.items():
        record.put(key, _scaled(fields, source, scale), "header")
    for key, (source, scale) in _USEFUL.items():
        _offer(record, key, _scaled(fields, source, scale))
    for key, (sources, scale) in _VECTORS.items():
        values = tuple(_scaled(fields, source, scale) for source in sources)
        _offer(record, key, None if None in values else values)
    for key, source in _AS_IS.items():
        _offer(record, key, fields.get(source))
    _offer(record, "probe_mode", _PROBES.get(int(fields.get("Probe mode", 0))))
    record.put("acquisition_time", fei.date(fields.get("Timestamp")), "header")
    pixel = _scaled(fields, "Pixel size X", 1e10)
    dose = _scaled(fields, "Dose", 1e-20)
    record.put("image_pixel_size_A", pixel, "header")
    if sections > 1:
        record.put("pixel_size_A", pixel, "header")
    if sections == 1:
        record.put("total_dose_e_per_A2", dose, "header")
    elif dose is not None:  # of a frame or of the exposure: no file tells
        record.unknown["Dose"] = str(fields["Dose"])
    known = {*_AS_IS.values(), *_ELSEWHERE}
    known |= {source for source, _ in (*_NEEDED.values(), *_USEFUL.values())}
    known |= {source for sources, _ in _VECTORS.values() for source in sources}
    record.unknown |= {key: str(value) for key, value in fields.items() if key not in known}


def _scaled(fields: dict[str, Value], source: str, scale: float) -> float | None:
    value = fields.get(source)
    return None if value is None or isinstance(value, str) else value * scale


def _offer(record: Record, key: str, value: Any) -> None:
    """Put a field that can be done without; what is out of its bounds is left out, and said."""
    try:
        record.put(key, value, "header")
    except Refused as error:
        record.notes.append(f"left out: {error.detail}")
