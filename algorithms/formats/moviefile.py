"""What all kinds of movies have in common.

Source: preprocessing.md section 1.1.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from algorithms.formats import readahead
from algorithms.formats.errors import FormatError
from algorithms.formats.readahead import Job

MAX_FRAMES = 4096


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What a movie file holds, told from its headers.

    `format` is "mrc", "tiff" or "eer"; `dtype` and `compression` are names; frames of an EER movie
    are its fractions as they will be rendered. `complete_bytes` is the least size at which the
    file is whole; `pixel_size_A` is of low trust in a TIFF, and none in an EER movie.
    """

    format: str
    nx: int
    ny: int
    n_frames: int
    dtype: str
    compression: str
    pixel_size_A: float | None
    complete_bytes: int


class Movie:
    """An open movie; frames are numbered from 0 and read by `threads` threads.

    `pixel_size_header` is in A, None where the file tells none.
    """

    def __init__(self, path: Path, file: BinaryIO, structure: Structure, threads: int | None):
        if structure.n_frames > MAX_FRAMES:
            raise FormatError(
                path, "TOO_LARGE", f"{structure.n_frames} frames, the limit is {MAX_FRAMES}"
            )
        self.path, self.structure, self._file = path, structure, file
        self.format = structure.format
        self.nx, self.ny, self.n_frames = structure.nx, structure.ny, structure.n_frames
        self.dtype = np.dtype(structure.dtype)
        self.pixel_size_header = structure.pixel_size_A
        self.threads = readahead.usual_threads() if threads is None else max(1, threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; frames handed out stay valid."""
        self._file.close()

    def frame_bytes(self) -> int:
        """Return the bytes of one frame as it is handed out."""
        return self.nx * self.ny * self.dtype.itemsize

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (index, `[ny, nx]`) of frames first .. last-1, in the file's own type.

        With more than one thread the next frames are made while one is being used; those at work
        fill at most `readahead.AHEAD_BYTES`, or are two.

        Raises
        ------
        ValueError
            The range is not inside the movie, or the movie is closed.
        FormatError
            A frame does not decode to what its header promises.
        """
        last = self.n_frames if last is None else last
        if not 0 <= first < last <= self.n_frames:
            raise ValueError(f"frames {first} to {last} of a movie with {self.n_frames}")
        depth, parts = readahead.depth_and_parts(self.threads, self.frame_bytes())
        make = self._job
        yield from readahead.run(
            range(first, last), lambda index: make(index, parts), self.threads, depth
        )

    def _job(self, index: int, parts: int) -> Job:
        """Return how to make a frame, in at most `parts` parts."""
        raise NotImplementedError

    def _read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer from the file, wherever other threads read."""
        done = 0
        while done < len(buffer):
            got = os.preadv(self._file.fileno(), [buffer[done:]], offset + done)
            if got == 0:
                raise FormatError(
                    self.path, "TRUNCATED", "the file became shorter while it was read"
                )
            done += got
