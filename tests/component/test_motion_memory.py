"""The memory that the correction of a movie takes, in a process that does nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from algorithms.formats import mrc
from services.jobs.pool import ENVIRONMENT
from tests.system.sessions import environment

N, NY, NX = 24, 1023, 1440  # a sixteenth of a K3 movie
PIXEL_A = 2.0  # frames are averaged over 2 x 2 px


def memory(name: str) -> int:
    """Return VmRSS (now) or VmHWM (the peak) of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def correct(path: str) -> None:
    """Print the memory before and the peak during a movie; a small one before loads the code."""
    import torch

    from algorithms.formats.movie import open_movie
    from algorithms.motion import MotionOptions, correct_movie
    from tests.motionmovies import Frames

    torch.set_num_threads(2)
    options = MotionOptions(
        pixel_size_A=PIXEL_A, voltage_kV=300.0, dose_per_frame=1.0, patches=(5, 5)
    )
    with open_movie(path) as movie:
        small = Frames(np.random.default_rng(1).poisson(1.0, (4, 200, 200)).astype(movie.dtype))
        correct_movie(small, None, options, seed=0)
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here: not of compiling
        correct_movie(movie, np.ones((movie.ny, movie.nx), np.float32), options, seed=0)
    print(json.dumps([before, memory("VmHWM")]))


@pytest.mark.parametrize("kind", ["u1", "f4"])
def test_a_movie_takes_what_its_frames_need(tmp_path: Path, kind: str) -> None:
    frames = np.random.default_rng(2).poisson(1.0, (N, NY, NX)).astype(kind)
    path = tmp_path / "a.mrc"
    mode = {"u1": 0, "f4": 2}[kind]  # a maximum beyond 127: unsigned
    header = bytearray(mrc.header_bytes(frames.shape, PIXEL_A, (0.0, 255.0, 1.0, 1.0)))
    header[12:16] = mode.to_bytes(4, "little")
    path.write_bytes(bytes(header) + frames.tobytes())
    done = subprocess.run(
        [sys.executable, "-m", __name__, path],
        env=environment(**ENVIRONMENT),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    frame = 4 * NY * NX
    # Averages and spectra of all frames, once each, the frames themselves and their middles in the
    # native type, of a float movie the middles only; then sums, images and what is at work: a
    # frame each, for two threads.
    held, middle = (1, N * NY * 1024) if kind == "u1" else (0, 4 * N * NY * 1024)
    most = held * N * NY * NX + middle + N * frame // 2 + N * frame // 12 + 22 * frame
    assert after - before < most, (after - before) / frame


if __name__ == "__main__":
    correct(*sys.argv[1:])
