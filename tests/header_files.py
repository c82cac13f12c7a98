"""Small MRC, TIFF, EER and DM4 files for tests, built from bytes so that each can be made wrong."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from mdcatch.parsers import fei

EER_ITEMS: dict[str, tuple[str, str]] = {
    "acquisitionID": ("acq_1", ""),
    "cameraName": ("EF-Falcon", ""),
    "commercialName": ("Falcon 4i", ""),
    "exposureTime": ("0.5", "s"),
    "meanDoseRate": ("8.0", "e/pixel/s"),
    "numberOfFrames": ("3", ""),
    "sensorPixelSize.height": ("1.4e-05", "m"),
    "sensorPixelSize.width": ("1.4e-05", "m"),
    "timestamp": ("2024-09-01T06:01:10.1234567+02:00", ""),
    "totalDose": ("4.0", "e/pixel"),
}


def mrc_file(
    *,
    nx: int = 8,
    ny: int = 6,
    nz: int = 1,
    mode: int = 2,
    order: str = "<",
    extended: bytes = b"",
    kind: bytes = b"",
    cell: tuple[float, float] | None = None,
    missing: int = 0,
    claimed: int | None = None,
) -> bytes:
    """An MRC file of zeros; `missing` bytes are cut off, `claimed` is nsymbt where it lies."""
    header = bytearray(1024)
    cell = (nx * 1.5, ny * 1.5) if cell is None else cell
    struct.pack_into(f"{order}4i", header, 0, nx, ny, nz, mode)
    struct.pack_into(f"{order}3i3f", header, 28, nx, ny, 1, *cell, 1.0)
    struct.pack_into(f"{order}i", header, 92, len(extended) if claimed is None else claimed)
    header[104:108] = kind.ljust(4, b"\0")
    header[208:212] = b"MAP "
    itemsize = {0: 1, 1: 2, 2: 4, 6: 2, 12: 2}.get(mode, 4)
    row = (nx + 1) // 2 if mode == 101 else nx * itemsize
    content = bytes(header) + extended + bytes(max(0, row * ny * nz))
    return content[: len(content) - missing]


def fei_record(
    kind: str, values: dict[str, Any], *, order: str = "<", unset: Sequence[str] = ()
) -> bytes:
    """One record of an extended header: all bits of the given fields are set but those `unset`."""
    raw = bytearray(fei.TYPES[kind])
    sizes = {"Metadata size": len(raw), "Metadata version": 2 if kind == "FEI2" else 0}
    for place in fei.PLACES[kind]:
        value = {**sizes, **values}.get(place.name)
        if value is None or place.name.startswith("Bitmask"):
            continue
        value = value.encode() if isinstance(value, str) else value
        struct.pack_into(order + place.letters, raw, place.offset, value)
        if place.mask >= 0 and place.name not in unset:
            (mask,) = struct.unpack_from("<I", raw, place.mask)
            struct.pack_into("<I", raw, place.mask, mask | 1 << place.bit)
    return bytes(raw)


def tiff_file(
    pages: Sequence[dict[int, tuple[int, Any]]],
    *,
    big: bool = False,
    order: str = "<",
    nx: int = 4,
    ny: int = 3,
    compression: int = 1,
    last: int = 0,
) -> bytes:
    """A TIFF with one strip per page.

    Parameters
    ----------
    pages
        Tags to add or replace per page: tag -> (type, values). A value of None takes a tag away.
    last
        What the last directory gives as the offset of the next; 0 ends the chain.
    """
    word, width = ("Q", 8) if big else ("I", 4)
    signature = b"II" if order == "<" else b"MM"
    out = bytearray(signature + struct.pack(f"{order}H", 43 if big else 42))
    out += struct.pack(f"{order}HH", 8, 0) if big else b""
    link = len(out)
    out += bytes(width)
    for tags in pages:
        strip = len(out)
        out += bytes(nx * ny)
        entries: dict[int, tuple[int, Any]] = {
            256: (4, nx),
            257: (4, ny),
            258: (3, 8),
            259: (3, compression),
            273: (16 if big else 4, strip),
            277: (3, 1),
            278: (4, ny),
            279: (16 if big else 4, nx * ny),
        }
        entries |= tags
        blobs: list[tuple[int, int, int, bytes]] = []
        for tag, (kind, value) in sorted(entries.items()):
            if value is not None:
                raw, count = _values(order, kind, value)
                blobs.append((tag, kind, count, raw))
        places = []
        for _, _, _, raw in blobs:
            places.append(len(out))
            out += raw if len(raw) > width else b""
        out += bytes(-len(out) % 8)
        struct.pack_into(order + word, out, link, len(out))
        out += struct.pack(f"{order}{'Q' if big else 'H'}", len(blobs))
        for (tag, kind, count, raw), place in zip(blobs, places, strict=True):
            out += struct.pack(f"{order}HH{word}", tag, kind, count)
            out += (
                raw.ljust(width, b"\0") if len(raw) <= width else struct.pack(order + word, place)
            )
        link = len(out)
        out += bytes(width)
    struct.pack_into(order + word, out, link, last)
    return bytes(out)


def _values(order: str, kind: int, value: Any) -> tuple[bytes, int]:
    if kind in (1, 2, 7):
        raw = value if isinstance(value, bytes) else value.encode() + b"\0"
        return raw, len(raw)
    values = value if isinstance(value, tuple) else (value,)
    letter = {3: "H", 4: "I", 5: "I", 13: "I", 16: "Q"}[kind]
    count = len(values) // 2 if kind == 5 else len(values)
    return struct.pack(f"{order}{len(values)}{letter}", *values), count


def eer_file(
    frames: int = 3,
    items: dict[str, tuple[str, str]] | None = None,
    *,
    sums: int = 0,
    document: bytes | None = None,
    compression: int = 65001,
) -> bytes:
    """An EER movie; `sums` uncompressed directories follow the frames."""
    items = EER_ITEMS if items is None else items
    text = "".join(
        f'<item name="{name}" unit="{unit}">{value}</item>' for name, (value, unit) in items.items()
    )
    document = f"<metadata>{text}</metadata>".encode() if document is None else document
    pages: list[dict[int, tuple[int, Any]]] = [{258: (3, 1)} for _ in range(frames)]
    pages += [{258: (3, 16), 259: (3, 1)} for _ in range(sums)]
    if document:
        pages[0] = {**pages[0], 65001: (7, document)}
    return tiff_file(pages, big=True, compression=compression)


_DM_TYPES = {"int16": 1, "float32": 2, "uint8": 6, "int32": 7, "uint16": 10, "float64": 12}
_DM_ELEMENTS = {"int16": 2, "float32": 6, "uint8": 10, "int32": 3, "uint16": 4, "float64": 7}


def dm_file(
    image: np.ndarray,
    *,
    version: int = 4,
    order: str = "<",
    unit: str = "nm",
    scale: float = 0.05,
    dimensions: Sequence[int] | None = None,
) -> bytes:
    """A DM4 or DM3 file with an RGB thumbnail and an image, as Gatan's program writes it."""
    word = "q" if version == 4 else "i"

    def group(*tags: bytes) -> bytes:
        return b"\x01\x00" + struct.pack(f">{word}", len(tags)) + b"".join(tags)

    def tag(kind: int, name: str, body: bytes) -> bytes:
        size = struct.pack(">q", len(body)) if version == 4 else b""
        return struct.pack(">BH", kind, len(name)) + name.encode() + size + body

    def folder(name: str, *tags: bytes) -> bytes:
        return tag(20, name, group(*tags))

    def data(name: str, info: Sequence[int], raw: bytes) -> bytes:
        told = struct.pack(f">{1 + len(info)}{word}", len(info), *info)
        return tag(21, name, b"%%%%" + told + raw)

    def whole(name: str, value: int) -> bytes:
        return data(name, (5,), struct.pack(f"{order}I", value))

    def text(name: str, value: str) -> bytes:
        raw = value.encode("utf-16-le" if order == "<" else "utf-16-be")
        return data(name, (20, 4, len(value)), raw)

    def picture(pixels: np.ndarray, kind: int, element: int, sides: Sequence[int]) -> bytes:
        raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        axis = group(
            data("Origin", (6,), struct.pack(f"{order}f", 0.0)),
            data("Scale", (6,), struct.pack(f"{order}f", scale)),
            text("Units", unit),
        )
        return folder(
            "",
            folder(
                "ImageData",
                folder("Calibrations", folder("Dimension", *(tag(20, "", axis) for _ in sides))),
                data("Data", (20, element, pixels.size), raw),
                whole("DataType", kind),
                folder("Dimensions", *(whole("", side) for side in sides)),
                whole("PixelDepth", pixels.itemsize),
            ),
            folder("ImageTags", text("Reference", "gain")),
        )

    name = image.dtype.name
    sides = tuple(reversed(image.shape)) if dimensions is None else dimensions
    thumbnail = picture(np.zeros(4, np.uint32), 23, 5, (2, 2))
    main = picture(image, _DM_TYPES[name], _DM_ELEMENTS[name], sides)
    place = data("ApplicationBounds", (15, 0, 4, 0, 5, 0, 5, 0, 5, 0, 5), bytes(16))
    points = data("Points", (20, 15, 0, 2, 0, 6, 0, 6, 3), bytes(24))
    root = group(place, points, folder("ImageList", thumbnail, main), whole("InImageMode", 1))
    head = struct.pack(f">i{word}i", version, len(root), 1 if order == "<" else 0)
    return head + root + bytes(8)
