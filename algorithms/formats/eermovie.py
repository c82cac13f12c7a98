"""EER movies: electrons counted into fractions of the exposure.

Source: preprocessing.md section 1.6.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from algorithms.formats import eer
from algorithms.formats.eerdecode import Grid, can_read, count_electrons, read_streams
from algorithms.formats.errors import FormatError
from algorithms.formats.moviefile import Movie, Structure
from algorithms.formats.readahead import Job

USUAL_GROUPING = 32
MAX_GROUPING = 16_383  # four electrons per frame and pixel of the coarse grid fit into 16 bits
BROKEN_SHARE = 0.01  # of the raw frames that may be broken
_STREAM_BYTES = 64 * 2**20  # of streams that one thread holds


@dataclass(frozen=True, kw_only=True)
class EerOptions:
    """How to render an EER movie.

    Parameters
    ----------
    upsampling
        1: the sensor's own pixels (4K); 2 and 3: twice and four times as fine (8K, 16K); -1: half
        as fine (2K).
    grouping
        Raw frames per fraction; the rest at the end is discarded. None: by dose, else 32, or all
        frames of a shorter movie.
    dose_per_fraction, dose_per_raw_frame
        e/A^2; with both given, fractions come as near to the first as whole frames allow.

    Raises
    ------
    ValueError
        Out of range.
    """

    upsampling: int = 1
    grouping: int | None = None
    dose_per_fraction: float | None = None
    dose_per_raw_frame: float | None = None

    def __post_init__(self) -> None:
        if self.upsampling not in (-1, 1, 2, 3):
            raise ValueError(f"EER upsampling {self.upsampling} must be -1, 1, 2 or 3")
        if self.grouping is not None and not 1 <= self.grouping <= MAX_GROUPING:
            raise ValueError(f"EER grouping {self.grouping} must be 1 to {MAX_GROUPING}")
        for name in ("dose_per_fraction", "dose_per_raw_frame"):
            dose = getattr(self, name)
            if dose is not None and not 0.0 < dose < 1e6:
                raise ValueError(f"EER {name} {dose:g} must be above 0 e/A^2")

    def frames_per_fraction(self, n_raw: int) -> int:
        """Return the grouping for a movie of `n_raw` raw frames."""
        if self.grouping is not None:
            return self.grouping
        if self.dose_per_fraction and self.dose_per_raw_frame:
            group = round(self.dose_per_fraction / self.dose_per_raw_frame)
            return max(1, min(group, n_raw, MAX_GROUPING))
        return max(1, min(USUAL_GROUPING, n_raw))

    @property
    def zoom(self) -> float:
        """Pixels of the rendered movie per pixel of the sensor, along one side."""
        return 0.5 if self.upsampling == -1 else float(1 << (self.upsampling - 1))


class EerMovie(Movie):
    """Fractions of an EER movie; `grouping` raw frames each, of `n_raw` in the file.

    Raises
    ------
    FormatError
        Of the container; UNSUPPORTED where the file holds no places as fine as the upsampling, or
        fewer raw frames than one fraction takes.
    """

    def __init__(
        self,
        path: Path,
        file: BinaryIO,
        options: EerOptions | None = None,
        *,
        threads: int | None = None,
        legacy: bool = False,
    ):
        options = options or EerOptions()
        raw = (eer.read_legacy if legacy else eer.read_frames)(file, path)
        self._raw, self.options, self.n_raw = raw, options, raw.n
        self.grouping = options.frames_per_fraction(raw.n)
        finer = max(0, options.upsampling - 1)
        _check(path, raw, self.grouping, options)
        self._grid = Grid(raw.width, raw.height, raw.code, finer)
        self._broken: set[int] = set()
        most = self.grouping * (4 if options.upsampling == -1 else 1)
        structure = Structure(
            format="eer",
            nx=int(raw.width * options.zoom),
            ny=int(raw.height * options.zoom),
            n_frames=raw.n // self.grouping,
            dtype="uint8" if most < 256 else "uint16",
            compression=raw.code.name,
            pixel_size_A=None,
            complete_bytes=raw.complete_bytes,
        )
        super().__init__(path, file, structure, threads)

    @property
    def raw_size(self) -> tuple[int, int, int]:
        """Width, height and number of the raw frames."""
        return self._raw.width, self._raw.height, self._raw.n

    @property
    def broken(self) -> tuple[int, ...]:
        """Numbers of the raw frames, of those read so far, that were broken and left out."""
        return tuple(sorted(self._broken))

    def _job(self, index: int, parts: int) -> Job:
        first = index * self.grouping
        bounds = np.linspace(first, first + self.grouping, min(parts, self.grouping) + 1)
        pieces = [partial(self._count, int(start), int(end)) for start, end in pairwise(bounds)]
        return Job(pieces, self._join)

    def _count(self, first: int, last: int) -> tuple[np.ndarray, list[int]]:
        """Return the image of some raw frames, and the numbers of the broken ones."""
        image = np.zeros(self._grid.shape, self.dtype)
        broken: list[int] = []
        for start, end in self._batches(first, last):
            try:
                streams = read_streams(self._file.fileno(), self._raw, start, end)
                broken += [start + i for i in count_electrons(streams, self._grid, image)]
            except EOFError:
                detail = "the file became shorter while it was read"
                raise FormatError(self.path, "TRUNCATED", detail) from None
        if self.options.upsampling == -1:
            blocks = image.reshape(self.ny, 2, self.nx, 2)
            image = blocks.sum((1, 3), dtype=self.dtype)
        return image, broken

    def _batches(self, first: int, last: int) -> list[tuple[int, int]]:
        """Divide raw frames so that the streams of a batch are no burden."""
        sums = np.add.reduceat(np.append(self._raw.pieces[:, 1], 0), self._raw.first[:-1])
        batches, start, held = [], first, 0
        for index in range(first, last):
            if held and held + int(sums[index]) > _STREAM_BYTES:
                batches.append((start, index))
                start, held = index, 0
            held += int(sums[index])
        return [*batches, (start, last)]

    def _join(self, parts: list[tuple[np.ndarray, list[int]]]) -> np.ndarray:
        total = parts[0][0]
        for image, _ in parts[1:]:
            total += image
        self._note([number for _, broken in parts for number in broken])
        return total

    def _note(self, broken: list[int]) -> None:
        """Remember broken frames; too many spoil the movie."""
        self._broken.update(broken)
        count, allowed = len(self._broken), int(BROKEN_SHARE * self.n_raw)
        if count > allowed:
            raise FormatError(
                self.path,
                "BAD_HEADER",
                f"{count} of {self.n_raw} raw frames are corrupt (their electrons do not end with "
                f"the last pixel), the first is number {min(self._broken) + 1}; at most {allowed} "
                "may be",
            )


def _check(path: Path, raw: eer.RawFrames, grouping: int, options: EerOptions) -> None:
    """Refuse what the file cannot be rendered to."""
    finer, code = options.upsampling - 1, raw.code
    problem = ""
    if raw.n < grouping:
        problem = (
            f"{raw.n} raw frames make no fraction of {grouping}: choose fewer frames per fraction "
            "(eer_grouping)"
        )
    elif not can_read(code):
        problem = f"{code.name}: install numba to read it"
    elif finer > min(code.x_bits, code.y_bits):
        problem = (
            f"EER upsampling {options.upsampling} needs {finer} bits of place per axis, the file "
            f"has {code.x_bits} x {code.y_bits}"
        )
    if problem:
        raise FormatError(path, "UNSUPPORTED", problem)
