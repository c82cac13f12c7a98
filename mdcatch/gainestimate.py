"""A gain reference made of the movies of a session, for cameras that left none.

Source: preprocessing.md section 1.5.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from algorithms.formats import mrc
from algorithms.formats.atomic import atomic_write
from algorithms.formats.errors import FormatError
from algorithms.formats.movie import open_movie
from algorithms.gain_estimate import TooFewElectrons, estimate_gain
from services.kit.errors import Misuse

ENOUGH_MOVIES = 200  # so that no grid bar or crystal of one of them shows


class Estimated(msgspec.Struct, frozen=True, kw_only=True):
    """What was made, and of what; `left_out` are movies that could not be read, and why."""

    gain: str
    is_inverse: bool  # of EER movies: such a gain is divided by
    n_movies: int
    n_frames: int
    electrons_per_px: float
    variation: float  # of the pattern, relative
    error: float
    n_dead: int
    n_hot: int
    left_out: tuple[str, ...] = ()


def make_gain(
    movies: Sequence[Path], out: Path, *, least: int = ENOUGH_MOVIES, threads: int | None = None
) -> Estimated:
    """Estimate the gain of a camera and write it as MRC.

    Parameters
    ----------
    movies
        Of one camera mode, not corrected.
    out
        The file. Of EER movies it holds 1 / gain, as every program expects of an MRC file there.
    least
        Movies that there must be.
    threads
        That decode.

    Raises
    ------
    Misuse
        Too few movies or electrons, or movies that differ in size.
    """
    total: np.ndarray | None = None
    left_out: list[str] = []
    n_movies = n_frames = 0
    kinds: set[str] = set()
    for path in movies:
        try:
            with open_movie(path, threads=threads) as movie:
                own = np.zeros((movie.ny, movie.nx))
                for _, frame in movie.frames():
                    own += frame
                frames, kind = movie.n_frames, movie.format
        except (FormatError, OSError) as error:
            left_out.append(str(error))
            continue
        if total is not None and total.shape != own.shape:
            raise Misuse(f"{path} is {own.shape[1]} x {own.shape[0]} px, unlike the movies before")
        total = own if total is None else total + own
        n_movies, n_frames = n_movies + 1, n_frames + frames
        kinds.add(kind)
    if total is None or n_movies < least:
        raise Misuse(
            f"{n_movies} movies could be read, {least} are needed: with fewer the specimen stays "
            f"in the gain (--min-movies){''.join(f'; {one}' for one in left_out[:3])}"
        )
    if len(kinds) > 1:
        raise Misuse(f"movies of several formats: {', '.join(sorted(kinds))}")
    return _write(total, out, "eer" in kinds, n_movies, n_frames, left_out)


def _write(
    total: np.ndarray,
    out: Path,
    is_inverse: bool,
    n_movies: int,
    n_frames: int,
    left_out: list[str],
) -> Estimated:
    try:
        found = estimate_gain(total)
    except TooFewElectrons as error:
        raise Misuse(f"{n_movies} movies of {n_frames} frames: {error}") from None
    except ValueError as error:
        raise Misuse(f"{n_movies} movies: {error}; are they corrected already?") from None
    image = found.gain
    if is_inverse:
        image = np.divide(1.0, image, out=np.zeros_like(image), where=image > 0)
    atomic_write(out, mrc.encode(image, 1.0))
    return Estimated(
        gain=str(out),
        is_inverse=is_inverse,
        n_movies=n_movies,
        n_frames=n_frames,
        electrons_per_px=found.electrons,
        variation=found.variation,
        error=found.error,
        n_dead=found.n_dead,
        n_hot=found.n_hot,
        left_out=tuple(left_out),
    )
