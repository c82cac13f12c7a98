"""The polynomial of local motion: fitted, robust, silent on noise; and RELION's own files."""

from dataclasses import replace

import numpy as np
import pytest

from algorithms.formats import star
from algorithms.motion.model import LocalModel, Observations, fit_model, frame_planes
from algorithms.motion.patches import frame_groups
from algorithms.motion.starfile import read_motion
from tests.shared import shared

Z = np.arange(24.0)
AXIS = (np.arange(5) + 0.5) / 5 - 0.5
X, Y = (v.ravel() for v in np.meshgrid(AXIS, AXIS))


def true_model(seed: int, size: float = 1.0) -> LocalModel:
    rng = np.random.default_rng(seed)
    by_time = rng.normal(0, size, (2, 6, 1)) * np.array([0.15, -0.004, 5e-5])
    return LocalModel(coefficients=by_time.reshape(2, 18), rmsd_px=np.zeros(2))


def observed(model: LocalModel, noise: float, seed: int = 0) -> Observations:
    z, x = np.meshgrid(Z, X)
    y = np.repeat(Y[:, None], len(Z), 1)
    rng = np.random.default_rng(seed)
    shifts = model.shift(z, x, y) + rng.normal(0, noise, (25, 24, 2))
    shifts += rng.normal(0, 0.3, (25, 1, 2))  # a constant per patch means nothing
    return Observations(x=X, y=Y, z=Z, shifts=shifts, weight=np.ones(25))


def distance(a: LocalModel, b: LocalModel) -> float:
    """Largest difference of two models over the field and the frames."""
    z, y, x = np.meshgrid(Z, np.linspace(-0.5, 0.5, 11), np.linspace(-0.5, 0.5, 11))
    return float(np.linalg.norm(a.shift(z, x, y) - b.shift(z, x, y), axis=-1).max())


def test_found_exactly_without_noise() -> None:
    model = true_model(1)
    found, used = fit_model(observed(model, 0.0))
    assert found is not None and used.all()
    assert distance(found, model) < 1e-4
    assert (found.rmsd_px < 1e-5).all()


def test_wrong_shifts_and_wrong_patches_do_not_matter() -> None:
    model = true_model(2)
    seen = observed(model, 0.05)
    shifts = seen.shifts.copy()
    rng = np.random.default_rng(5)
    shifts[rng.random((25, 24)) < 0.05] += 8.0
    shifts[7] = rng.normal(0, 6.0, (24, 2))
    shifts[19] += np.linspace(0, 12, 24)[:, None]
    found, used = fit_model(replace(seen, shifts=shifts))
    assert found is not None
    assert not used[7] and not used[19] and used.sum() >= 20
    clean, _ = fit_model(seen)
    assert clean is not None
    assert distance(found, model) < 0.25
    assert distance(clean, model) < 0.2


def test_noise_alone_makes_no_model() -> None:
    still = LocalModel(coefficients=np.zeros((2, 18)), rmsd_px=np.zeros(2))
    for seed in range(20):
        found, _ = fit_model(observed(still, 1.0, seed))
        # Least squares would move the corners by more than a px.
        assert found is None or distance(found, still) < 0.5


def test_patches_without_weight_are_not_used() -> None:
    model = true_model(3)
    seen = observed(model, 0.01)
    weight = np.ones(25)
    weight[4] = 0.0
    shifts = seen.shifts.copy()
    shifts[4] = 50.0
    found, used = fit_model(replace(seen, shifts=shifts, weight=weight))
    assert found is not None and not used[4]
    assert distance(found, model) < 0.05


def test_too_little_or_too_much_gives_none() -> None:
    seen = observed(true_model(4), 0.1)
    few = Observations(x=X[:3], y=Y[:3], z=Z, shifts=seen.shifts[:3], weight=np.ones(3))
    assert fit_model(few)[0] is None
    wild = np.random.default_rng(1).normal(0, 30.0, seen.shifts.shape)
    assert fit_model(replace(seen, shifts=seen.shifts + wild))[0] is None


def test_planes_are_the_whole_shift() -> None:
    model, shifts = true_model(6), np.random.default_rng(2).normal(0, 3, (24, 2))
    planes = frame_planes(model, shifts)
    x, y = 0.31, -0.42
    space = np.array([1, x, x * x, y, y * y, x * y])
    wanted = shifts + model.shift(Z, np.full(24, x), np.full(24, y))
    np.testing.assert_allclose(planes @ space, wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("frames", "size", "sizes"),
    [
        (24, 1, [1] * 24),
        (24, 3, [3] * 8),
        (26, 3, [3, 3, 3, 3, 3, 3, 4, 4]),
        (7, 2, [2, 2, 3]),
        (5, 4, [5]),
    ],
)
def test_frames_left_over_go_to_the_last_groups(frames: int, size: int, sizes: list[int]) -> None:
    groups = frame_groups(frames, size)
    assert [len(g) for g in groups] == sizes
    assert [f for g in groups for f in g] == list(range(frames))


def test_relions_files_are_read() -> None:
    folder = shared("data/star/relion_tutorial/MotionCorr/job002/Movies")
    for path in sorted(folder.glob("*_frameImage.star"))[:3]:
        tables = star.load(path)
        saved = read_motion(tables)
        assert saved.model is not None and saved.binning == 1.0
        assert saved.shift_px(0, 100.0, 200.0).tolist() == [0.0, 0.0]
        # What RELION saw in its patches is what its model says, to the noise of a patch.
        seen = tables["local_shift"]
        frame = seen.ints("rlnMicrographFrameNumber") - 1
        x, y = seen.floats("rlnCoordinateX"), seen.floats("rlnCoordinateY")
        _, ny, nx = saved.shape
        fitted = saved.model.shift(frame.astype(float), x / nx - 0.5, y / ny - 0.5)
        found = np.column_stack([seen.floats(f"rlnMicrographShift{axis}") for axis in "XY"])
        rest = np.square(found - fitted).sum(1).mean() / np.square(found).sum(1).mean()
        assert rest < 0.8
        assert np.corrcoef(found.ravel(), fitted.ravel())[0, 1] > 0.5


def test_frames_that_were_not_used_have_the_shift_before_them() -> None:
    general = {
        "rlnImageSizeX": ["64"],
        "rlnImageSizeY": ["48"],
        "rlnImageSizeZ": ["4"],
        "rlnMicrographMovieName": ["a.mrcs"],
        "rlnMicrographStartFrame": ["2"],
    }
    shifts = {
        "rlnMicrographFrameNumber": np.arange(1, 5),
        "rlnMicrographShiftX": [-9999.0, 0.0, 1.5, -9999.0],
        "rlnMicrographShiftY": [-9999.0, 0.0, -2.5, -9999.0],
    }
    tables = {
        "general": star.Table.of(general, loop=False),
        "global_shift": star.Table.of(shifts),
    }
    saved = read_motion(tables)
    assert saved.shifts_px.tolist() == [[0.0, 0.0], [0.0, 0.0], [1.5, -2.5], [1.5, -2.5]]
    del tables["global_shift"]
    with pytest.raises(ValueError, match="global_shift"):
        read_motion(tables)
