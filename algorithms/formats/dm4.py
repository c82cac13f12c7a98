"""Gatan's DM4 and DM3 files: a tree of tags, in it the image. Read for SerialEM's gain references.

The tree is walked without its arrays; an image is read only when it is asked for.

Source: acquisition.md sections 3.1 and 3.3; reliability.md section 2.11. The layout is not
published by Gatan; it is known from descriptions of others (C. Boothroyd, G. Jefferis).
"""

import math
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithms.formats.errors import FormatCode, FormatError

# A DM4 of GMS 3 has some 1,000 tags, 8 levels deep.
MAX_TAGS = 100_000
MAX_DEPTH = 32
MAX_SIDE = 32_768
MAX_INFO = 4096
MAX_NAME = 256
MAX_UNIT = 64  # bytes of the name of a unit
MAX_IMAGES = 100

Read = Callable[[int, int], bytes]
"""Called with (offset, length); returns the bytes there."""

_GROUP, _DATA, _END = 20, 21, 0
_STRUCT, _STRING, _ARRAY = 15, 18, 20
# Type of a value -> letter of struct.
_LETTERS = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "?", 9: "b", 10: "B", 11: "q"}
_LETTERS[12] = "Q"
# DM's number of an image's type -> numpy's name.
DTYPES = {1: "int16", 2: "float32", 6: "uint8", 7: "int32", 9: "int8", 10: "uint16", 11: "uint32"}
DTYPES |= {12: "float64", 39: "int64", 40: "uint64"}

