"""MRC files: headers that are checked against the file before anything is allocated.

Arrays are `[ny, nx]` or `[nz, ny, nx]` in the order of the file: row 0 is the first row stored.

Source: preprocessing.md sections 1.3 and 5.3, reliability.md section 2.11.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from algorithms.formats.errors import FormatError

HEADER_BYTES = 1024
MAX_SIDE = 32_768
MAX_SECTIONS = 2**20  # particle stacks; a movie is held to far fewer
MAX_EXTENDED_BYTES = 16 * 2**20
FLOAT16_MAX = 65_504.0
_PIECE = 1 << 17  # values at a time
STORED = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", 101: "u1"}  # mode -> type on disk
_IMOD_STAMP = 1146047817
_LAYOUT = "<10i6f3i3f2i8x4si84x3f4s4sfi800s"
_LABEL = b"coldstream".ljust(80) + bytes(720)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the 1024 bytes say, after all checks.

    `dtype` is the stored type in the file's byte order; mode 101 holds two pixels per byte.
    `pixel_size_A` is None where the header gives none.
    """

    nx: int
    ny: int
    nz: int
    mode: int
    dtype: np.dtype
    pixel_size_A: float | None
    mx: int
    my: int
    mz: int
    is_stack: bool
    minimum: float
    maximum: float
    mean: float
    rms: float
    extended_type: str
    extended_bytes: int

    @property
    def section_bytes(self) -> int:
        """Size of one section on disk; rows of packed 4-bit pixels fill whole bytes."""
        row = (self.nx + 1) // 2 if self.mode == 101 else self.nx * self.dtype.itemsize
        return row * self.ny

    @property
    def data_offset(self) -> int:
        """Where section 0 begins."""
        return HEADER_BYTES + self.extended_bytes

    @property
    def complete_bytes(self) -> int:
        """Size of the complete file."""
        return self.data_offset + self.nz * self.section_bytes


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header; the file must be as long as the header promises.

    Raises
    ------
    FormatError
        EMPTY_FILE, TRUNCATED, BAD_HEADER, UNSUPPORTED (complex modes) or TOO_LARGE.
    """
    with open(path, "rb") as file:
        return header_of(file, path)


def header_of(file: BinaryIO, path: str | os.PathLike[str]) -> Header:
    """Do as `read_header` for an open file; `path` is for messages."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise FormatError(path, "EMPTY_FILE", "0 bytes")
    file.seek(0)
    raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise FormatError(path, "TRUNCATED", f"{size} bytes, an MRC header alone has 1024")
    header = parse_header(raw, path)
    if size < header.complete_bytes:
        raise FormatError(
            path,
            "TRUNCATED",
            f"{size} of {header.complete_bytes} bytes for {header.nz} sections of "
            f"{header.nx} x {header.ny}, mode {header.mode}",
        )
    return header


