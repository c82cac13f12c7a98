"""Movies: frames of MRC and TIFF files, one at a time, in MRC orientation.

Row 0 of every array is the first row of an MRC file; TIFF pages are turned upside down for that,
as RELION, IMOD and MotionCor2 do. Frames keep the small type of the file.

Source: preprocessing.md sections 1.1 to 1.4, reliability.md section 2.11.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import imagecodecs
import numpy as np

from algorithms.formats import mrc, tiff
from algorithms.formats.errors import FormatError

MAX_FRAMES = 4096
# An 8-bit TIFF page of one of these sizes (width, height) is a K3 or K2 super-resolution frame
# that SerialEM packed, two 4-bit pixels in a byte: no camera has frames of these sizes.
PACKED_SIZES = frozenset(
    {(5760, 8184), (8184, 5760), (4092, 11520), (11520, 4092)}
    | {(3710, 7676), (7676, 3710), (3838, 7420), (7420, 3838)}
)


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What a movie file holds, told from its headers.

    `format` is "mrc" or "tiff"; `dtype` and `compression` are names; `complete_bytes` is the
    least size at which the file is whole; `pixel_size_A` is of low trust in a TIFF.
    """

    format: str
    nx: int
    ny: int
    n_frames: int
    dtype: str
    compression: str
    pixel_size_A: float | None
    complete_bytes: int


def structure_of(path: str | os.PathLike[str], *, packed_4bit: bool | None = None) -> Structure:
    """Check a movie's headers or directory chain without decoding a frame.

    Raises
    ------
    FormatError
        The file is empty, truncated, broken, too large or of a kind that is not read.
    """
    with open_movie(path, packed_4bit=packed_4bit) as movie:
        return movie.structure


def open_movie(path: str | os.PathLike[str], *, packed_4bit: bool | None = None) -> "Movie":
    """Open a movie after all the checks of `structure_of`; to be used in a `with` statement.

    Parameters
    ----------
    path
        An `.mrc`, `.mrcs`, `.tif` or `.tiff` file; the content decides, not the name.
    packed_4bit
        Whether 8-bit TIFF pages hold two pixels per byte; None: by their size (`PACKED_SIZES`).
    """
    path = Path(path)
    file = open(path, "rb")
    try:
        start = file.read(8)
        suffix = path.suffix.lower()
        if tiff.is_tiff(start) or (suffix in (".tif", ".tiff") and start):
            return TiffMovie(path, file, packed_4bit)
        if suffix in (".eer", ".ecc") and start:
            raise FormatError(
                path, "UNSUPPORTED", "EER movies are read by a later version; convert it to TIFF"
            )
        if suffix in (".bz2", ".gz", ".xz", ".zst", ".dm3", ".dm4") and start:
            raise FormatError(path, "UNSUPPORTED", f"{suffix} is not read; give TIFF or plain MRC")
        return MrcMovie(path, file)
    except BaseException:
        file.close()
        raise


class Movie:
    """An open movie; frames are numbered from 0."""

    def __init__(self, path: Path, file: BinaryIO, structure: Structure):
        if structure.n_frames > MAX_FRAMES:
            raise FormatError(
                path, "TOO_LARGE", f"{structure.n_frames} frames, the limit is {MAX_FRAMES}"
            )
        self.path, self.structure, self._file = path, structure, file
        self.format = structure.format
        self.nx, self.ny, self.n_frames = structure.nx, structure.ny, structure.n_frames
        self.dtype = np.dtype(structure.dtype)
        self.pixel_size_A = structure.pixel_size_A

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; frames handed out stay valid."""
        self._file.close()

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (index, `[ny, nx]`) of frames first .. last-1, in the file's own type.

        Raises
        ------
        ValueError
            The range is not inside the movie.
        FormatError
            A frame does not decode to what its header promises.
        """
        last = self.n_frames if last is None else last
        if not 0 <= first < last <= self.n_frames:
            raise ValueError(f"frames {first} to {last} of a movie with {self.n_frames}")
        for index in range(first, last):
            yield index, self._frame(index)

    def _frame(self, index: int) -> np.ndarray:
        raise NotImplementedError


