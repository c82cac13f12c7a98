"""What a report reads from the project folder; None wherever a file is missing or broken.

A report is written at any moment, also in the middle of a session or after somebody has tidied
up, so no file is taken for granted. Source: preprocessing.md 2.12 (tracks), 3.7 (profile and
diagnostic image), 7.4 (coordinates).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithms.formats import mrc, star

UNUSED_FRAME = -9000.0  # RELION marks unused frames by -9999
UNREADABLE = (OSError, ValueError, KeyError, IndexError)


@dataclass(frozen=True, kw_only=True)
class Track:
    """Whole-frame shifts of one movie, in A, relative to the first used frame."""

    x_A: np.ndarray
    y_A: np.ndarray


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
        tables = star.load(path)
        shifts = tables["global_shift"]
        general = tables["general"].columns if "general" in tables else {}
        named = general.get("rlnMicrographOriginalPixelSize")
        pixel_A = float(named[0]) if named else pixel_size_A
        x = shifts.floats("rlnMicrographShiftX")
        y = shifts.floats("rlnMicrographShiftY")
        used = (x > UNUSED_FRAME) & (y > UNUSED_FRAME) & np.isfinite(x) & np.isfinite(y)
        x, y = x[used] * pixel_A, y[used] * pixel_A
        return Track(x_A=x - x[0], y_A=y - y[0])
    except UNREADABLE:
        return None


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
