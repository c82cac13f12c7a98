"""Simulated movies for the benchmarks: rendered once, shown as sessions of any length."""

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from algorithms.formats import mrc
from algorithms.simulate.recipe import Recipe, load_recipe
from algorithms.simulate.session import simulate_session
from algorithms.simulate.truth import truth_folder
from services.prep.requests import MotionRequest
from services.prep.tasks import motioncorr
from tests.bench.figures import Bench

SEED = 3
POOL = 4
DIAMETER_A = 260.0
# Of 2 A pixels little is left beyond 6 A; a benchmark wants every micrograph to go all the way.
SETTINGS = ["--set", "proc__select_mics__select_maxval=30"]
SETTINGS += ["--particle-diameter", f"{DIAMETER_A:g}"]


def recipe(n_exposures: int, pace_s: float = 0.0) -> Recipe:
    """Return a session of 1024 x 1024 x 16 movies, the metadata written before the movie."""
    return replace(
        load_recipe("ci"),
        n_exposures=n_exposures,
        pool=POOL,
        pace_s=pace_s,
        order="xml-first",
        exposures_per_square=100,
    )


def pool(bench: Bench) -> Path:
    """Return the folder with the rendered movies, and their truth."""
    raw = bench.common / "pool"
    folder = truth_folder(raw) / "pool"
    if not folder.exists():
        bench.say(f"rendering {POOL} movies")
        simulate_session(recipe(POOL + 1), raw, seed=SEED, realtime=False)
    return folder


def prepare(bench: Bench, raw: Path) -> None:
    """Let a session that will be simulated in `raw` find its movies rendered."""
    shutil.copytree(pool(bench), truth_folder(raw) / "pool")


def session(bench: Bench, raw: Path, n_exposures: int) -> Path:
    """Write a whole session at once."""
    prepare(bench, raw)
    bench.say(f"writing {n_exposures} movies")
    simulate_session(recipe(n_exposures), raw, seed=SEED, realtime=False)
    return raw


def movies(raw: Path) -> list[Path]:
    """Return the movies of a session in order."""
    return sorted(raw.rglob("*_fractions.tiff"))


def motion_request(movie: str, root: str, shape: tuple[int, int, int], gain: str) -> MotionRequest:
    """Return prep's request for a movie `(n_frames, ny, nx)`, paths below a project."""
    values = recipe(1)
    return MotionRequest(
        movie=movie,
        movie_path=movie,
        root=root,
        gain_path=gain or None,
        gain_name=gain or None,
        gain_rotation=0,
        gain_flip=0,
        width_px=shape[2],
        height_px=shape[1],
        n_frames=shape[0],
        pixel_size_A=values.pixel_size_A,
        voltage_kV=values.voltage_kV,
        dose_per_frame_e_A2=values.dose_per_frame_e_A2,
        pre_exposure_e_A2=0.0,
        first_frame=1,
        last_frame=-1,
        bin_factor=1.0,
        bfactor_px2=None,
        dose_weighting=True,
        save_nodw=True,
        save_ps=True,
        dose_per_ps_e_A2=4.0,
        float16=False,
    )


def micrographs(bench: Bench) -> Path:
    """Return a folder with a corrected micrograph (float32) and spectrum of each pool movie.

    They are `m0.mrc` and `m0_PS.mrc` and so on.
    """
    folder = bench.common / "micrographs"
    if folder.exists():
        return folder
    source = pool(bench)
    folder.mkdir()
    values = recipe(1)
    for index, movie in enumerate(sorted(source.glob("*.tiff"))):
        bench.say(f"correcting movie {index + 1} of {POOL}")
        ask = motion_request(
            str(movie), f"m{index}", (values.n_frames, values.ny, values.nx), str(gain(bench))
        )
        output = motioncorr(msgspec.msgpack.encode(ask), folder, folder)
        for name, target in output.files.items():
            (folder / name).rename(folder / target)
    return folder


def gain(bench: Bench) -> Path:
    """Return the gain reference of the pool."""
    pool(bench)
    return bench.common / "pool" / "gain.mrc"


def large_movie(path: Path, shape: tuple[int, int, int], seed: int = 5) -> Path:
    """Write a movie `(n_frames, ny, nx)`: counts of a slowly drifting pattern."""
    from algorithms.simulate.session import encode_tiff

    rng = np.random.default_rng(seed)
    n_frames, ny, nx = shape
    grain = rng.standard_normal((-(-ny // 8), -(-nx // 8))).astype(np.float32)
    pattern = np.repeat(np.repeat(grain, 8, 0), 8, 1)[:ny, :nx] * 0.3 + 1.0
    frames = np.empty(shape, np.uint8)
    for number in range(n_frames):
        moved = np.roll(pattern, (number, -number), (0, 1))
        frames[number] = rng.poisson(np.maximum(moved, 0.05)).astype(np.uint8)
    path.write_bytes(encode_tiff(frames, recipe(1).pixel_size_A))
    return path


def write_gain(path: Path, shape: tuple[int, int], seed: int = 6) -> Path:
    """Write a gain reference."""
    rng = np.random.default_rng(seed)
    mrc.write(path, rng.normal(1.0, 0.04, shape).astype(np.float32), recipe(1).pixel_size_A)
    return path
