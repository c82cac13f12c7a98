"""A session of EER movies, from the camera's files to particles."""

from pathlib import Path

import pytest

from algorithms.formats import mrc, star
from algorithms.simulate.truth import read_movie_truth, truth_folder
from tests.relion import shifts, spread
from tests.system import sessions

N_FRAMES, RAW = 20, 20


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two movies of 400 raw frames, 0.05 e/A^2 each."""
    return sessions.simulate(
        tmp_path_factory.mktemp("eer") / "Simulated",
        n_exposures=2,
        pool=0,
        n_frames=N_FRAMES,
        dose_per_frame_e_A2=1.0,
        pixel_size_A=3.0,
        n_particles=10,
        eer_raw_frames=RAW,
    )


@pytest.mark.parametrize("upsampling", [1, 2])
def test_eer_movies_are_corrected(raw: Path, tmp_path: Path, upsampling: int):
    """Fractions of 1 e/A^2 are made of them; drift and image are what they should be."""
    more = [
        "--set",
        f"prep__motioncorr__other_args=--do_at_most $$do_at_most --eer_upsampling {upsampling}",
    ]
    done = sessions.process(raw, tmp_path / "project", *more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sessions.status(tmp_path / "project")["stages"]["proc"]["done"] == 2
    found = sorted(tmp_path.glob("project/MotionCorr/job002/Movies/**/*_EER.star"))
    assert len(found) == 2
    for path in found:
        tables = star.load(path)
        general = tables["general"]
        assert general.columns["rlnEERGrouping"] == [str(RAW)]
        assert general.columns["rlnEERUpsampling"] == [str(upsampling)]
        assert general.floats("rlnMicrographDoseRate") == [1.0]
        assert general.floats("rlnMicrographOriginalPixelSize") == [3.0 / upsampling]
        assert general.floats("rlnImageSizeX") == [384 * upsampling]
        truth = read_movie_truth(truth_folder(raw) / path.stem.removesuffix("_EER"))
        track = shifts(tables["global_shift"]) / upsampling
        assert len(track) == N_FRAMES
        assert spread(track + truth.global_shift_px) < 0.35
        image = mrc.read(path.with_suffix(".mrc"))
        assert image.shape == (384 * upsampling,) * 2
        plain = mrc.read(path.with_name(f"{path.stem}_noDW.mrc")).astype(float)
        # The sum of counts, a fifth of which coincide with others in so few raw frames.
        expected = N_FRAMES * 1.0 * (3.0 / upsampling) ** 2
        assert 0.7 * expected < plain.mean() < expected
