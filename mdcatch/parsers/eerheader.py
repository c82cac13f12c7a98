"""EER movies from their directories and the acquisition document of the first.

Each camera frame is a directory of a BigTIFF; the number of directories is the number of frames,
whatever the document declares.

Source: acquisition.md section 6.
"""

import re
from typing import Any

from algorithms.formats import tiff
from algorithms.formats.errors import FormatError
from mdcatch.parsers.directories import DEFECTS_TAG, Directories, Frame, incomplete
from mdcatch.parsers.limits import Bounds, number
from mdcatch.parsers.record import Record
from mdcatch.parsers.safexml import clean, local, read_tree
from mdcatch.parsers.window import Window
from services.kit.errors import Code, Refused

MAX_FRAMES = 65_535  # directories libtiff counts; 200 s at 320 Hz
SENSOR_PIXEL_M = 1e-7  # a larger "sensor pixel" is the camera's, a smaller the specimen's
METADATA_TAG = 65001
FIRST_GENERATION = b"ThermoFisherECComprOK"  # ends each frame of the container before TIFF

_CODES = {65000: "8-bit run length", 65001: "7-bit run length", 65002: "run length of own depths"}
_ANY = Bounds(-1e300, 1e300)
_METRES = {"": 1.0, "m": 1.0, "um": 1e-6, "nm": 1e-9, "pm": 1e-12}
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
# Spellings of one unit, in the order in which they are replaced.
_SPELLINGS = (
    *((" ", ""), ("µ", "u"), ("μ", "u"), ("electrons", "e"), ("electron", "e"), ("e-", "e")),
    *(("pixels", "px"), ("pixel", "px"), ("seconds", "s"), ("second", "s"), ("sec", "s")),
    *(("meters", "m"), ("metres", "m"), ("meter", "m"), ("metre", "m")),
)
# Item -> field and the factors of the units it may have.
_NUMBERS: dict[str, tuple[str, dict[str, float]]] = {
    "exposureTime": ("exposure_time_s", _SECONDS),
    "totalDose": ("total_dose_e_per_px", {"": 1.0, "e/px": 1.0}),
    "meanDoseRate": ("dose_rate_e_per_px_s", {"": 1.0, "e/px/s": 1.0}),
    "numberOfFrames": ("n_frames_declared", {"": 1.0}),
}
_TEXTS = {
    "acquisitionID": "acquisition_id",
    "cameraName": "detector",
    "commercialName": "detector_model",
}
_PIXELS = ("sensorPixelSize.width", "sensorPixelSize.height")


def parse_eer(window: Window, name: str) -> Record:
    """Return the record of an EER movie.

    Parameters
    ----------
    window
        Onto the file. A file that is cut gives `complete` = False and nothing else.
    name
        Of the file, for messages.

    Raises
    ------
    Refused
        EMPTY_FILE, BAD_HEADER, UNSUPPORTED (no EER, or the container before TIFF), TOO_LARGE,
        OUT_OF_RANGE, or what `read_tree` raises for the acquisition document.
    """
    try:
        return _read(Directories(window, name))
    except (FormatError, Refused) as error:
        if error.code == "BAD_HEADER" and _is_first_generation(window):
            detail = f"{name}: an EER file of the first generation, before TIFF, is not read"
            raise Refused(Code.UNSUPPORTED, f"{detail}; convert it with TFS's own tools") from None
        return incomplete(error, "eer", "movie")


def _is_first_generation(window: Window) -> bool:
    """Look for the mark that ends a frame, at the end of the file."""
    length = min(window.size, 4096)
    return FIRST_GENERATION in window.read(window.size - length, length)


def _read(walk: Directories) -> Record:
    record = Record(format="eer", kind="movie")
    first: Frame | None = None
    frames = sums = 0
    for number_, entries in enumerate(walk.chain(MAX_FRAMES), 1):
        frame = walk.frame(entries, f"directory {number_}")
        if number_ == 1:
            _read_document(record, walk.tag(entries, METADATA_TAG))
            _note_defects(record, entries)
        if frame.compression not in tiff.EER_COMPRESSIONS:
            sums += 1
            continue
        frames += 1
        if first is None:
            first = frame
        elif (frame.nx, frame.ny) != (first.nx, first.ny):
            raise walk.error(
                "BAD_HEADER",
                f"frame {frames} is {frame.nx} x {frame.ny}, frame 1 {first.nx} x {first.ny}",
            )
    if first is None:
        raise walk.error("UNSUPPORTED", "no directory with EER compression: this is no EER movie")
    if sums:
        record.notes.append(f"{sums} summed images in the file are no frames")
    record.put("movie_size_px", (first.nx, first.ny), "header")
    record.put("compression", f"eer, {_CODES[first.compression]}", "header")
    record.put("size_bytes", walk.size, "header")
    record.put("complete", True, "header")
    _put_frames(record, frames)
    return record