def parse_header(raw: bytes, path: str | os.PathLike[str]) -> Header:
    """Check the first 1024 bytes for themselves; `path` is for messages.

    Raises
    ------
    FormatError
        BAD_HEADER, UNSUPPORTED or TOO_LARGE.
    """
    order = "<"
    nx, _, _, mode = struct.unpack_from("<4i", raw)
    if abs(mode) > 65_535 or abs(nx) > 65_535:
        order = ">"
    nx, ny, nz, mode = struct.unpack_from(order + "4i", raw)
    mx, my, mz, cella_x = struct.unpack_from(order + "3if", raw, 28)
    minimum, maximum, mean, ispg, extended = struct.unpack_from(order + "3f2i", raw, 76)
    stamp, flags = struct.unpack_from(order + "2i", raw, 152)
    if mode in (3, 4):
        raise FormatError(path, "UNSUPPORTED", f"mode {mode}: complex images are not read")
    if mode not in STORED or min(nx, ny, nz) < 1 or extended < 0:
        raise FormatError(
            path, "BAD_HEADER", f"not MRC: size {nx} x {ny} x {nz}, mode {mode}, nsymbt {extended}"
        )
    if max(nx, ny) > MAX_SIDE or nz > MAX_SECTIONS or extended > MAX_EXTENDED_BYTES:
        raise FormatError(
            path,
            "TOO_LARGE",
            f"size {nx} x {ny} x {nz}, extended header {extended} bytes; limits: sides {MAX_SIDE}, "
            f"sections {MAX_SECTIONS}, extended header {MAX_EXTENDED_BYTES}",
        )
    if stamp == _IMOD_STAMP:
        is_unsigned = not flags & 1
    else:
        is_unsigned = minimum >= 0 and maximum > 127
    kind = "u1" if mode == 0 and is_unsigned else STORED[mode]
    pixel_size = cella_x / mx if mx > 0 and 0 < cella_x < float("inf") else None
    return Header(
        nx=nx,
        ny=ny,
        nz=nz,
        mode=mode,
        dtype=np.dtype(kind).newbyteorder(order),
        pixel_size_A=pixel_size,
        mx=mx,
        my=my,
        mz=mz,
        is_stack=ispg == 0 and mz == 1 and nz > 1,
        minimum=minimum,
        maximum=maximum,
        mean=mean,
        rms=struct.unpack_from(order + "f", raw, 216)[0],
        extended_type=raw[104:108].decode("ascii", "replace").strip("\0 "),
        extended_bytes=extended,
    )


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a whole file: `[ny, nx]`, or `[nz, ny, nx]` for volumes and `.mrcs` stacks.

    Native types in the machine's byte order; float16 becomes float32, packed 4-bit uint8.
    Raises FormatError as `read_header` does.
    """
    with open(path, "rb") as file:
        header = header_of(file, path)
        array = read_sections(file, path, header, 0, header.nz)
    flat = header.nz == 1 and Path(path).suffix.lower() != ".mrcs"
    return array[0] if flat else array


def read_sections(
    file: BinaryIO, path: str | os.PathLike[str], header: Header, first: int, last: int
) -> np.ndarray:
    """Sections first .. last-1 as `[n, ny, nx]`; `header` is of this very file."""
    raw = np.empty((last - first) * header.section_bytes, dtype=np.uint8)
    file.seek(header.data_offset + first * header.section_bytes)
    if file.readinto(raw) != raw.size:  # type: ignore[attr-defined]
        raise FormatError(path, "TRUNCATED", "the file became shorter while it was read")
    return sections(raw, header)


def sections(raw: np.ndarray, header: Header) -> np.ndarray:
    """Return whole sections, bytes as they are stored, as `[n, ny, nx]` in the machine's order."""
    if header.mode == 101:
        return unpack_nibbles(raw.reshape(-1, header.ny, (header.nx + 1) // 2))[..., : header.nx]
    array = raw.view(header.dtype).reshape(-1, header.ny, header.nx)
    if header.mode == 12:
        return array.astype(np.float32)
    return array.astype(header.dtype.newbyteorder("="), copy=False)


def unpack_nibbles(packed: np.ndarray) -> np.ndarray:
    """Pixels `[..., 2n]` of bytes `[..., n]` that hold two each, the low nibble first."""
    pixels = np.empty((*packed.shape[:-1], packed.shape[-1] * 2), dtype=np.uint8)
    pixels[..., 0::2] = packed & 15
    pixels[..., 1::2] = packed >> 4
    return pixels


def write(
    path: str | os.PathLike[str],
    array: np.ndarray,
    pixel_size_A: float,
    float16: bool = False,
    is_stack: bool = False,
) -> None:
    """Write `encode(...)` to a file, plainly: publishing it in one step is the caller's part."""
    Path(path).write_bytes(encode(array, pixel_size_A, float16=float16, is_stack=is_stack))


def encode(
    array: np.ndarray, pixel_size_A: float, *, float16: bool = False, is_stack: bool = False
) -> bytes:
    """Bytes of an MRC file, mode 2 or mode 12.

    Parameters
    ----------
    array
        Image `[ny, nx]`, volume `[nz, ny, nx]`, or with `is_stack` images `[n, ny, nx]`.
    pixel_size_A
        Edge of a pixel.
    float16
        Mode 12: values beyond +-65504 are set to that limit, never to infinity.
    is_stack
        Sections are images, not planes of a volume: mz 1, cell z 1, space group 0.

    Raises
    ------
    ValueError
        Not a real 2-D or 3-D array, empty, or with values that are not finite.
    """
    if array.ndim not in (2, 3) or array.size == 0 or array.dtype.kind not in "iufb":
        raise ValueError(f"cannot write a {array.dtype} array of shape {array.shape} as MRC")
    out, statistics = _stored(array, "<f2" if float16 else "<f4")
    data = out.reshape(array.shape)
    sections = data.shape if data.ndim == 3 else (1, *data.shape)
    header = header_bytes(
        sections,
        pixel_size_A,
        statistics,
        float16=float16,
        is_volume=data.ndim == 3 and not is_stack,
    )
    return b"".join((header, data.data))


def _stored(array: np.ndarray, kind: str) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Return values as they are stored, flat, and minimum, maximum, mean and deviation of them.

    In pieces that stay in the cache: one pass over memory. Mean and deviation are of the values
    before they are rounded to 16 bits, which does not change them in what a header is read for.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    out = np.empty(flat.size, kind)
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    # Near the mean: the squares of differences from it lose no digits.
    first = float(flat[:_PIECE].astype(np.float32).mean())
    for start in range(0, flat.size, _PIECE):
        values = flat[start : start + _PIECE].astype(np.float32)
        least, most = float(values.min()), float(values.max())
        if not np.isfinite(least + most):  # NaN passes through both
            raise ValueError("cannot write values that are not finite as MRC")
        low, high = min(low, least), max(high, most)
        if kind == "<f2" and max(-least, most) > FLOAT16_MAX:
            np.clip(values, -FLOAT16_MAX, FLOAT16_MAX, out=values)
        out[start : start + _PIECE] = values
        values -= np.float32(first)
        total += float(values.sum(dtype=np.float64))
        squares += float(np.dot(values, values))
    mean = total / flat.size
    if kind == "<f2":
        low, high = (float(np.float16(min(max(v, -FLOAT16_MAX), FLOAT16_MAX))) for v in (low, high))
    deviation = max(0.0, squares / flat.size - mean * mean) ** 0.5
    return out, (low, high, first + mean, deviation)


def header_bytes(
    shape: tuple[int, ...],
    pixel_size_A: float,
    statistics: tuple[float, float, float, float],
    *,
    float16: bool = False,
    is_volume: bool = False,
) -> bytes:
    """Header of images or a volume `(nz, ny, nx)`, for what is written piece by piece.

    Parameters
    ----------
    shape
        Sections, rows, columns.
    pixel_size_A
        Edge of a pixel.
    statistics
        Minimum, maximum, mean and standard deviation of the values.
    float16
        Mode 12 instead of 2.
    is_volume
        Sections are planes of a volume, not images.
    """
    nz, ny, nx = shape
    low, high, mean, deviation = statistics
    depth = nz * pixel_size_A if is_volume else 1.0
    return struct.pack(
        _LAYOUT,
        *(nx, ny, nz, 12 if float16 else 2, 0, 0, 0, nx, ny, nz if is_volume else 1),
        *(nx * pixel_size_A, ny * pixel_size_A, depth, 90.0, 90.0, 90.0),
        *(1, 2, 3, low, high, mean, int(is_volume), 0),
        *(b"\0\0\0\0", 20141, 0.0, 0.0, 0.0, b"MAP ", b"\x44\x44\0\0"),
        *(deviation, 1, _LABEL),
    )
