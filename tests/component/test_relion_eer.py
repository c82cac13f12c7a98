"""RELION corrects the same EER movie: same electrons, same way up, same gain."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import tifffile

from algorithms.formats import mrc, star
from algorithms.formats.gain import load_gain
from algorithms.formats.movie import EerOptions, open_movie
from algorithms.simulate.eer import encode_eer
from tests.relion import shifts

SIDE, N_FRAMES, RAW = 4096, 4, 3  # RELION reads frames of this size only

pytestmark = [
    pytest.mark.relion,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("relion_run_motioncorr") is None, reason="RELION is not here"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a movie of bright squares that do not move, and a gain that is like no turn of it."""
    folder = tmp_path_factory.mktemp("eer")
    rng = np.random.default_rng(1)
    rate = np.full((SIDE, SIDE), 0.02, np.float32)
    for y, x, side in rng.integers((0, 0, 12), (SIDE - 80, SIDE - 80, 80), (300, 3)):
        rate[y : y + side, x : x + side] += 0.15
    frames = rng.poisson(np.minimum(rate, 0.3), (N_FRAMES, SIDE, SIDE)).astype(np.uint8)
    (folder / "a.eer").write_bytes(encode_eer(frames, RAW, rng))
    gain = 1 + 0.05 * rng.standard_normal((SIDE, SIDE), np.float32)
    gain[3000:] *= 1.2
    gain[:, :1000] *= 1.1
    mrc.write(folder / "inverse.mrc", gain, 1.0)
    tifffile.imwrite(folder / "plain.gain", gain, photometric="minisblack", metadata=None)
    movies = {"rlnMicrographMovieName": ["a.eer"], "rlnOpticsGroup": [1]}
    optics = {
        "rlnOpticsGroupName": ["one"],
        "rlnOpticsGroup": [1],
        "rlnMicrographOriginalPixelSize": [1.0],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
    }
    tables = {"optics": star.Table.of(optics), "movies": star.Table.of(movies)}
    star.save(folder / "movies.star", tables)
    return folder


@pytest.mark.parametrize("gain", ["inverse.mrc", "plain.gain"])
def test_the_sum_is_that_of_relion(folder: Path, gain: str):
    command = ["relion_run_motioncorr", "--i", "movies.star", "--o", f"{gain}_out/", "--use_own"]
    command += ["--eer_grouping", str(RAW), "--gainref", gain, "--skip_defect", "--j", "2"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    theirs = mrc.read(folder / f"{gain}_out/a.mrc")
    moved = shifts(star.load(folder / f"{gain}_out/a.star")["global_shift"])
    weight = load_gain(folder / gain, (SIDE, SIDE), is_eer=True)
    total = np.zeros((SIDE, SIDE // 2 + 1), np.complex64)
    ky, kx = scipy.fft.fftfreq(SIDE)[:, None], scipy.fft.rfftfreq(SIDE)[None, :]
    with open_movie(folder / "a.eer", eer=EerOptions(grouping=RAW)) as movie:
        for (_, frame), (dx, dy) in zip(movie.frames(), moved, strict=True):
            turn = np.exp(-2j * np.pi * dy * ky) * np.exp(-2j * np.pi * dx * kx)
            total += scipy.fft.rfft2(frame * weight) * turn.astype(np.complex64)
    ours = scipy.fft.irfft2(total, (SIDE, SIDE))
    assert ours.mean() == pytest.approx(theirs.mean(), rel=1e-5)
    assert np.std(ours - theirs) < 0.01 * np.std(theirs)
