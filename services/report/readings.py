"""What a report reads from the project folder; None wherever a file is missing or broken.

A report is written at any moment, also in the middle of a session or after somebody has tidied
up, so no file is taken for granted. Source: preprocessing.md 2.12 (motion), 3.7 (profile and
diagnostic image), 7.4 (coordinates).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithms.formats import mrc, star
from algorithms.formats.star import Table

UNUSED_FRAME = -9000.0  # RELION marks unused frames by -9999
UNREADABLE = (OSError, ValueError, KeyError, IndexError)


@dataclass(frozen=True, kw_only=True)
class Track:
    """Whole-frame shifts of one movie, in A, relative to the first used frame, whose number is."""

    x_A: np.ndarray
    y_A: np.ndarray
    first_frame: int = 1


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Motion of one movie, in A; row 0 of the image is at the bottom.

    Parameters
    ----------
    track
        Of the whole frame.
    width_A, height_A
        Of the image.
    centres_A
        Centres of the patches `[p, 2]` (x, y).
    patches_A
        What each patch showed beyond the whole frame, `[g, 2]` each.
    models_A
        What the local model says there for every frame `[n, 2]`, None without a model.
    """

    track: Track
    width_A: float
    height_A: float
    centres_A: np.ndarray
    patches_A: Sequence[np.ndarray]
    models_A: Sequence[np.ndarray | None]

    @property
    def global_A(self) -> np.ndarray:
        """The track of the whole frame `[n, 2]`."""
        return np.column_stack([self.track.x_A, self.track.y_A])


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One-dimensional CTF profiles over spatial frequency `s` (1/A), all of one length."""

    s: np.ndarray
    rotational: np.ndarray
    epa: np.ndarray
    model: np.ndarray
    agreement: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Particle centres in px of the micrograph."""

    x_px: np.ndarray
    y_px: np.ndarray


def read_track(path: Path, pixel_size_A: float) -> Track | None:
    """Return the track of a per-movie STAR file, or None.

    Parameters
    ----------
    path
        Per-movie STAR file with the block `global_shift`.
    pixel_size_A
        Pixel of the movie, used where the file does not name it.
    """
    try:
        return _track(star.load(path), pixel_size_A)
    except UNREADABLE:
        return None


def _track(tables: Mapping[str, Table], pixel_size_A: float) -> Track:
    shifts = tables["global_shift"]
    general = tables["general"].columns if "general" in tables else {}
    named = general.get("rlnMicrographOriginalPixelSize")
    pixel_A = float(named[0]) if named else pixel_size_A
    x = shifts.floats("rlnMicrographShiftX")
    y = shifts.floats("rlnMicrographShiftY")
    frames = shifts.ints("rlnMicrographFrameNumber")
    used = (x > UNUSED_FRAME) & (y > UNUSED_FRAME) & np.isfinite(x) & np.isfinite(y)
    x, y = x[used] * pixel_A, y[used] * pixel_A
    return Track(x_A=x - x[0], y_A=y - y[0], first_frame=int(frames[used][0]))


def read_movie_motion(path: Path) -> Motion | None:
    """Return all motion in a per-movie STAR file, or None."""
    from algorithms.motion.starfile import read_motion  # loads torch, which a report does not need

    try:
        tables = star.load(path)
        saved = read_motion(tables)
        track = _track(tables, saved.pixel_size_A)
        _, height_px, width_px = saved.shape
        centres, patches = _patches(tables)
        frames = np.arange(len(track.x_A), dtype=float)
        models: list[np.ndarray | None] = []
        for x, y in centres:
            place = (
                np.full_like(frames, x / width_px - 0.5),
                np.full_like(frames, y / height_px - 0.5),
            )
            models.append(
                saved.model.shift(frames, *place) * saved.pixel_size_A if saved.model else None
            )
    except UNREADABLE:
        return None
    return Motion(
        track=track,
        width_A=width_px * saved.pixel_size_A,
        height_A=height_px * saved.pixel_size_A,
        centres_A=centres * saved.pixel_size_A,
        patches_A=[patch * saved.pixel_size_A for patch in patches],
        models_A=models,
    )


def _patches(tables: Mapping[str, Table]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the centres of patches `[p, 2]` and their shifts `[g, 2]` each, in px of the movie."""
    table = tables.get("local_shift")
    if table is None or not len(table):
        return np.zeros((0, 2)), []
    at = np.column_stack([table.floats("rlnCoordinateX"), table.floats("rlnCoordinateY")])
    names = ("rlnMicrographFrameNumber", "rlnMicrographShiftX", "rlnMicrographShiftY")
    frame, *shift = (table.floats(name) for name in names)
    shifts = np.column_stack(shift)
    centres, which = np.unique(at, axis=0, return_inverse=True)
    found = []
    for index in range(len(centres)):
        own = np.flatnonzero(which.ravel() == index)
        found.append(shifts[own[np.argsort(frame[own], kind="stable")]])
    return centres, found


def read_profile(ctf_image: Path) -> Profile | None:
    """Return the profile `<root>_avrot.txt` beside `<root>.ctf`, or None."""
    path = ctf_image.with_name(ctf_image.name.removesuffix(".ctf") + "_avrot.txt")
    try:
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        table = np.asarray([line.split() for line in lines[:5]], dtype=np.float64)
        s, rotational, epa, model, agreement = table
    except UNREADABLE:
        return None
    return Profile(s=s, rotational=rotational, epa=epa, model=model, agreement=agreement)


def read_coordinates(path: Path) -> Coordinates | None:
    """Return the coordinates of a pick file, or None; an empty table is no particles."""
    try:
        tables = star.load(path)
        if not tables:
            return Coordinates(x_px=np.zeros(0), y_px=np.zeros(0))
        table = next(iter(tables.values()))
        if len(table) == 0:
            return Coordinates(x_px=np.zeros(0), y_px=np.zeros(0))
        x_px = table.floats("rlnCoordinateX")
        y_px = table.floats("rlnCoordinateY")
    except UNREADABLE:
        return None
    return Coordinates(x_px=x_px, y_px=y_px)


def read_image(path: Path, section: int = 0) -> np.ndarray | None:
    """Return one finite two-dimensional image [ny, nx] of an MRC file, or None."""
    try:
        data = np.asarray(mrc.read(path), dtype=np.float32)
        image = data[section] if data.ndim == 3 else data
    except UNREADABLE:
        return None
    return image if image.size and np.isfinite(image).all() else None


def read_stack(path: Path, count: int) -> list[np.ndarray]:
    """Return up to `count` images [n, n] spread over a particle stack; none if unreadable."""
    try:
        data = np.asarray(mrc.read(path), dtype=np.float32)
    except UNREADABLE:
        return []
    if data.ndim == 2:
        data = data[None]
    # Picks stand in the order of their figure of merit: neither the best nor the worst are typical.
    count = min(count, len(data))
    wanted = ((np.arange(count) + 0.5) * len(data) / max(count, 1)).astype(int)
    return [data[index] for index in wanted if np.isfinite(data[index]).all()]


def without_suffix(name: str) -> str:
    """Return a RELION image name without its format suffix (`x_PS.ctf:mrc` is `x_PS.ctf`)."""
    return name.removesuffix(":mrc").removesuffix(":mrcs")
