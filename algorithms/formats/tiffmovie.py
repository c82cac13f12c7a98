"""TIFF movies: pages of compressed strips, decoded in parallel.

Source: preprocessing.md section 1.4.
"""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from algorithms.formats import strips, tiff
from algorithms.formats.errors import FormatError
from algorithms.formats.moviefile import Movie, Structure
from algorithms.formats.mrc import unpack_nibbles
from algorithms.formats.readahead import Job

# An 8-bit TIFF page of one of these sizes (width, height) is a K3 or K2 super-resolution frame
# that SerialEM packed, two 4-bit pixels in a byte: no camera has frames of these sizes.
PACKED_SIZES = frozenset(
    {(5760, 8184), (8184, 5760), (4092, 11520), (11520, 4092)}
    | {(3710, 7676), (7676, 3710), (3838, 7420), (7420, 3838)}
)
# Small strips that lie together in the file, with gaps of so many bytes at most, are read and
# decoded at once, up to so many bytes of the frame.
_TOGETHER, _GAP = 2**20, 4096


class TiffMovie(Movie):
    """Pages of a TIFF file, turned upside down into MRC orientation unless `as_stored`."""

    def __init__(
        self,
        path: Path,
        file: BinaryIO,
        *,
        packed_4bit: bool | None = None,
        threads: int | None = None,
        as_stored: bool = False,
    ):
        self.pages, complete_bytes = tiff.read_pages(file, path)
        self.as_stored = as_stored
        page = self.pages[0]
        dtype = np.dtype(page.dtype)
        if packed_4bit is None:
            packed_4bit = dtype.name == "uint8" and (page.nx, page.ny) in PACKED_SIZES
        if packed_4bit and dtype.name != "uint8":
            raise FormatError(path, "BAD_HEADER", f"packed 4-bit pixels in {dtype.name} pages")
        self.packed = packed_4bit
        for number, one in enumerate(self.pages, 1):
            if not strips.is_read(tiff.COMPRESSIONS[one.compression]):
                raise FormatError(
                    path,
                    "UNSUPPORTED",
                    f"frame {number}: compression {one.compression} needs imagecodecs with zstd",
                )
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
        super().__init__(path, file, structure, threads)

    def _job(self, index: int, parts: int) -> Job:
        page = self.pages[index]
        frame = np.empty((self.ny, self.nx), self.dtype)
        bounds = np.linspace(0, len(page.counts), min(parts, len(page.counts)) + 1).astype(int)
        pieces = [
            partial(self._fill, frame, index, int(first), int(last))
            for first, last in pairwise(bounds)
        ]
        return Job(pieces, lambda _: frame)

    def _fill(self, frame: np.ndarray, index: int, first: int, last: int) -> None:
        """Decode strips first .. last-1 into their rows of a frame."""
        page = self.pages[index]
        while first < last:
            end = _together(page, first, last)
            begins = page.offsets[first:end] - page.offsets[first]
            run = strips.Run(self._read(page, first, end), begins, page.counts[first:end])
            self._decode(frame, index, first, run)
            first = end

    def _read(self, page: tiff.Page, first: int, end: int) -> memoryview:
        """Return the bytes from one strip to another."""
        begin = int(page.offsets[first])
        raw = memoryview(bytearray(int(page.offsets[end - 1] + page.counts[end - 1]) - begin))
        self._read_into(raw, begin)
        return raw

    def _decode(self, frame: np.ndarray, index: int, first: int, run: strips.Run) -> None:
        page = self.pages[index]
        stored = np.dtype(page.dtype)
        row_bytes, high = page.nx * stored.itemsize, page.rows_per_strip
        top, end = first * high, min((first + len(run.begins)) * high, page.ny)
        sizes = [high * row_bytes] * len(run.begins)
        sizes[-1] = (end - top - (len(sizes) - 1) * high) * row_bytes

        def where(number: int) -> tuple[Path, str]:
            return self.path, f"frame {index + 1}, strip {first + number + 1}"

        decoded = strips.decode(run, tiff.COMPRESSIONS[page.compression], sizes, where)
        block = decoded.view(stored).reshape(end - top, page.nx)
        rows = frame[top:end] if self.as_stored else frame[page.ny - end : page.ny - top][::-1]
        if page.predictor == 2:  # differences along a row, wrapping around
            native = stored.newbyteorder("=")
            block = np.cumsum(block, axis=1, dtype=native)
        rows[:] = unpack_nibbles(block) if self.packed else block


def _together(page: tiff.Page, first: int, last: int) -> int:
    """Return the end of the strips from `first` on that lie together and are small."""
    strip_bytes = page.rows_per_strip * page.nx * int(page.dtype[2:])
    last = min(last, first + max(1, _TOGETHER // strip_bytes))
    gaps = page.offsets[first + 1 : last] - page.offsets[first : last - 1]
    gaps = gaps - page.counts[first : last - 1]
    apart = np.flatnonzero((gaps < 0) | (gaps > _GAP))
    return first + 1 + int(apart[0]) if len(apart) else last