def _note_defects(record: Record, entries: dict[int, Any]) -> None:
    if DEFECTS_TAG in entries:
        record.notes.append(f"carries a map of defects: tag {DEFECTS_TAG}")


def _put_frames(record: Record, frames: int) -> None:
    """The file's own count, and what follows from it."""
    record.put("n_frames", frames, "header")
    declared = record.get("n_frames_declared")
    if declared is not None and declared != frames:
        record.flag("frames_mismatch", f"{declared} frames are declared, the file has {frames}")
    per_px, pixel = record.get("total_dose_e_per_px"), record.get("pixel_size_A")
    if per_px is not None and pixel is not None:
        record.put("total_dose_e_per_A2", per_px / pixel**2, "computed")
        record.put("dose_per_frame_e_per_A2", per_px / pixel**2 / frames, "computed")


def _read_document(record: Record, raw: bytes) -> None:
    """The acquisition document: `<metadata><item name="..." unit="...">value</item>...`."""
    content = raw.rstrip(b"\0").strip()
    if not content:
        record.notes.append("the first directory has no acquisition document")
        return
    try:
        root = read_tree(content)
    except Refused as error:
        # The file may be whole: waiting for more of it heals nothing.
        code = Code.XML_BROKEN if error.code == Code.TRUNCATED else error.code
        raise Refused(code, f"acquisition document: {error.detail}") from None
    items: dict[str, tuple[str, str]] = {}
    for element in root:
        key, value = element.get("name"), clean(element)
        if local(element.tag) != "item" or not key:
            continue
        known = items.setdefault(key, (value, element.get("unit", "").strip()))
        if known[0] != value:
            raise Refused(Code.XML_BROKEN, f"item {key[:80]!r} is given twice, not the same")
    for key, (field, units) in _NUMBERS.items():
        if (value := _in_unit(record, items, key, units)) is not None:
            record.put(field, value, "header")
    for key, field in _TEXTS.items():
        record.put(field, items.pop(key, ("", ""))[0][:256] or None, "header")
    _read_time(record, items)
    _read_pixel(record, items)
    record.unknown |= {key: f"{value} {unit}".strip() for key, (value, unit) in items.items()}


def _in_unit(
    record: Record, items: dict[str, tuple[str, str]], key: str, units: dict[str, float]
) -> float | None:
    """Take an item out and return it in our unit; of another unit it stays, with a note."""
    value, said = items.get(key, ("", ""))
    unit = said.lower()
    for one, other in _SPELLINGS:
        unit = unit.replace(one, other)
    if value and unit not in units:
        record.notes.append(f"{key} is in {said[:40]!r}, which is not understood")
        return None
    items.pop(key, None)
    return number(key, value, _ANY, units[unit]) if value else None


def _read_time(record: Record, items: dict[str, tuple[str, str]]) -> None:
    text = items.get("timestamp", ("", ""))[0]
    # Python 3.11 reads at most six decimals of a second.
    shortened = re.sub(r"(\.\d{6})\d+", r"\1", text)
    try:
        record.put("acquisition_time", shortened or None, "header")
    except Refused:
        record.notes.append(f"timestamp {text[:40]!r} is not a date")
        return
    items.pop("timestamp", None)


def _read_pixel(record: Record, items: dict[str, tuple[str, str]]) -> None:
    """The specimen's pixel, where the "sensor" pixel is too small to be the camera's."""
    sizes = [_in_unit(record, items, key, _METRES) for key in _PIXELS]
    known = [size for size in sizes if size is not None]
    if not known:
        return
    if max(known) > SENSOR_PIXEL_M:
        record.unknown |= {
            key: f"{size:g} m" for key, size in zip(_PIXELS, sizes, strict=True) if size is not None
        }
        return
    record.put("pixel_size_A", known[0] * 1e10, "header")
    if max(known) - min(known) > 1e-3 * max(known):
        record.flag("pixel_not_square", f"pixel is {known[0]:g} x {known[-1]:g} m")
