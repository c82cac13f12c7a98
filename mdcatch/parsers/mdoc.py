"""SerialEM's mdoc and idoc files, and those of programs that write alike: one record per file.

Source: acquisition.md sections 3 and 4.
"""

import re
from typing import Any

from mdcatch.parsers import mdocshot
from mdcatch.parsers.limits import Bounds, integer
from mdcatch.parsers.mdocgrammar import Document, Section, read_document
from mdcatch.parsers.mdoctime import acquisition_order
from mdcatch.parsers.record import Record, parsed
from services.kit.errors import Code, Refused

# Kinds, of which only the first three can lead to movies.
FRAME_SET = "frame_set"  # one movie, or one section for each of several
FRAME_SET_WITH_TILTS = "frame_set_with_tilts"  # one movie that holds a whole tilt series
TILT_SERIES = "tilt_series"
MONTAGE = "montage"
IMAGES = "images"  # idoc: single-image files
IMAGE = "image"

_GLOBALS = frozenset({"Version", "ImageFile", "ImageSize", "Voltage", "PixelSpacing", "Montage"})
_PIECE = Bounds(-10_000_000, 10_000_000, "px")
_FRAME = Bounds(0, 10_000_000)
_AXIS = re.compile(r"Tilt ?axis ?angle\s*=\s*(\S+?),?(?:\s|$)", re.ASCII | re.IGNORECASE)
_SCHEME = re.compile(r"\b(dosym|bidir)\s*=", re.ASCII)
_D_NUMBER = re.compile(r"\bD(\d{3,10})\b", re.ASCII)
_VERSION = re.compile(r"SerialEM Version (\S{1,40})", re.ASCII)


def parse_mdoc(content: bytes, name: str = "") -> Record:
    """Return the record of an mdoc or idoc.

    Parameters
    ----------
    content
        Whole file.
    name
        Of the file, for messages.

    Raises
    ------
    Refused
        EMPTY_FILE, TOO_LARGE, TRUNCATED (the last section is not complete yet), BAD_HEADER (no
        mdoc), or OUT_OF_RANGE when the only section, or every section, has such a value.
    """
    try:
        document = read_document(content)
        record = Record(format="mdoc", kind=_kind(document))
        _read_head(record, document)
        _FILLERS[record.kind](record, document)
    except Refused as error:
        raise Refused(error.code, f"{name}: {error.detail}" if name else error.detail) from None
    return record


def _kind(document: Document) -> str:
    kinds = {section.kind for section in document.sections}
    images = document.of_kind("ZValue")
    scheme = any(_SCHEME.search(title) for title in document.titles)
    pieces = any("PieceCoordinates" in image.values for image in images)
    is_map = document.values.get("Montage") == "1" or pieces or "MontSection" in kinds
    # A map has no movies; a series of montages has, though `Montage = 1` stands above it.
    if is_map and not (scheme and any("SubFramePath" in image.values for image in images)):
        return MONTAGE
    if "FrameSet" in kinds:
        return FRAME_SET_WITH_TILTS if images else FRAME_SET
    if images:
        return TILT_SERIES if scheme or len(images) > 1 else IMAGE
    if "Image" in kinds:
        return IMAGES
    raise Refused(Code.UNSUPPORTED, f"sections of unknown kinds, such as {min(kinds)[:80]!r}")


def _read_head(record: Record, document: Document) -> None:
    """Global values and titles."""
    values, titles = document.values, document.titles
    version = _VERSION.search(values.get("Version", ""))
    if version or any(title.startswith("SerialEM") for title in titles):
        record.put("software", "SerialEM", "mdoc")
        instrument = next(filter(None, map(_D_NUMBER.search, titles)), None)
        record.put("microscope_id", instrument and instrument[1], "mdoc")
    elif _is_tomography(document):
        record.put("software", "Tomography", "mdoc")
    record.put("software_version", version and version[1], "mdoc")
    record.read("voltage_kV", values.get("Voltage") or None, "mdoc")
    record.read("pixel_size_A", values.get("PixelSpacing") or None, "mdoc")
    offer, image = mdocshot.offer, values.get("ImageFile")
    offer(record, "ImageFile", image, lambda text: {"image_file": mdocshot.base_name(text)})
    offer(record, "ImageSize", values.get("ImageSize"), _size)
    axis = next(filter(None, map(_AXIS.search, titles)), None)
    offer(record, "Tilt axis angle", axis and axis[1], _axis)
    record.put("n_sections", len(_main(document)), "mdoc")
    record.unknown |= {key: value for key, value in values.items() if key not in _GLOBALS}
    if _is_tomography(document):
        record.notes.append("written by TFS Tomography: dates are yy-Mon-dd")
        if axis:
            record.flag(
                "tilt_axis_doubtful", "TiltAxisAngle of TFS Tomography is known to be wrong"
            )


def _size(text: str) -> dict[str, Any]:
    return {"image_size_px": [integer("ImageSize", n, _PIECE) for n in text.split()]}


def _axis(text: str) -> dict[str, Any]:
    return {"tilt_axis_angle_deg": parsed("tilt_axis_angle_deg", text)}


def _is_tomography(document: Document) -> bool:
    return any(title.startswith("Tomography") for title in document.titles)


def _main(document: Document) -> list[Section]:
    """The sections that stand for images, else for movies."""
    return document.of_kind("ZValue") or document.of_kind("Image") or document.of_kind("FrameSet")


# ---- one filler per kind


