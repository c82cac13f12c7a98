"""The gain reference of a movie, and the copy of it that later steps of RELION read.

What is multiplied with the frames (turned, of the movie's size, whatever file it came from) is kept
once in the job's folder as MRC, and the movie's STAR file names that: RELION's polishing reads it
without being told how the camera's file lies. Beside EER movies it holds what RELION divides by.

Source: preprocessing.md sections 1.5, 1.6 and 2.12.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from algorithms.formats import mrc
from algorithms.formats.atomic import atomic_write
from algorithms.formats.errors import FormatError
from algorithms.formats.gain import as_divisor, gain_factor, load_gain
from algorithms.formats.movie import EerMovie, Movie
from services.kit.errors import Code, Refused
from services.prep.requests import MotionRequest

# What this process has seen to be in place: path -> digest of its content, its size and time.
_in_place: dict[Path, tuple[bytes, int, int]] = {}


def gain_of_movie(ask: MotionRequest, project: Path, movie: Movie) -> np.ndarray | None:
    """Return the gain as it is multiplied, float32 `[ny, nx]`, and keep the job's copy of it.

    Raises
    ------
    Refused
        GAIN_MISMATCH: the file cannot be read, or is of another camera.
    """
    if ask.gain_path is None:
        return None
    path, is_eer = project / ask.gain_path, isinstance(movie, EerMovie)
    try:
        gain = load_gain(
            path,
            (movie.ny, movie.nx),
            rotation=ask.gain_rotation,
            flip=ask.gain_flip,
            is_eer=is_eer,
        )
    except (FormatError, OSError) as error:
        raise Refused(Code.GAIN_MISMATCH, f"the gain reference {path} does not fit: {error}") from (
            error
        )
    if ask.gain_name is not None and ask.gain_name != ask.gain_path:
        stored = as_divisor(gain) if is_eer else gain
        _keep(project / ask.gain_name, stored, ask.pixel_size_A)
    return gain


def size_note(ask: MotionRequest, project: Path, movie: Movie) -> str:
    """Say how the gain was made to fit a movie of another size; nothing where it fits."""
    if ask.gain_path is None:
        return ""
    factor = gain_factor(project / ask.gain_path, (movie.ny, movie.nx))
    if factor == 1:
        return ""
    how = f"averaged over {factor:g} x {factor:g} px"
    if factor < 1:
        how = f"each value used for {1 / factor:g} x {1 / factor:g} px"
    return (
        f"the gain reference {ask.gain_path} is not of the size of the movies "
        f"({movie.nx} x {movie.ny} px): {how}"
    )


def _keep(path: Path, gain: np.ndarray, pixel_size_A: float) -> None:
    """See to it that a file holds this gain; written in one step, and only where it does not."""
    digest = hashlib.sha256(gain.data).digest()
    known = _in_place.get(path)
    if known is not None and known == (digest, *_identity(path)):
        return
    content = mrc.encode(gain, pixel_size_A)
    try:
        same = path.read_bytes() == content
    except OSError:
        same = False
    if not same:
        atomic_write(path, content)
    _in_place[path] = (digest, *_identity(path))


def _identity(path: Path) -> tuple[int, int]:
    """Return size and time of a file, which tell whether it is still the one that was seen."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
