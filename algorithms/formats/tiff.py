"""The directory chain of a TIFF movie, read by ourselves: a short chain must never pass as a movie.

Common readers stop at the first directory that lies beyond the end of a cut file and report the
frames so far. Here the chain has to end with 0 and every strip has to lie inside the file. The cost
is that of one access per directory: lists of strips are arrays, checked as a whole.

Source: acquisition.md section 6, preprocessing.md section 1.4, reliability.md section 2.11.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from algorithms.formats.errors import FormatCode, FormatError

MAX_DIRECTORIES = 4096
MAX_ENTRIES = 512
MAX_SIDE = 32_768
MAX_FRAME_BYTES = 2**30
MAX_DESCRIPTION_BYTES = 2**20
MAX_HEADER_BYTES = 256 * 2**20  # of all directories with their lists
EER_COMPRESSIONS = (65000, 65001, 65002)
COMPRESSIONS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate", 32773: "packbits"}
COMPRESSIONS |= {50000: "zstd"}
# Bytes that one compressed byte can stand for, rounded up: whoever claims more is lying.
_MOST = {"none": 1, "lzw": 4096, "deflate": 1100, "packbits": 128, "zstd": 1 << 20}
_AHEAD = 8192  # bytes read at once: directories stand together, or each with its lists
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _FILL, _DESCRIPTION = 256, 257, 258, 259, 266, 270
_OFFSETS, _SAMPLES, _ROWS, _COUNTS, _XRES, _UNIT = 273, 277, 278, 279, 282, 296
_PREDICTOR, _TILE, _FORMAT = 317, 322, 339


@dataclass(frozen=True, kw_only=True)
class Page:
    """One directory: a frame, and where its strips are.

    `dtype` is numpy's name with the file's byte order; `offsets` and `counts` of the strips are
    int64, in bytes.
    """

    nx: int
    ny: int
    dtype: str
    compression: int
    predictor: int
    rows_per_strip: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    pixel_size_A: float | None
    description: str

    @property
    def layout(self) -> tuple[int, int, str]:
        """What all frames of a movie share."""
        return self.nx, self.ny, self.dtype


@dataclass(slots=True)
class _Entry:
    kind: int
    count: int
    at: int  # of the values themselves


def is_tiff(start: bytes) -> bool:
    """Whether these first bytes are those of a classic or Big TIFF."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_pages(file: BinaryIO, path: str | os.PathLike[str]) -> tuple[tuple[Page, ...], int]:
    """Read the whole chain; returns the pages and the number of bytes a complete file has.

    Raises
    ------
    FormatError
        EMPTY_FILE, TRUNCATED (a directory, value or strip lies beyond the end), BAD_HEADER
        (loops, pages that differ), UNSUPPORTED or TOO_LARGE.
    """
    return _Walk(file, path).pages()


def first_text(file: BinaryIO, path: str | os.PathLike[str], tag: int) -> str:
    """Return a text of the first page, "" where it has none.

    Raises
    ------
    FormatError
        As `read_pages`.
    """
    walk = _Walk(file, path)
    return walk.text(next(walk.chain(1)), tag, (1, 2, 7))


