"""The containers of EER movies: where the streams of the raw frames lie, and how they are coded.

Today's container is a BigTIFF with a directory per raw frame; the first generation wrote frame
after frame, each followed by its length and a mark.

Source: preprocessing.md section 1.6, acquisition.md section 6.
"""

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from algorithms.formats import tiff
from algorithms.formats.errors import FormatError

MAX_RAW_FRAMES = 65_535
MAX_SIDE = 8192
LEGACY_SIDE = 4096
LEGACY_MARK, _BROKEN_MARK = b"ThermoFisherECComprOK000", b"ThermoFisherECComprERR00"
LEGACY_START = LEGACY_MARK[:19]  # what both marks begin with
_RUN_BITS, _X_BITS, _Y_BITS = 65007, 65008, 65009


class Code(NamedTuple):
    """How a stream is coded: bits of a run length, and of the place within a pixel.

    `keeps_symbol`: the longest run, which no electron follows, has symbol bits none the less.
    """

    run_bits: int
    x_bits: int
    y_bits: int
    keeps_symbol: bool = False

    @property
    def symbol_bits(self) -> int:
        """Bits of the symbol."""
        return self.x_bits + self.y_bits

    @property
    def name(self) -> str:
        """What to call it."""
        return f"eer {self.run_bits}+{self.symbol_bits} bit"


BITS_8, BITS_7 = Code(8, 2, 2, keeps_symbol=True), Code(7, 2, 2)


@dataclass(frozen=True, kw_only=True)
class RawFrames:
    """The raw frames of a movie.

    `pieces` are int64 `[k, 2]` (offset, bytes); frame i is the pieces `first[i]` to `first[i + 1]`
    one after the other, none where its camera had marked it as broken.
    """

    width: int
    height: int
    code: Code
    pieces: NDArray[np.int64]
    first: NDArray[np.int64]
    complete_bytes: int

    @property
    def n(self) -> int:
        """How many."""
        return len(self.first) - 1


def starts_as_eer(file: BinaryIO, path: str | os.PathLike[str]) -> bool:
    """Whether one of the first two directories of a TIFF is a raw frame of an EER movie.

    A name says nothing: some programs rename EER movies to .tif. The first directory may be a sum.
    """
    walk = tiff._Walk(file, path)
    for number, entries in enumerate(walk.chain(tiff.MAX_DIRECTORIES)):
        if walk.integer(entries, tiff._COMPRESSION, 1) in tiff.EER_COMPRESSIONS:
            return True
        if number == 1:
            break
    return False


def is_legacy(file: BinaryIO) -> bool:
    """Whether a file ends as those of the first generation do."""
    size = os.fstat(file.fileno()).st_size
    start = max(0, size - len(LEGACY_MARK))
    return os.pread(file.fileno(), len(LEGACY_MARK), start).startswith(LEGACY_START)


def read_frames(file: BinaryIO, path: str | os.PathLike[str]) -> RawFrames:
    """Walk the directories of a TIFF container.

    Raises
    ------
    FormatError
        EMPTY_FILE, TRUNCATED, BAD_HEADER (loops, frames that differ), UNSUPPORTED or TOO_LARGE.
    """
    walk = tiff._Walk(file, path)
    same: tuple[int, int, Code] | None = None
    pieces: list[NDArray[np.int64]] = []
    for number, entries in enumerate(walk.chain(MAX_RAW_FRAMES), 1):
        what = f"directory {number}"
        compression = walk.integer(entries, tiff._COMPRESSION, 1)
        if compression not in tiff.EER_COMPRESSIONS:
            continue  # a sum of the frames
        layout = _layout(walk, entries, compression, what)
        if same is None:
            same = layout
        elif layout != same:
            raise walk.error("BAD_HEADER", f"{what} is {_shown(layout)}, the first {_shown(same)}")
        pieces.append(_pieces(walk, entries, layout, what))
    if same is None:
        raise walk.error("UNSUPPORTED", "no directory with EER compression: this is no EER movie")
    return RawFrames(
        width=same[0],
        height=same[1],
        code=same[2],
        pieces=np.concatenate(pieces),
        first=np.cumsum([0, *map(len, pieces)]),
        complete_bytes=walk.end,
    )


