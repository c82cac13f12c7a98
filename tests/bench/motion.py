"""Motion correction of single movies, with reading and writing of all files, beside RELION's own.

5 x 5 patches, dose weighting and power spectrum on both sides; large movies with two threads each,
small ones with one.
"""

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from algorithms.formats.movie import EerOptions, open_movie
from services.jobs.pool import ENVIRONMENT
from services.prep.requests import MotionRequest
from tests.bench import data, relion
from tests.bench.figures import Bench, median
from tests.eer_files import big_tiff, random_electrons, stream
from tests.system.sessions import environment

K3, EER = (24, 4092, 5760), (16, 4096, 4096)
EER_GROUPING, EER_DIFFERENT, EER_ELECTRONS = 16, 32, 400_000
THREADS = 2
# Sums that are transformed: for usual exposures five, one back, and one group in 4 e/A^2.
SUMS = 5
# Operations per pixel and frame of the second pass: 6 taps along each axis with their weights,
# and one multiplication and addition for every sum.
OPERATIONS = 2 * (6 * 2 + 30) + 2 * (SUMS + 1)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A movie to correct."""

    name: str
    ask: MotionRequest
    shape: tuple[int, int, int]
    movies: list[Path]
    gain: Path | None
    threads: int
    rounds: int


def run(bench: Bench) -> None:
    """Measure seconds per movie beside the floor and RELION."""
    values = data.recipe(1)
    small = (values.n_frames, values.ny, values.nx)
    pool = sorted(data.pool(bench).glob("*.tiff"))
    _case(bench, _new(bench, "1024 x 1024 x 16", small, pool, data.gain(bench), 1))
    bench.say("writing a movie of K3 size")
    movie = data.large_movie(bench.folder / "k3.tiff", K3)
    gain = data.write_gain(bench.folder / "k3_gain.mrc", K3[1:])
    _case(bench, _new(bench, "5760 x 4092 x 24, TIFF LZW", K3, [movie], gain, THREADS))
    bench.say("writing an EER movie")
    movie = _eer_movie(bench.folder / "falcon.eer")
    _case(bench, _new(bench, "4096 x 4096 x 16 of EER", EER, [movie], None, THREADS))
    bench.note(
        "Floor: processor time of decoding, of the full-size transforms (sums, groups, back) and "
        "of moving each native pixel and each sum once per pass, divided by the threads."
    )
    note = relion.missing(relion.MOTION)
    bench.note(
        note
        or "RELION: --use_own, 5 x 5 patches, dose weighting, spectrum; ours also writes float16."
    )


def _new(
    bench: Bench,
    name: str,
    shape: tuple[int, int, int],
    movies: list[Path],
    gain: Path | None,
    threads: int,
) -> Case:
    ask = data.motion_request(str(movies[0]), "m", shape, str(gain or ""))
    ask = msgspec.structs.replace(ask, patches=(5, 5), save_nodw=False, float16=True)
    if movies[0].suffix == ".eer":
        ask = msgspec.structs.replace(
            ask, eer_grouping=EER_GROUPING, eer_upsampling=1, n_frames=shape[0] * EER_GROUPING
        )
    rounds = 3 if bench.full or threads == 1 else 1
    return Case(
        name=name, ask=ask, shape=shape, movies=movies, gain=gain, threads=threads, rounds=rounds
    )


def _case(bench: Bench, case: Case) -> None:
    ours, theirs = [], []
    for number in range(case.rounds):
        bench.say(f"{case.name}: round {number + 1} of {case.rounds}")
        ours.append(_ours(bench, case))
        if not relion.missing(relion.MOTION):
            theirs.append(_peer(bench, case))
    name = f"{case.name}, {case.threads} thread{'s' if case.threads > 1 else ''}"
    spent = median([took["processor_s"] for took in ours])
    bench.floor(f"{name}: processor time", spent, "s", *_floor(case))
    bench.add(
        f"{name}: wall time per frame", median([o["wall_s"] for o in ours]) / case.shape[0], "s"
    )
    bench.goal(f"{name}: peak memory", max(o["peak_MB"] for o in ours), "MB", 3000.0, "goal")
    giga = 1e-9 * case.shape[0] * case.shape[1] * case.shape[2]
    bench.note(
        f"{case.name}: {giga:.2f} Gpx; interpolation {giga * OPERATIONS:.0f} GFLOP, transforms "
        f"{_transforms(case) * _gflop(case):.0f} GFLOP."
    )
    if theirs:
        peer = relion.version()
        wall, busy = (median([t[i] for t in theirs]) for i in (0, 1))
        bench.peer(f"{name}: processor time", spent, "s", busy, peer)
        bench.peer(f"{name}: wall time", median([o["wall_s"] for o in ours]), "s", wall, peer)


def _ours(bench: Bench, case: Case) -> dict[str, float]:
    """Return what prep's task takes for one movie, in a process like a worker."""
    out = bench.folder / "ours"
    out.mkdir(exist_ok=True)
    request = bench.folder / "request"
    request.write_bytes(msgspec.msgpack.encode(case.ask))
    command = [sys.executable, "-m", "tests.bench.motiontask", request, out, case.threads]
    done = subprocess.run(
        list(map(str, command)),
        env=environment(**ENVIRONMENT),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    return json.loads(done.stdout)


def _peer(bench: Bench, case: Case) -> tuple[float, float]:
    """Return RELION's (wall, processor) seconds per movie."""
    folder = bench.folder / f"relion{case.shape[2]}_{case.shape[0]}"
    folder.mkdir(exist_ok=True)
    movies = folder / "Movies"
    if not movies.exists():
        movies.symlink_to(case.movies[0].parent)
    names = [f"Movies/{movie.name}" for movie in case.movies]
    took = [_relion(folder, names[:count], case) for count in {1, len(names)}]
    if len(names) == 1:
        return took[0]
    one, many = sorted(took, key=lambda t: t[1])
    rest = len(names) - 1
    return (many[0] - one[0]) / rest, (many[1] - one[1]) / rest


def _relion(folder: Path, names: list[str], case: Case) -> tuple[float, float]:
    table = relion.movies_star(folder / f"{len(names)}.star", names)
    out = f"Out{len(names)}/"
    command = relion.motion(table, out, case.gain or "", threads=case.threads, save_nodw=False)
    if case.movies[0].suffix == ".eer":
        command += ["--eer_grouping", str(EER_GROUPING)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = relion.run([command], folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _transforms(case: Case) -> int:
    groups = round(case.shape[0] * case.ask.dose_per_frame_e_A2 / case.ask.dose_per_ps_e_A2)
    return SUMS + 1 + groups


def _gflop(case: Case) -> float:
    size = case.shape[1] * case.shape[2]
    return 2.5e-9 * size * float(np.log2(size))


def _floor(case: Case) -> tuple[float, str]:
    """Return the least processor seconds of a movie, and of what they are made up."""
    begun = time.process_time()
    eer = EerOptions(grouping=case.ask.eer_grouping)
    with open_movie(case.movies[0], eer=eer, threads=1) as movie:
        n_bytes = sum(frame.nbytes for _, frame in movie.frames())
    decode = time.process_time() - begun
    image = torch.zeros(
        case.shape[1] + case.shape[1] % 4 + 4 * (case.shape[1] == 4092), case.shape[2]
    )
    torch.fft.rfft2(image)
    begun = time.process_time()
    torch.fft.rfft2(image)
    transform = (time.process_time() - begun) * _transforms(case)
    begun = time.process_time()
    image.clone()
    per_byte = (time.process_time() - begun) / (2 * image.nbytes)
    groups = _transforms(case) - SUMS - 1
    moved = 2 * n_bytes + image.nbytes * (2 + 2 * SUMS * groups)
    parts = f"decode {decode:.2f} + transforms {transform:.2f} + memory {moved * per_byte:.2f} s"
    return decode + transform + moved * per_byte, parts


def _eer_movie(path: Path) -> Path:
    """Write an EER movie: raw frames of chance, the same ones again and again."""
    rng = np.random.default_rng(9)
    n_pixels = EER[1] * EER[2]
    frames = [
        stream(random_electrons(rng, EER_ELECTRONS, n_pixels), n_pixels)
        for _ in range(EER_DIFFERENT)
    ]
    repeats = EER[0] * EER_GROUPING // EER_DIFFERENT
    path.write_bytes(big_tiff(frames * repeats, EER[1:]))
    return path