class _Walk:
    """One pass along the chain of directories."""

    def __init__(self, file: BinaryIO, path: str | os.PathLike[str]):
        self.file, self.path = file, path
        self.size = os.fstat(file.fileno()).st_size
        self.end = 0
        self._asked = self._at = 0
        self._ahead = b""
        if self.size == 0:
            raise self.error("EMPTY_FILE", "0 bytes")
        start = self.read(0, 8, "the TIFF header")
        if not is_tiff(start):
            raise self.error("BAD_HEADER", f"no TIFF signature: the file starts with {start[:4]!r}")
        self.order = "<" if start[:2] == b"II" else ">"
        self.big = 43 in start[2:4]
        self.word = "Q" if self.big else "I"

    def error(self, code: FormatCode, detail: str) -> FormatError:
        return FormatError(self.path, code, detail)

    def read(self, offset: int, count: int, what: str) -> bytes:
        """Return a piece of the file."""
        self.reach(offset, count, what)
        start = offset - self._at
        if not 0 <= start <= len(self._ahead) - count:
            self._asked += count
            if self._asked > MAX_HEADER_BYTES:
                raise self.error("TOO_LARGE", f"directories of more than {MAX_HEADER_BYTES} bytes")
            self._ahead = os.pread(self.file.fileno(), max(count, _AHEAD), offset)
            self._at, start = offset, 0
            if len(self._ahead) < count:
                raise self.error("TRUNCATED", "the file became shorter while it was read")
        return self._ahead[start : start + count]

    def reach(self, offset: int, count: int, what: str) -> None:
        if offset + count > self.size:
            raise self.error(
                "TRUNCATED", f"{what} ends at byte {offset + count}, the file at byte {self.size}"
            )
        self.end = max(self.end, offset + count)

    def unpack(self, letters: str, raw: bytes) -> tuple[int, ...]:
        return struct.unpack(self.order + letters, raw)

    def chain(self, limit: int) -> Iterator[dict[int, _Entry]]:
        """Yield the entries of each directory up to the end of the chain, at most `limit`."""
        width = struct.calcsize("=" + self.word)
        at = 8 if self.big else 4
        (offset,) = self.unpack(self.word, self.read(at, width, "the TIFF header"))
        if offset == 0:
            raise self.error("TRUNCATED", "no directory yet: the writer has not finished")
        seen: set[int] = set()
        while offset:
            if offset in seen:
                raise self.error("BAD_HEADER", f"the directory chain loops at byte {offset}")
            if len(seen) == limit:
                raise self.error("TOO_LARGE", f"more than {limit} directories")
            seen.add(offset)
            entries, offset = self.directory(offset, f"directory {len(seen)}")
            yield entries

    def pages(self) -> tuple[tuple[Page, ...], int]:
        pages: list[Page] = []
        for entries in self.chain(MAX_DIRECTORIES):
            pages.append(self.page(entries, f"frame {len(pages) + 1}"))
            if pages[-1].layout != pages[0].layout:
                raise self.error(
                    "BAD_HEADER",
                    f"frame {len(pages)} is {pages[-1].layout}, frame 1 is {pages[0].layout}",
                )
        return tuple(pages), self.end

    def directory(self, offset: int, what: str) -> tuple[dict[int, _Entry], int]:
        """Read the entries by tag, and the offset of the next directory."""
        head = "Q" if self.big else "H"
        head_bytes, entry_bytes = (8, 20) if self.big else (2, 12)
        (count,) = self.unpack(head, self.read(offset, head_bytes, what))
        if not 0 < count <= MAX_ENTRIES:
            raise self.error("BAD_HEADER", f"{what} claims {count} entries")
        tail = struct.calcsize("=" + self.word)
        body = self.read(offset + head_bytes, count * entry_bytes + tail, what)
        entries: dict[int, _Entry] = {}
        inline = offset + head_bytes + entry_bytes - tail
        for entry in struct.iter_unpack(f"{self.order}HH{self.word}{self.word}", body[:-tail]):
            tag, kind, values, place = entry
            size = values * _SIZES.get(kind, 1)
            if size > tail:
                self.reach(place, size, f"{what}, tag {tag}")
            entries[tag] = _Entry(kind, values, inline if size <= tail else place)
            inline += entry_bytes
        (following,) = self.unpack(self.word, body[-tail:])
        return entries, following

    def integers(self, entries: dict[int, _Entry], tag: int, limit: int) -> tuple[int, ...]:
        letter, raw = self.values(entries, tag, limit)
        return self.unpack(letter * (len(raw) // struct.calcsize("=" + letter)), raw)

    def values(self, entries: dict[int, _Entry], tag: int, limit: int) -> tuple[str, bytes]:
        """Return letter and bytes of at most `limit` integers; none where there is no tag."""
        entry = entries.get(tag)
        if entry is None:
            return "B", b""
        if entry.kind not in _LETTERS or entry.count > limit:
            raise self.error("BAD_HEADER", f"tag {tag}: {entry.count} values of type {entry.kind}")
        raw = self.read(entry.at, entry.count * _SIZES[entry.kind], f"tag {tag}")
        return _LETTERS[entry.kind], raw

    def integer(self, entries: dict[int, _Entry], tag: int, default: int | None = None) -> int:
        values = self.integers(entries, tag, 1)
        if values:
            return values[0]
        if default is None:
            raise self.error("BAD_HEADER", f"tag {tag} is missing")
        return default

    def page(self, entries: dict[int, _Entry], what: str) -> Page:
        compression = self.integer(entries, _COMPRESSION, 1)
        if compression in EER_COMPRESSIONS:
            raise self.error("UNSUPPORTED", f"{what} is of an EER movie")
        nx, ny = self.integer(entries, _WIDTH), self.integer(entries, _LENGTH)
        dtype = self.dtype(entries, what)
        predictor = self.integer(entries, _PREDICTOR, 1)
        self.check(entries, what, compression, predictor, dtype)
        frame_bytes = nx * ny * int(dtype[2:])
        if nx < 1 or ny < 1:
            raise self.error("BAD_HEADER", f"{what} is {nx} x {ny} px")
        if max(nx, ny) > MAX_SIDE or frame_bytes > MAX_FRAME_BYTES:
            raise self.error("TOO_LARGE", f"{what} is {nx} x {ny} px, {frame_bytes} bytes")
        rows = min(self.integer(entries, _ROWS, ny), ny)
        if rows < 1:
            raise self.error("BAD_HEADER", f"{what}: {rows} rows per strip")
        offsets, counts = self.places(entries, what, -(-ny // rows))
        stored = int(counts.sum())
        if frame_bytes > stored * _MOST[COMPRESSIONS[compression]]:
            raise self.error(
                "BAD_HEADER",
                f"{what} claims {frame_bytes} bytes ({nx} x {ny} px) out of {stored}: more than "
                f"compression {compression} can hold",
            )
        return Page(
            nx=nx,
            ny=ny,
            dtype=dtype,
            compression=compression,
            predictor=predictor,
            rows_per_strip=rows,
            offsets=offsets,
            counts=counts,
            pixel_size_A=self.pixel_size(entries),
            description=self.text(entries, _DESCRIPTION),
        )

    def dtype(self, entries: dict[int, _Entry], what: str) -> str:
        bits = self.integer(entries, _BITS, 1)
        kind = {1: "u", 2: "i", 3: "f"}.get(self.integer(entries, _FORMAT, 1))
        if (kind, bits) not in {("u", 8), ("i", 8), ("u", 16), ("i", 16), ("f", 32)}:
            raise self.error(
                "UNSUPPORTED",
                f"{what} has {bits}-bit samples of kind {kind}; read are 8- and 16-bit integers "
                "and 32-bit floats",
            )
        return f"{self.order}{kind}{bits // 8}"

    def check(
        self, entries: dict[int, _Entry], what: str, compression: int, predictor: int, dtype: str
    ) -> None:
        allowed = predictor == 1 or (predictor == 2 and dtype[1] in "ui")
        for wrong, detail in (
            (compression not in COMPRESSIONS, f"compression {compression}"),
            (_TILE in entries, "tiles instead of strips"),
            (self.integer(entries, _SAMPLES, 1) != 1, "more than one sample per pixel"),
            (self.integer(entries, _FILL, 1) != 1, "reversed bit order"),
            (not allowed, f"predictor {predictor} with {dtype}"),
        ):
            if wrong:
                raise self.error("UNSUPPORTED", f"{what}: {detail} is not read")

    def places(
        self, entries: dict[int, _Entry], what: str, expected: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return offsets and sizes of the strips, all of them written and inside the file."""
        offsets, counts = (
            np.frombuffer(raw, self.order + letter).astype(np.uint64)
            for letter, raw in (self.values(entries, tag, expected) for tag in (_OFFSETS, _COUNTS))
        )
        if len(offsets) != expected or len(counts) != expected:
            raise self.error(
                "BAD_HEADER",
                f"{what}: {len(offsets)} offsets and {len(counts)} sizes for {expected} strips",
            )
        unwritten = np.flatnonzero((offsets == 0) | (counts == 0))
        if len(unwritten):
            raise self.error("TRUNCATED", f"{what}, strip {unwritten[0] + 1}: nothing written yet")
        size = np.uint64(self.size)
        beyond = np.flatnonzero((offsets > size) | (counts > size - np.minimum(offsets, size)))
        if len(beyond):
            number = int(beyond[0])
            end = int(offsets[number]) + int(counts[number])
            raise self.error(
                "TRUNCATED",
                f"{what}, strip {number + 1} ends at byte {end}, the file at byte {self.size}",
            )
        self.end = max(self.end, int((offsets + counts).max()))
        return offsets.astype(np.int64), counts.astype(np.int64)

    def pixel_size(self, entries: dict[int, _Entry]) -> float | None:
        """Pixel in A of the resolution tags, where it is plausible: often they say 72 dpi."""
        entry = entries.get(_XRES)
        per_unit = {2: 2.54e8, 3: 1e8}.get(self.integer(entries, _UNIT, 2))
        if entry is None or entry.kind != 5 or entry.count != 1 or per_unit is None:
            return None
        numerator, denominator = self.unpack("II", self.read(entry.at, 8, "the resolution"))
        size = per_unit * denominator / numerator if numerator else 0.0
        return size if 0.1 <= size <= 20 else None

    def text(self, entries: dict[int, _Entry], tag: int, kinds: tuple[int, ...] = (2,)) -> str:
        entry = entries.get(tag)
        if entry is None or entry.kind not in kinds or entry.count > MAX_DESCRIPTION_BYTES:
            return ""
        raw = self.read(entry.at, entry.count, f"tag {tag}")
        return raw.split(b"\0")[0].decode("utf-8", "replace")