def _layout(
    walk: tiff._Walk, entries: dict[int, tiff._Entry], compression: int, what: str
) -> tuple[int, int, Code]:
    """Return width, height and code of a raw frame."""
    width, height = walk.integer(entries, tiff._WIDTH), walk.integer(entries, tiff._LENGTH)
    if min(width, height) < 2 or width % 2 or height % 2:
        raise walk.error("BAD_HEADER", f"{what} is {width} x {height} px; both must be even")
    if max(width, height) > MAX_SIDE:
        raise walk.error("TOO_LARGE", f"{what} is {width} x {height} px, the limit is {MAX_SIDE}")
    if compression == 65000:
        return width, height, BITS_8
    if compression == 65001:
        return width, height, BITS_7
    x_bits = walk.integer(entries, _X_BITS)
    code = Code(walk.integer(entries, _RUN_BITS), x_bits, walk.integer(entries, _Y_BITS, x_bits))
    if not 4 <= code.run_bits <= 12 or code.x_bits not in (1, 2) or code.y_bits not in (1, 2):
        raise walk.error(
            "UNSUPPORTED",
            f"{what}: run lengths of {code.run_bits} bits (tag {_RUN_BITS}) and places of "
            f"{code.x_bits} x {code.y_bits} bits (tags {_X_BITS}, {_Y_BITS}); read are 4 to 12, "
            "and 1 or 2",
        )
    return width, height, code


def _shown(layout: tuple[int, int, Code]) -> str:
    return f"{layout[0]} x {layout[1]} px, {layout[2].name}"


def _pieces(
    walk: tiff._Walk, entries: dict[int, tiff._Entry], layout: tuple[int, int, Code], what: str
) -> NDArray[np.int64]:
    """Return where one frame's stream is; it cannot be longer than an electron in every pixel."""
    width, height, code = layout
    rows = min(walk.integer(entries, tiff._ROWS, height), height)
    if rows < 1:
        raise walk.error("BAD_HEADER", f"{what}: {rows} rows per strip")
    offsets, counts = walk.places(entries, what, -(-height // rows))
    most = (width * height + 1) * (code.run_bits + code.symbol_bits) // 8 + 8 * len(counts) + 64
    if counts.sum() > most:
        raise walk.error(
            "TOO_LARGE", f"{what} has {counts.sum()} bytes, {width} x {height} px need {most}"
        )
    return np.column_stack([offsets, counts])


def read_legacy(file: BinaryIO, path: str | os.PathLike[str]) -> RawFrames:
    """Walk the frames of a first-generation file from its end to its beginning.

    Raises
    ------
    FormatError
        TRUNCATED, BAD_HEADER (lengths that do not fit into the file) or TOO_LARGE.
    """
    tail = 8 + len(LEGACY_MARK)
    size = at = os.fstat(file.fileno()).st_size
    most = (LEGACY_SIDE**2 + 1) * 12 // 8 + 64
    found: list[tuple[int, int]] = []
    while at > 0:
        raw = os.pread(file.fileno(), tail, at - tail) if at >= tail else b""
        mark = raw[8:]
        if mark not in (LEGACY_MARK, _BROKEN_MARK):
            code = "TRUNCATED" if at == size else "BAD_HEADER"
            raise FormatError(path, code, f"no mark of a frame ends at byte {at}")
        count = 8 * struct.unpack("<Q", raw[:8])[0]
        at -= tail + count
        if at < 0 or count > most:
            raise FormatError(
                path, "BAD_HEADER", f"the frame that ends at byte {at + count} has {count} bytes"
            )
        found.append((at, count if mark == LEGACY_MARK else 0))
        if len(found) > MAX_RAW_FRAMES:
            raise FormatError(path, "TOO_LARGE", f"more than {MAX_RAW_FRAMES} raw frames")
    return RawFrames(
        width=LEGACY_SIDE,
        height=LEGACY_SIDE,
        code=BITS_8,
        pieces=np.array(found[::-1], np.int64).reshape(-1, 2),
        first=np.arange(len(found) + 1),
        complete_bytes=size,
    )
