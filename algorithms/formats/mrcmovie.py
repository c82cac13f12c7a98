"""MRC movies: sections of a file, or of a compressed stream.

Source: preprocessing.md section 1.3.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from algorithms.formats import mrc
from algorithms.formats.moviefile import Movie, Structure
from algorithms.formats.readahead import Job
from algorithms.formats.streams import Stream


class MrcMovie(Movie):
    """Sections of an MRC file."""

    def __init__(self, path: Path, file: BinaryIO, *, threads: int | None = None):
        self.header = header = mrc.header_of(file, path)
        super().__init__(path, file, structure_of_header(header), threads)

    def _job(self, index: int, parts: int) -> Job:
        return Job([partial(self._section, index)], lambda found: found[0])

    def _section(self, index: int) -> np.ndarray:
        raw = np.empty(self.header.section_bytes, np.uint8)
        place = self.header.data_offset + index * self.header.section_bytes
        self._read_into(raw.data, place)
        return mrc.sections(raw, self.header)[0]


def structure_of_header(
    header: mrc.Header, *, compression: str = "none", complete_bytes: int | None = None
) -> Structure:
    """Return what a movie with this header holds; float16 is handed out as float32."""
    native = "f4" if header.mode == 12 else header.dtype.str[1:]
    packed = "packed 4-bit" if header.mode == 101 else "none"
    return Structure(
        format="mrc",
        nx=header.nx,
        ny=header.ny,
        n_frames=header.nz,
        dtype=np.dtype(native).name,
        compression=packed if compression == "none" else compression,
        pixel_size_A=header.pixel_size_A,
        complete_bytes=header.complete_bytes if complete_bytes is None else complete_bytes,
    )


class StreamMovie(Movie):
    """Sections of an MRC file in a compressed stream: only in order, each pass from the start."""

    def __init__(self, path: Path, file: BinaryIO, kind: str):
        self._kind = kind
        stream = Stream(path, file.fileno(), kind)
        self.header = mrc.parse_header(stream.read(mrc.HEADER_BYTES), path)
        size = os.fstat(file.fileno()).st_size
        structure = structure_of_header(self.header, compression=kind, complete_bytes=size)
        super().__init__(path, file, structure, threads=1)

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Do as `Movie.frames`; frames before `first` are unpacked as well.

        Raises
        ------
        ValueError, FormatError
            As `Movie.frames`; TRUNCATED where the stream ends before the last frame.
        """
        last = self.n_frames if last is None else last
        if not 0 <= first < last <= self.n_frames:
            raise ValueError(f"frames {first} to {last} of a movie with {self.n_frames}")
        stream = Stream(self.path, self._file.fileno(), self._kind)
        stream.read(self.header.data_offset)
        for index in range(last):
            raw = stream.read(self.header.section_bytes)
            if index == self.n_frames - 1:
                stream.finish()
            if index >= first:
                yield index, mrc.sections(np.frombuffer(raw, np.uint8), self.header)[0]
