"""Is the gain reference the right way round? The frames of a few movies tell.

Done once per session, by hand or as a task, never in the daemon's loop: it decodes whole movies.
A wrong orientation spoils every micrograph and shows in none of the usual figures.

Source: acquisition.md sections 2.5, 3.3 and 10 (8); preprocessing.md section 1.5.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from algorithms.formats.errors import FormatError
from algorithms.formats.gain import inverted, read_gain
from algorithms.formats.movie import open_movie
from algorithms.gain_orientation import (
    ORIENTATIONS,
    Verdict,
    find_orientation,
    match,
    oriented,
)

# So many frames are enough for any camera; further movies are not read.
ENOUGH_FRAMES = 200
# Px along each side of the part in the middle that is compared: four million pixels tell a pattern
# of a tenth of a percent, and keep memory and time small.
PART_PX = 2048


class GainCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What the frames say of a gain; `found` is None where they do not say it for certain."""

    gain: str
    movies: tuple[str, ...]
    n_frames: int = 0
    configured: tuple[int, int] = (0, 0)  # rotation, flip, as motion correction takes them
    found: tuple[int, int] | None = None
    is_inverse: bool = False
    flag: str = ""  # gain_orientation, gain_inverse, gain_mismatch or gain_unchecked
    sentence: str = ""
    scores: tuple[tuple[int, int, float], ...] = ()  # rotation, flip, correlation; best first
    chance: float = 0.0  # standard deviation of a correlation that means nothing


def check_gain(
    movies: Sequence[Path], gain: Path, rotation: int = 0, flip: int = 0, *, seed: int = 0
) -> GainCheck:
    """Compare a gain with the frames of movies that are not gain-corrected.

    Parameters
    ----------
    movies
        Of one camera mode; the more frames, the surer.
    gain
        MRC, TIFF or DM4, multiplied to the frames; of EER movies every file but `.gain` divides.
    rotation, flip
        As configured: quarter turns before the flip; see `load_gain`.
    seed
        Of the shifts that show what chance gives.
    """
    asked = GainCheck(gain=str(gain), movies=tuple(map(str, movies)), configured=(rotation, flip))
    try:
        total, n_frames, is_eer = _sum_of_frames(movies)
        whole = read_gain(gain)
        if is_eer and gain.suffix.lower() != ".gain":
            whole = inverted(whole)
    except (FormatError, OSError, ValueError) as error:
        return _with(asked, flag="gain_unchecked", sentence=f"could not be compared: {error}")
    try:
        total, whole = match(total, whole)
        # Of a part, the shape does not tell any more which turns are possible.
        fits = [o for o in ORIENTATIONS if oriented(whole, *o).shape == total.shape]
        verdict = find_orientation(*_middle(total, whole), np.random.default_rng(seed), fits)
    except ValueError as error:
        return _with(asked, flag="gain_mismatch", sentence=str(error), n_frames=n_frames)
    return _judge(_with(asked, n_frames=n_frames), verdict)


def _judge(asked: GainCheck, verdict: Verdict) -> GainCheck:
    asked = _with(
        asked,
        scores=tuple((s.rotation, s.flip, round(s.correlation, 6)) for s in verdict.scores),
        chance=verdict.chance,
    )
    if verdict.best is None:
        return _with(asked, flag="gain_unchecked", sentence=verdict.reason)
    found = verdict.best.rotation, verdict.best.flip
    asked = _with(asked, found=found, is_inverse=verdict.is_inverse)
    if verdict.is_inverse:
        sentence = f"the file divides where a gain multiplies ({verdict.reason}): give 1 / gain"
        return _with(asked, flag="gain_inverse", sentence=sentence)
    if found == same_as(*asked.configured):
        return _with(asked, sentence=f"the orientation is right ({verdict.reason})")
    sentence = (
        f"the frames ask for gain_rot {found[0]} and gain_flip {found[1]}, not "
        f"{asked.configured[0]} and {asked.configured[1]} ({verdict.reason}): correct the camera's "
        "gain_rotation and gain_flip"
    )
    return _with(asked, flag="gain_orientation", sentence=sentence)


def same_as(rotation: int, flip: int) -> tuple[int, int]:
    """Return the member of `ORIENTATIONS` that a rotation and flip come to: 2, 1 is 0, 2."""
    if (rotation, flip) in ORIENTATIONS:
        return rotation, flip
    return (rotation + 2) % 4, 3 - flip


def _with(check: GainCheck, **changes: Any) -> GainCheck:
    return msgspec.structs.replace(check, **changes)


def _sum_of_frames(movies: Sequence[Path]) -> tuple[np.ndarray, int, bool]:
    """Add raw frames up, one in memory at a time; tell whether they are of EER movies."""
    total: np.ndarray | None = None
    count = 0
    is_eer = False
    for path in movies:
        if count >= ENOUGH_FRAMES:
            break
        with open_movie(path) as movie:
            if total is None:
                total = np.zeros((movie.ny, movie.nx), np.float32)
            if total.shape != (movie.ny, movie.nx):
                raise ValueError(f"{path} is {movie.nx} x {movie.ny} px, unlike the movies before")
            is_eer = movie.format == "eer"
            for _, frame in movie.frames():
                total += frame
                count += 1
    if total is None:
        raise FileNotFoundError("no movie was given")
    return total, count, is_eer


def _middle(total: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the same part of both, symmetric about the middle: turning it is turning the whole."""
    side = min(*total.shape, PART_PX)
    if (total.shape[0] - total.shape[1]) % 2:
        return total, gain  # no square is in the middle of both
    side -= (total.shape[0] - side) % 2
    return _cut(total, side), _cut(gain, side)


def _cut(image: np.ndarray, side: int) -> np.ndarray:
    top, left = ((size - side) // 2 for size in image.shape)
    return image[top : top + side, left : left + side]
