"""Motion correction of single movies on one thread, with reading and writing of all files."""

import time
from pathlib import Path

import msgspec
import numpy as np
import torch

from algorithms.formats.movie import open_movie
from services.prep.tasks import motioncorr
from tests.bench import data, relion
from tests.bench.figures import Bench, median

LARGE = (8, 4096, 4096)


def run(bench: Bench) -> None:
    """Measure seconds per movie beside the floor and RELION."""
    small = sorted(data.pool(bench).glob("*.tiff"))
    values = data.recipe(1)
    shape = (values.n_frames, values.ny, values.nx)
    _size(bench, small, shape, data.gain(bench))
    bench.say("writing a large movie")
    large = data.large_movie(bench.folder / "large.tiff", LARGE)
    gain = data.write_gain(bench.folder / "large_gain.mrc", LARGE[1:])
    _size(bench, [large], LARGE, gain)
    bench.note("Floor: decoding every frame and one forward transform of it, one thread.")
    note = relion.missing(relion.MOTION)
    bench.note(
        note
        or "RELION: --use_own --j 1, whole-frame alignment, dose weighting, both sums and the "
        "spectrum; its time with one movie is taken off the time with more where there are more."
    )


def _size(bench: Bench, movies: list[Path], shape: tuple[int, int, int], gain: Path) -> None:
    frames, height, width = shape
    name = f"{width} x {height} x {frames}"
    bench.say(f"{name}: ours")
    ours = median([_ours(bench, movie, shape, gain) for movie in movies])
    floor = median([_floor(movie) for movie in movies])
    bench.floor(f"{name}, per movie", ours, "s", floor, "decode + one rfft2 a frame")
    if not relion.missing(relion.MOTION):
        bench.say(f"{name}: RELION")
        peer = _peer(bench.folder / f"relion{width}", movies, gain)
        bench.peer(f"{name}, per movie", ours, "s", peer, relion.version())


def _ours(bench: Bench, movie: Path, shape: tuple[int, int, int], gain: Path) -> float:
    """Return the seconds of prep's task for one movie."""
    out = bench.folder / "ours"
    out.mkdir(exist_ok=True)
    ask = data.motion_request(str(movie), movie.stem, shape, str(gain))
    begun = time.perf_counter()
    motioncorr(msgspec.msgpack.encode(ask), out, out)
    return time.perf_counter() - begun


def _floor(movie: Path) -> float:
    """Return the seconds that reading and one transform of every frame take."""
    begun = time.perf_counter()
    with open_movie(movie) as opened:
        for _, frame in opened.frames():
            torch.fft.rfft2(torch.from_numpy(frame.astype(np.float32)))
    return time.perf_counter() - begun


def _peer(folder: Path, movies: list[Path], gain: Path) -> float:
    """Return RELION's seconds per movie."""
    folder.mkdir()
    (folder / "Movies").symlink_to(movies[0].parent)
    names = [f"Movies/{movie.name}" for movie in movies]
    one = relion.movies_star(folder / "one.star", names[:1])
    first = relion.run([relion.motion(one, "One/", gain)], folder)
    if len(names) == 1:
        return first
    all_of_them = relion.movies_star(folder / "all.star", names)
    return (relion.run([relion.motion(all_of_them, "All/", gain)], folder) - first) / (
        len(names) - 1
    )
