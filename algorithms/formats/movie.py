"""Movies: frames of MRC, TIFF and EER files, one at a time, in MRC orientation.

Row 0 of every array is the first row of an MRC file; TIFF pages are turned upside down for that,
as RELION, IMOD and MotionCor2 do; EER events are not turned. Frames keep the small type of the
file.

Source: preprocessing.md sections 1.1 to 1.6, reliability.md section 2.11.
"""

import os
from pathlib import Path
from typing import BinaryIO

from algorithms.formats import streams, tiff
from algorithms.formats.eer import is_legacy, starts_as_eer
from algorithms.formats.eermovie import EerMovie, EerOptions
from algorithms.formats.errors import FormatError
from algorithms.formats.moviefile import MAX_FRAMES, Movie, Structure
from algorithms.formats.mrcmovie import MrcMovie, StreamMovie
from algorithms.formats.tiffmovie import PACKED_SIZES, TiffMovie

__all__ = [
    "MAX_FRAMES",
    "PACKED_SIZES",
    "EerMovie",
    "EerOptions",
    "Movie",
    "Structure",
    "open_movie",
    "structure_of",
]


def structure_of(
    path: str | os.PathLike[str],
    *,
    packed_4bit: bool | None = None,
    eer: EerOptions | None = None,
) -> Structure:
    """Check a movie's headers or directory chain without decoding a frame.

    Raises
    ------
    FormatError
        The file is empty, truncated, broken, too large or of a kind that is not read.
    """
    with open_movie(path, packed_4bit=packed_4bit, eer=eer) as movie:
        return movie.structure


def open_movie(
    path: str | os.PathLike[str],
    *,
    packed_4bit: bool | None = None,
    eer: EerOptions | None = None,
    threads: int | None = None,
) -> Movie:
    """Open a movie after all the checks of `structure_of`; to be used in a `with` statement.

    Parameters
    ----------
    path
        An `.mrc`, `.mrcs`, `.tif`, `.tiff`, `.eer` or `.ecc` file, or an MRC file compressed to
        `.bz2`, `.xz` or `.zst`; the content decides, not the name.
    packed_4bit
        Whether 8-bit TIFF pages hold two pixels per byte; None: by their size (`PACKED_SIZES`).
    eer
        How to render an EER movie; None for the usual way. Of no effect on others.
    threads
        That read and decode; None for as many as torch uses, 1 for the caller's own. A compressed
        MRC file is read by one. The frames do not depend on it.
    """
    path = Path(path)
    file = open(path, "rb")
    try:
        return _open(path, file, packed_4bit, eer, threads)
    except BaseException:
        file.close()
        raise


def _open(
    path: Path,
    file: BinaryIO,
    packed_4bit: bool | None,
    options: EerOptions | None,
    threads: int | None,
) -> Movie:
    start, suffix = file.read(8), path.suffix.lower()
    if tiff.is_tiff(start) or (suffix in (".tif", ".tiff") and start):
        if starts_as_eer(file, path):
            return EerMovie(path, file, options, threads=threads)
        return TiffMovie(path, file, packed_4bit=packed_4bit, threads=threads)
    if start and is_legacy(file):
        return EerMovie(path, file, options, threads=threads, legacy=True)
    if (kind := streams.kind_of(start)) is not None:
        return StreamMovie(path, file, kind)
    if suffix in (".eer", ".ecc") and start:
        detail = "no TIFF signature, and no mark of the first generation at its end"
        raise FormatError(path, "TRUNCATED" if suffix == ".ecc" else "BAD_HEADER", detail)
    if suffix in (".bz2", ".gz", ".xz", ".zst", ".dm3", ".dm4") and start:
        raise FormatError(path, "UNSUPPORTED", f"the content is no {suffix} file that is read")
    return MrcMovie(path, file, threads=threads)