def _fill_frame_set(record: Record, document: Document) -> None:
    shots = document.of_kind("FrameSet")
    if len(shots) > 1:
        _fill_sections(record, document, shots)
        return
    _read(record, document, shots[0])
    _close(record, record.get("voltage_kV"))


def _fill_one_movie(record: Record, document: Document) -> None:
    """The frame set speaks for the movie, each ZValue for the frames of one tilt."""
    movies = document.of_kind("FrameSet")
    if len(movies) != 1:
        raise Refused(Code.UNSUPPORTED, f"{len(movies)} frame sets with sections of tilts")
    _read(record, document, movies[0], one_movie=True)
    _fill_sections(record, document, document.of_kind("ZValue"))


def _fill_tilts(record: Record, document: Document) -> None:
    tilts = document.of_kind("ZValue")
    _fill_sections(record, document, tilts)
    _estimate_prior_doses(record.sections, tilts)
    if record.get("software") == "Tomography" and _all(record.sections, "n_frames", 1):
        record.notes.append("NumSubFrames is 1 for EER movies too: the movie knows its frames")


def _fill_montage(record: Record, document: Document) -> None:
    pieces = document.of_kind("ZValue")
    record.notes.append("a map: it has no movies")
    record.put("n_montage_sections", len(document.of_kind("MontSection")), "mdoc")
    if not pieces:
        return
    places = [piece.values.get("PieceCoordinates", "").split() for piece in pieces]
    if any(places):
        record.put(
            "pieces", [[integer("piece", n, _PIECE) for n in place] for place in places], "mdoc"
        )
    first = _section(document, pieces[0])
    record.put("first_section", first, "mdoc")
    for key in ("pixel_size_A", "magnification", "exposure_time_s"):
        record.put(key, first.get(key), "mdoc")


def _fill_images(record: Record, document: Document) -> None:
    _fill_sections(record, document, _main(document))


_FILLERS = {
    FRAME_SET: _fill_frame_set,
    FRAME_SET_WITH_TILTS: _fill_one_movie,
    TILT_SERIES: _fill_tilts,
    MONTAGE: _fill_montage,
    IMAGES: _fill_images,
    IMAGE: _fill_images,
}


# ---- sections


def _read(record: Record, document: Document, section: Section, *, one_movie: bool = False) -> None:
    if section.fault:
        raise Refused(Code.BAD_HEADER, section.fault)
    mdocshot.read_shot(
        record, section.values, day_last=_is_tomography(document), one_movie=one_movie
    )


def _section(document: Document, section: Section) -> dict[str, Any]:
    """What a section says; one that is refused says so and keeps the name of its movie."""
    shot = Record(format="mdoc", kind="section")
    answer: dict[str, Any] = {"section": str(section)}
    try:
        _read(shot, document, section)
        texts = section.values.get("FrameTSStartEndFrames", "").split()
        frames = [integer("FrameTSStartEndFrames", text, _FRAME) for text in texts]
    except Refused as error:
        movie = mdocshot.base_name(section.values.get("SubFramePath", "")) or ""
        movie = movie if movie.isprintable() else ""
        refused = {"code": str(error.code), "detail": f"[{section}]: {error.detail}"}
        return {**answer, "movie_file": movie or None, "refused": refused}
    for key in mdocshot.KEYS:
        answer[key] = shot.get(key)
    if frames:
        answer["frame_range"] = frames
    answer |= {key: shot.get(key) for key in ("voltage_kV", "cs_mm") if shot.get(key) is not None}
    answer |= {"notes": shot.notes, "flags": shot.flags, "unknown": shot.unknown}
    return answer


def _fill_sections(record: Record, document: Document, sections: list[Section]) -> None:
    """One table per section; the first section's error is the file's when all have one."""
    record.sections = [_section(document, section) for section in sections]
    refused = [table["refused"] for table in record.sections if "refused" in table]
    if len(refused) == len(sections):
        raise Refused(Code(refused[0]["code"]), refused[0]["detail"])
    if refused:
        record.flag("sections_refused", f"{len(refused)} of {len(sections)} sections are refused")
    if any("dose_conflict" in table.get("flags", ()) for table in record.sections):
        record.flag(
            "dose_conflict", "ExposureDose and FrameDosesAndNumber disagree in some sections"
        )
    volts = {table.get("voltage_kV") for table in record.sections} - {None}
    _close(record, record.get("voltage_kV") or (volts.pop() if len(volts) == 1 else None))


def _close(record: Record, voltage_kV: float | None) -> None:
    record.put("voltage_kV", voltage_kV, "mdoc")
    if voltage_kV is None:
        record.notes.append("voltage is not in the file")


def _all(tables: list[dict[str, Any]], key: str, value: object) -> bool:
    return all(table.get(key) == value for table in tables if "refused" not in table)


# ---- dose before each tilt, where the program did not keep count


def _estimate_prior_doses(tables: list[dict[str, Any]], sections: list[Section]) -> None:
    """Add up doses in the order of acquisition; an estimate, for tilts can have been deleted."""
    if any(table.get("total_dose_e_per_A2") is None for table in tables):
        return
    if not _all(tables, "prior_dose_e_per_A2", None):
        return
    before = 0.0
    for number in acquisition_order(
        [table["acquisition_time"] for table in tables],
        [section.values.get("TimeStamp") for section in sections],
        [table["movie_file"] for table in tables],
    ):
        tables[number]["prior_dose_estimate_e_per_A2"] = before
        before += tables[number]["total_dose_e_per_A2"]