class MrcMovie(Movie):
    """Sections of an MRC file."""

    def __init__(self, path: Path, file: BinaryIO):
        self.header = header = mrc.header_of(file, path)
        native = "f4" if header.mode == 12 else header.dtype.str[1:]
        structure = Structure(
            format="mrc",
            nx=header.nx,
            ny=header.ny,
            n_frames=header.nz,
            dtype=np.dtype(native).name,
            compression="packed 4-bit" if header.mode == 101 else "none",
            pixel_size_A=header.pixel_size_A,
            complete_bytes=header.complete_bytes,
        )
        super().__init__(path, file, structure)

    def _frame(self, index: int) -> np.ndarray:
        return mrc.read_sections(self._file, self.path, self.header, index, index + 1)[0]


class TiffMovie(Movie):
    """Pages of a TIFF file."""

    def __init__(self, path: Path, file: BinaryIO, packed_4bit: bool | None = None):
        self.pages, complete_bytes = tiff.read_pages(file, path)
        page = self.pages[0]
        dtype = np.dtype(page.dtype)
        if packed_4bit is None:
            packed_4bit = dtype.name == "uint8" and (page.nx, page.ny) in PACKED_SIZES
        if packed_4bit and dtype.name != "uint8":
            raise FormatError(path, "BAD_HEADER", f"packed 4-bit pixels in {dtype.name} pages")
        self.packed = packed_4bit
        structure = Structure(
            format="tiff",
            nx=page.nx * 2 if packed_4bit else page.nx,
            ny=page.ny,
            n_frames=len(self.pages),
            dtype=dtype.name,
            compression=tiff.COMPRESSIONS[page.compression],
            pixel_size_A=page.pixel_size_A,
            complete_bytes=complete_bytes,
        )
        super().__init__(path, file, structure)

    def _frame(self, index: int) -> np.ndarray:
        page = self.pages[index]
        frame = np.empty((page.ny, page.nx), dtype=page.dtype)
        upside_down = frame[::-1]
        for number, (offset, count) in enumerate(page.strips):
            first = number * page.rows_per_strip
            rows = upside_down[first : first + page.rows_per_strip]
            self._file.seek(offset)
            decoded = self._decoded(self._file.read(count), rows.nbytes, index, number)
            rows[:] = np.frombuffer(decoded, dtype=page.dtype).reshape(rows.shape)
        frame = frame.astype(frame.dtype.newbyteorder("="), copy=False)
        if page.predictor == 2:  # differences along a row, wrapping around
            np.cumsum(frame, axis=1, dtype=frame.dtype, out=frame)
        return mrc.unpack_nibbles(frame) if self.packed else frame

    def _decoded(self, raw: bytes, expected: int, index: int, number: int) -> bytes | bytearray:
        """Return the bytes of one strip, which must be exactly `expected`."""
        decoder = _DECODERS[self.structure.compression]
        detail = f"frame {index + 1}, strip {number + 1}"
        try:
            # One byte more than expected: enough to notice a strip that unpacks to too much,
            # too little for a decompression bomb.
            decoded = decoder(raw, out=expected + 1)
        except RuntimeError as error:  # base of all errors of imagecodecs
            raise FormatError(self.path, "BAD_HEADER", f"{detail} is corrupt: {error}") from None
        if len(decoded) != expected:
            raise FormatError(
                self.path,
                "BAD_HEADER",
                f"{detail} decodes to {len(decoded)} bytes or more, not {expected}",
            )
        return decoded


_DECODERS: dict[str, Callable[..., Any]] = {
    "none": lambda raw, out: raw,
    "lzw": imagecodecs.lzw_decode,
    "deflate": imagecodecs.deflate_decode,
    "packbits": imagecodecs.packbits_decode,
}
