"""The camera's own `_Fractions.xml`: what was recorded, and whether every fraction is valid.

Source: acquisition.md section 2.6. Its pixel size is the sensor's, not the specimen's.
"""

from typing import Any

from mdcatch.parsers.epuxml import boolean, put_time
from mdcatch.parsers.limits import Bounds, integer, number
from mdcatch.parsers.place import put_place
from mdcatch.parsers.record import Record
from mdcatch.parsers.safexml import Element, Leaves, clean, local, read_tree
from services.kit.errors import Code, Refused

_TEXTS = {
    "file_version": "FileVersion",
    "detector_model": "Detector",
    "acquisition_id": "AcquisitionID",
    "pixel_format": "Format",
}
_COUNTS = {
    "n_frames_expected": "ExpectedNumberOfFractions",
    "n_frames": "RecordedNumberOfFractions",
}
_FLAGS = {"counting": "ElectronCounting", "gain_corrected": "GainCorrection"}
_TIME = "DateTimeWithTimeZone"
_SIZE = ("RegionOfInterest/Width", "RegionOfInterest/Height")
_FRAMES = Bounds(1, 10_000_000)
_SECONDS = Bounds(0.0, 1e5, "s")


def parse_fractions(content: bytes, name: str) -> Record:
    """Return the record of a fraction table.

    Parameters
    ----------
    content
        Whole file.
    name
        Path of the file.

    Raises
    ------
    Refused
        What `read_tree` raises; XML_BROKEN for another kind of document or a repeated value;
        OUT_OF_RANGE.
    """
    root = read_tree(content)
    if local(root.tag) != "Acquisition":
        raise Refused(Code.XML_BROKEN, f"root element is {local(root.tag)[:80]!r}, not Acquisition")
    parts = _once({local(child.tag): child for child in root}, root)
    record = Record(format="epu_fractions_xml", kind="fraction_table")
    if (info := parts.get("Info")) is not None:
        _info(record, Leaves(info))
    if (listed := parts.get("Fractions")) is not None:
        _fractions(record, [one for one in listed if local(one.tag) == "Fraction"])
    put_place(record, name)
    record.notes.append(
        "the camera's list of fractions, beside the movie: complete when n_frames is "
        "n_frames_expected and all checksums are valid; not an image's metadata"
    )
    return record


def _info(record: Record, info: Leaves) -> None:
    for key, path in _TEXTS.items():
        record.put(key, info.text(path), "xml")
    for key, path in _COUNTS.items():
        text = info.text(path)
        record.read(key, None if text == "0" else text, "xml")  # 0: nothing is recorded yet
    for key, path in _FLAGS.items():
        record.put(key, boolean(info.text(path)), "xml")
    put_time(record, "acquisition_time", info.text(_TIME))
    if (binning := info.text("Binning")) is not None:
        try:
            record.put("binning", integer("binning", binning, Bounds(1, 64)), "xml")
        except Refused as error:  # the table is there for its fractions
            record.notes.append(f"left out: {error.detail}")
    sides = [integer("movie_size_px", text, Bounds(1, 131_072)) for text in _texts(info, _SIZE)]
    record.put("movie_size_px", sides or None, "xml")
    used = {*_TEXTS.values(), *_COUNTS.values(), *_FLAGS.values(), *_SIZE, _TIME, "Binning"}
    record.unknown = {path: text for path, text in info.texts().items() if path not in used}


def _once(parts: dict[str, Any], element: Element) -> dict[str, Any]:
    """Return what stands in an element by name; the same name twice can mean two things."""
    if len(parts) < len(element):
        raise Refused(Code.XML_BROKEN, f"{local(element.tag)[:80]} says something twice")
    return parts


def _texts(info: Leaves, paths: tuple[str, ...]) -> list[str]:
    """Return the texts of all paths, or none when one is missing."""
    texts = [text for text in map(info.text, paths) if text is not None]
    return texts if len(texts) == len(paths) else []


def _fractions(record: Record, fractions: list[Element]) -> None:
    """Add what the fractions say one by one, where each of them says it."""
    listed = [_once({local(part.tag): clean(part) for part in one}, one) for one in fractions]
    indices = [one.get("Index", "") for one in listed]
    if all(text.isascii() and text.isdecimal() and len(text) < 9 for text in indices):
        listed.sort(key=lambda one: int(one["Index"]))
    recorded = record.get("n_frames")
    if recorded is not None and recorded != len(listed):
        record.flag(
            "frames_mismatch", f"n_frames is {recorded}, but {len(listed)} fractions are listed"
        )
    if not listed:
        return
    frames = [one["NumberOfFrames"] for one in listed if "NumberOfFrames" in one]
    if len(frames) == len(listed):
        counts = [integer("NumberOfFrames", text, _FRAMES) for text in frames]
        record.put("raw_frames_per_fraction", counts, "xml")
        record.put("raw_frames_total", sum(counts), "computed")
    times = [one["ExposureTime"] for one in listed if "ExposureTime" in one]
    if len(times) == len(listed):
        total = sum(number("ExposureTime", text, _SECONDS) for text in times)
        record.put("exposure_time_s", total, "computed")
    checksums = [one["Checksum"] for one in listed if "Checksum" in one]
    if checksums:
        valid = len(checksums) == len(listed) and set(checksums) == {"Valid"}
        record.put("all_checksums_valid", valid, "xml")
