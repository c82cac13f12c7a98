"""TIFF movies from their directories alone: what can be trusted, and whether the file is whole.

Source: acquisition.md sections 1.8 and 6; reliability.md section 2.11.
"""

import re
from typing import Any

from algorithms.formats import tiff
from algorithms.formats.errors import FormatError
from algorithms.formats.movie import PACKED_SIZES
from mdcatch.parsers.directories import (
    DEFECTS_TAG,
    Directories,
    Frame,
    incomplete,
)
from mdcatch.parsers.eerheader import parse_eer
from mdcatch.parsers.mdocshot import base_name
from mdcatch.parsers.record import Record
from mdcatch.parsers.window import Window
from services.kit.errors import Refused

LOW_TRUST = "resolution tags (low trust)"

_SHOWN = 4096  # characters of a description of another program that are kept
_DATE_TIME = 306
_DATE = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)", re.ASCII)
_ROTATION = re.compile(r"\br/f +(\d)(?!\d)", re.ASCII)


def parse_tiff(window: Window, name: str) -> Record:
    """Return the record of a TIFF or BigTIFF file, from its directories alone.

    Parameters
    ----------
    window
        Onto the file. A file that is cut gives `complete` = False and nothing else: how many frames
        it will have cannot be told.
    name
        Of the file: `.gain` files are gain references.

    Raises
    ------
    Refused
        EMPTY_FILE, BAD_HEADER (loops, frames that differ), UNSUPPORTED or TOO_LARGE.
    """
    kind = "gain_reference" if name.lower().endswith(".gain") else "movie"
    try:
        walk = Directories(window, name)
        if _starts_as_eer(walk):
            return parse_eer(window, name)
        return _read(walk, kind)
    except (FormatError, Refused) as error:
        return incomplete(error, "tiff", kind)


def _starts_as_eer(walk: Directories) -> bool:
    """A program that renames EER files to .tif does not change what they are."""
    first = next(walk.chain(1))
    return walk.integer(first, tiff._COMPRESSION, 1) in tiff.EER_COMPRESSIONS


def _read(walk: Directories, kind: str) -> Record:
    record = Record(format="tiff", kind=kind)
    first: Frame | None = None
    frames = 0
    for entries in walk.chain(tiff.MAX_DIRECTORIES):
        frames += 1
        frame = walk.frame(entries, f"frame {frames}")
        if first is None:
            first = frame
            _read_first(record, walk, entries)
        elif frame[:3] != first[:3]:
            raise walk.error("BAD_HEADER", f"frame {frames} is {frame[:3]}, frame 1 {first[:3]}")
    if first is None or first.compression not in tiff.COMPRESSIONS:
        shown = first and first.compression
        raise walk.error("UNSUPPORTED", f"compression {shown} of a TIFF is not read")
    packed = first.pixel_format == "uint8" and first[:2] in PACKED_SIZES
    size = (first.nx * (2 if packed else 1), first.ny)
    if frames == 1 and kind == "movie":
        record.kind = "image"
    record.put("n_frames", frames if record.kind == "movie" else None, "header")
    record.put("movie_size_px" if record.kind == "movie" else "image_size_px", size, "header")
    record.put("pixel_format", "uint4" if packed else first.pixel_format, "header")
    record.put("compression", tiff.COMPRESSIONS[first.compression], "header")
    record.put("size_bytes", walk.size, "header")
    record.put("complete", True, "header")
    return record


def _read_first(record: Record, walk: Directories, entries: dict[int, tiff._Entry]) -> None:
    """What only the first directory tells: description, resolution, date, defects."""
    if (pixel := walk.pixel_size(entries)) is not None:
        record.put("pixel_size_A", pixel, "header")
        record.put("pixel_size_source", LOW_TRUST, "header")
    _read_description(record, _line(walk.tag(entries, tiff._DESCRIPTION)))
    if found := _DATE.fullmatch(_line(walk.tag(entries, _DATE_TIME))):
        try:
            record.put("acquisition_time", "{}-{}-{}T{}".format(*found.groups()), "header")
        except Refused as error:
            record.notes.append(f"left out: {error.detail}")
    if DEFECTS_TAG in entries:
        record.notes.append(f"carries a map of defects: tag {DEFECTS_TAG}")


def _read_description(record: Record, text: str) -> None:
    """SerialEM's three lines: text ending in `r/f <n>`, gain file, defects file."""
    lines = [line.strip() for line in text.splitlines()]
    if not lines:
        return
    rotation = _ROTATION.search(lines[0])
    if rotation is None:
        record.unknown["ImageDescription"] = text[:_SHOWN]
        return
    fields: dict[str, Any] = {"rotation_flip": int(rotation[1])}
    for line in lines[1:3]:
        key = "defects_file" if line.lower().startswith("defects") else "gain_reference"
        fields.setdefault(key, base_name(line))
    for key, value in fields.items():
        try:
            record.put(key, value, "header")
        except Refused as error:
            record.notes.append(f"left out: {error.detail}")


def _line(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace").strip()