Value = float | int | str | tuple[int, int]
"""A tag: a number, a text, or (offset, bytes) of an array."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """The largest image of the file.

    `dtype` is numpy's name with the byte order; `data` is (offset, bytes). `pixel_size_A` is None
    where the scale is not a length.
    """

    version: int
    nx: int
    ny: int
    nz: int
    dtype: str
    data: tuple[int, int]
    pixel_size_A: float | None


def read_header(read: Read, size: int, path: str | os.PathLike[str]) -> Header:
    """Walk the tags and find the image.

    Parameters
    ----------
    read, size
        The file.
    path
        For messages.

    Raises
    ------
    FormatError
        EMPTY_FILE, TRUNCATED (a tag ends beyond the file), BAD_HEADER, UNSUPPORTED (no image of
        real numbers) or TOO_LARGE.
    """
    walk = _Walk(read, size, path)
    tags = walk.tags()
    images = [image for n in range(MAX_IMAGES) if (image := walk.image(tags, n)) is not None]
    if not images:
        raise walk.error("UNSUPPORTED", "no image of real numbers in the file")
    return max(images, key=lambda image: image.nx * image.ny * image.nz)


def read_image(read: Read, size: int, path: str | os.PathLike[str]) -> np.ndarray:
    """Return the largest image, `[ny, nx]` float32, in MRC orientation.

    DM's first row is the top one, so rows are turned upside down, as for TIFF and as IMOD's
    dm2mrc does.

    Raises
    ------
    FormatError
        As `read_header`; UNSUPPORTED for a stack.
    """
    header = read_header(read, size, path)
    if header.nz != 1:
        raise FormatError(path, "UNSUPPORTED", f"a stack of {header.nz} images, not one")
    raw = read(*header.data)
    if len(raw) != header.data[1]:
        raise FormatError(path, "TRUNCATED", "the file became shorter while it was read")
    image = np.frombuffer(raw, header.dtype).reshape(header.ny, header.nx)
    return np.ascontiguousarray(image[::-1], dtype=np.float32)


def load(path: str | os.PathLike[str]) -> np.ndarray:
    """Do as `read_image` for a file on disk."""
    with open(Path(path), "rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return read_image(read, os.fstat(file.fileno()).st_size, path)


class _Walk:
    """One pass over the tags. Numbers of the tree are big-endian, values in the file's order."""

    def __init__(self, read: Read, size: int, path: str | os.PathLike[str]):
        self.read_at, self.size, self.path = read, size, path
        self.count = 0
        if size == 0:
            raise self.error("EMPTY_FILE", "0 bytes")
        self.at = 0
        (self.version,) = struct.unpack(">i", self.take(4, "the version"))
        if self.version not in (3, 4):
            raise self.error("BAD_HEADER", f"version {self.version}: this is no DM3 or DM4 file")
        self.word = "q" if self.version == 4 else "i"
        self.integer("the length of the tags")
        (order,) = struct.unpack(">i", self.take(4, "the byte order"))
        if order not in (0, 1):
            raise self.error("BAD_HEADER", f"byte order {order}; it must be 0 or 1")
        self.order = "<" if order else ">"

    def error(self, code: FormatCode, detail: str) -> FormatError:
        return FormatError(self.path, code, detail)

    def take(self, count: int, what: str) -> bytes:
        raw = self.read_at(self.at, count) if self.at + count <= self.size else b""
        if len(raw) != count:
            raise self.error(
                "TRUNCATED",
                f"{what} ends at byte {self.at + count}, the file at byte {self.size}",
            )
        self.at += count
        return raw

    def integer(self, what: str) -> int:
        """A number of the tree, never negative."""
        raw = self.take(struct.calcsize(f"={self.word}"), what)
        (value,) = struct.unpack(f">{self.word}", raw)
        if value < 0:
            raise self.error("BAD_HEADER", f"{what} is {value}")
        return value

    def tags(self) -> dict[str, Value]:
        """Values of the images by path; what has no name gets its number."""
        found: dict[str, Value] = {}
        self.group("", 0, found)
        return found

    def group(self, path: str, depth: int, found: dict[str, Value]) -> None:
        if depth > MAX_DEPTH:
            raise self.error("TOO_LARGE", f"tags nested more than {MAX_DEPTH} levels deep")
        self.take(2, f"group {path}")
        for number in range(self.integer(f"number of tags in {path or 'the file'}")):
            self.count += 1
            if self.count > MAX_TAGS:
                raise self.error("TOO_LARGE", f"more than {MAX_TAGS} tags")
            kind, length = struct.unpack(">BH", self.take(3, "a tag"))
            if kind == _END:
                return
            if length > MAX_NAME:
                raise self.error("BAD_HEADER", f"a tag's name has {length} characters")
            name = self.take(length, "the name of a tag").decode("latin-1") or str(number)
            # No longer path is needed, and long ones would add up.
            here = (f"{path}/{name}" if path else name)[:MAX_NAME]
            if self.version == 4:
                self.integer(f"the size of tag {here}")
            if kind == _GROUP:
                self.group(here, depth + 1, found)
            elif kind == _DATA:
                value = self.value(here)
                if value is not None and here.startswith("ImageList/"):
                    found.setdefault(here, value)
            else:
                raise self.error("BAD_HEADER", f"tag {here[:80]!r} is of kind {kind}")

    def value(self, path: str) -> Value | None:
        """Read a number or a text; step over anything longer."""
        if self.take(4, f"tag {path}") != b"%%%%":
            raise self.error("BAD_HEADER", f"tag {path[:80]!r} has no data mark")
        count = self.integer(f"tag {path}")
        if not 0 < count <= MAX_INFO:
            raise self.error("BAD_HEADER", f"tag {path[:80]!r} is described by {count} numbers")
        width = struct.calcsize(f"={self.word}")
        info = struct.unpack(f">{count}{self.word}", self.take(count * width, f"tag {path}"))
        if info[0] in _LETTERS and count == 1:
            letter = _LETTERS[info[0]]
            raw = self.take(struct.calcsize(f"={letter}"), f"tag {path}")
            return struct.unpack(self.order + letter, raw)[0]
        length = self.length(info, path)
        if length < 0:
            raise self.error("BAD_HEADER", f"tag {path[:80]!r} has {length} bytes")
        offset = self.at
        if path.endswith("/Units") and info[:2] == (_ARRAY, 4) and length <= MAX_UNIT:
            encoding = "utf-16-le" if self.order == "<" else "utf-16-be"
            return self.take(length, f"tag {path}").decode(encoding, "replace")
        if offset + length > self.size:
            raise self.error(
                "TRUNCATED",
                f"tag {path} ends at byte {offset + length}, the file at byte {self.size}",
            )
        self.at = offset + length
        return (offset, length) if info[0] == _ARRAY else None

    def length(self, info: tuple[int, ...], path: str) -> int:
        """Bytes of a structure, a text, or an array of numbers or structures."""
        if info[0] == _STRING and len(info) == 2:
            return info[1]
        if info[0] == _STRUCT:
            return self.fields(info[1:], path)
        if info[0] == _ARRAY and len(info) == 3 and info[1] in _LETTERS:
            return struct.calcsize(f"={_LETTERS[info[1]]}") * info[2]
        if info[0] == _ARRAY and len(info) > 3 and info[1] == _STRUCT:
            return self.fields(info[2:-1], path) * info[-1]
        raise self.error("BAD_HEADER", f"tag {path[:80]!r} is of unknown type {info[:4]}")

    def fields(self, info: tuple[int, ...], path: str) -> int:
        """Bytes of a structure: (length of its name, fields, then name length and type of each)."""
        if len(info) < 2 or len(info) != 2 + 2 * info[1]:
            raise self.error("BAD_HEADER", f"tag {path[:80]!r} is a broken structure")
        kinds = info[3::2]
        if any(kind not in _LETTERS for kind in kinds):
            raise self.error("BAD_HEADER", f"tag {path[:80]!r} has fields of unknown type")
        return sum(struct.calcsize(f"={_LETTERS[kind]}") for kind in kinds)

    def image(self, tags: dict[str, Value], number: int) -> Header | None:
        """The image of a number; None where it is none of real numbers, as a thumbnail."""
        base = f"ImageList/{number}/ImageData"
        dtype = DTYPES.get(_whole(tags.get(f"{base}/DataType")))
        data = tags.get(f"{base}/Data")
        if dtype is None or not isinstance(data, tuple):
            return None
        sides = [_whole(tags.get(f"{base}/Dimensions/{axis}", 1)) for axis in range(3)]
        if min(sides) < 1 or max(sides[:2]) > MAX_SIDE:
            raise self.error("BAD_HEADER", f"image {number} is {sides[0]} x {sides[1]} px")
        expected = math.prod(sides) * np.dtype(dtype).itemsize
        if data[1] != expected:
            raise self.error(
                "BAD_HEADER", f"image {number} has {data[1]} bytes, its header says {expected}"
            )
        nx, ny, nz = sides
        return Header(
            version=self.version,
            nx=nx,
            ny=ny,
            nz=nz,
            dtype=np.dtype(dtype).newbyteorder("<" if self.order == "<" else ">").str,
            data=data,
            pixel_size_A=_pixel(tags, f"{base}/Calibrations/Dimension/0"),
        )


def _whole(value: Value | None) -> int:
    return value if isinstance(value, int) else -1


def _pixel(tags: dict[str, Value], base: str) -> float | None:
    """Scale of the first axis, where its unit is a length."""
    scale, unit = tags.get(f"{base}/Scale"), tags.get(f"{base}/Units")
    factor = {"nm": 10.0, "A": 1.0, "Å": 1.0, "µm": 1e4, "um": 1e4}.get(str(unit).strip("\0 "))
    if factor is None or not isinstance(scale, float) or not math.isfinite(scale) or scale <= 0:
        return None
    return scale * factor
