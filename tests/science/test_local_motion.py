"""Local motion: the standard movie of section 9.2, and what goes with it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from algorithms import fourier
from algorithms.formats.star import dumps, loads
from algorithms.motion import CorrectedMovie, MotionOptions, correct_movie, passes
from algorithms.motion import dose as dose_module
from algorithms.motion.defects import BadPixels
from algorithms.motion.dose import LowRank
from algorithms.motion.passes import (
    Chunk,
    Moves,
    add_blocks,
    add_moved,
    add_spectra,
    shared_run,
)
from algorithms.motion.starfile import motion_star, read_motion
from algorithms.motion.threads import Threads
from tests.motionmovies import Frames, Standard, displacement, errors, grid, standard_movie

OPTIONS = MotionOptions(
    pixel_size_A=1.0,
    voltage_kV=300.0,
    dose_per_frame=1.0,
    patches=(5, 5),
    save_nodw=True,
    even_odd=True,
)


def applied(found: CorrectedMovie) -> np.ndarray:
    """Shifts `[n, 9, 9, 2]` that were applied at the places of `grid()`."""
    x, y = grid()
    shifts = np.broadcast_to(found.shifts_px[:, None, None], (len(found.shifts_px), *x.shape, 2))
    if found.field is None or found.field.model is None:
        return shifts
    local = [found.field.model.shift(np.full(x.shape, float(f)), x, y) for f in range(len(shifts))]
    return shifts + np.stack(local)


@pytest.fixture(scope="module")
def movie() -> Standard:
    return standard_movie(1)


@pytest.fixture(scope="module")
def corrected(movie: Standard) -> CorrectedMovie:
    return correct_movie(Frames(movie.frames), None, OPTIONS, seed=3, threads=2)


def test_standard_movie(movie: Standard, corrected: CorrectedMovie) -> None:
    # RELION 5.0.1: 0.178 and 0.083 px.
    total, centred = errors(applied(corrected))
    assert total <= 0.10 and centred <= 0.045
    assert corrected.field is not None and corrected.field.used.sum() >= 24
    assert sorted(map(tuple, corrected.hot_pixels.tolist())) == movie.hot


@pytest.mark.slow
def test_standard_movies_of_five_seeds() -> None:
    found = []
    for seed in range(11, 16):
        frames = Frames(standard_movie(seed).frames)
        options = replace(OPTIONS, save_nodw=False, even_odd=False)
        grouped = replace(options, group_frames=3)
        found.append(
            [errors(applied(correct_movie(frames, None, o, seed=0))) for o in (options, grouped)]
        )
    mean, worst = np.mean(found, axis=0), np.max(found, axis=0)
    assert (mean[:, 0] <= 0.15).all() and (mean[:, 1] <= 0.075).all()
    assert (worst[:, 0] <= 1.3 * 0.15).all() and (worst[:, 1] <= 1.3 * 0.075).all()


def test_the_file_gives_the_shifts_that_were_applied(corrected: CorrectedMovie) -> None:
    for bin_factor in (1.0, 2.0):
        options = replace(OPTIONS, bin_factor=bin_factor)
        tables = motion_star(corrected, options, movie_name="Movies/a.tif", version="1")
        assert list(tables) == [
            "general",
            "global_shift",
            "local_motion_model",
            "hot_pixels",
            "local_shift",
        ]
        saved = read_motion(loads(dumps(tables)))
        x, y = ((v + 0.5) * n for v, n in zip(grid(), (1920, 1364), strict=True))
        found = np.stack([saved.shift_px(f, x, y) for f in range(24)])
        assert np.abs(found - applied(corrected)).max() < 1e-3
        seen = loads(dumps(tables))["local_shift"]
        assert len(seen) == 25 * 24
        assert (
            seen.ints("rlnMicrographFrameNumber").tolist() == np.repeat(range(1, 25), 25).tolist()
        )
        assert np.abs(seen.floats("rlnMicrographShiftX")[:25]).max() == 0.0


def test_coefficients_of_relion_are_of_the_binned_image(corrected: CorrectedMovie) -> None:
    options = replace(OPTIONS, bin_factor=2.0)
    tables = motion_star(corrected, options, movie_name="Movies/a.tif", version="1")
    ours = read_motion(tables)
    del tables["general"].columns["rlnColdstreamVersion"]
    theirs = read_motion(tables)
    assert ours.model is not None and theirs.model is not None
    np.testing.assert_allclose(theirs.model.coefficients, 2 * ours.model.coefficients)


def test_halves_add_up(corrected: CorrectedMovie) -> None:
    even, odd, whole = corrected.image_even, corrected.image_odd, corrected.image_nodw
    assert even is not None and odd is not None and whole is not None
    assert float((even + odd - whole).abs().max() / whole.abs().max()) < 1e-5
    assert float(even.mean() / odd.mean()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("n", "dose"), [(24, 1.0), (12, 4.0)])
def test_few_sums_weigh_like_one_per_frame(
    n: int, dose: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    movie = Frames(standard_movie(7, shape=(400, 512)).frames[:n])
    options = replace(OPTIONS, patches=(3, 3), dose_per_frame=dose)
    found = correct_movie(movie, None, options, seed=3)
    monkeypatch.setattr(dose_module, "_ERROR", 1e-12)
    assert len(dose_module.low_rank(n, dose, 300.0, 0.7).frames) > 8
    exact = correct_movie(movie, None, options, seed=3)
    assert found.image_nodw is not None
    apart = found.image - exact.image
    assert float(apart.square().mean().sqrt()) < 1e-3 * float(exact.image.std())
    mean = float(found.image_nodw.mean()) / n
    assert float(found.image.mean()) == pytest.approx(math.sqrt(n) * mean, rel=1e-4)


def test_noise_of_the_sums_is_flat() -> None:
    # The specimen ends at 0.15 cycles per px: beyond there is noise only.
    frames = standard_movie(8, shape=(600, 640), counts=4.0, local=0.0).frames[:12]
    found = correct_movie(Frames(frames), None, replace(OPTIONS, patches=(1, 1)), seed=0)
    k = fourier.radius((600, 640))
    for image, variance in ((found.image, 4.0), (found.image_nodw, 48.0)):
        assert image is not None
        power = fourier.rfft2(image).abs().square() * 600 * 640 / variance
        for low, high in ((0.17, 0.25), (0.25, 0.35), (0.35, 0.42), (0.42, 0.48)):
            ring = (k > low) & (k < high)
            noise = 3.0 / math.sqrt(int(ring.sum()))
            assert float(power[ring].mean()) == pytest.approx(1.0, abs=0.01 + noise)


@pytest.mark.parametrize("counts", [1.0, 0.2])
def test_local_model_of_a_specimen_that_is_rigid_is_harmless(counts: float) -> None:
    movie = standard_movie(5, shape=(768, 1024), counts=counts, local=0.0)
    options = replace(OPTIONS, even_odd=False, save_nodw=False)
    found = correct_movie(Frames(movie.frames), None, options, seed=0)
    local = applied(found) - found.shifts_px[:, None, None]
    assert np.linalg.norm(local, axis=-1).max() < 0.3
    assert errors(applied(found), local=0.0)[1] < (0.1 if counts == 1.0 else 0.3)


@pytest.mark.parametrize("threads", [1, 3])
def test_same_files_with_any_number_of_threads(threads: int) -> None:
    movie = Frames(standard_movie(6, shape=(500, 620)).frames[:8])
    options = replace(OPTIONS, patches=(3, 3))
    first = correct_movie(movie, None, options, seed=1, threads=2)
    streamed = replace(options, hold_bytes=0)
    for other in (options, streamed):
        again = correct_movie(movie, None, other, seed=1, threads=threads)
        for name in ("image", "image_nodw", "image_even", "image_odd", "power_spectrum"):
            assert torch.equal(getattr(first, name), getattr(again, name)), name
        assert np.array_equal(first.shifts_px, again.shifts_px)
        assert first.field is not None and again.field is not None
        assert np.array_equal(first.field.observed_px, again.field.observed_px)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_machine_code_and_torch_agree(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    n, ny, nx = 3, 150, 700
    raw = torch.from_numpy(rng.poisson(5.0, (n, ny, nx)).astype(dtype))
    gain = torch.from_numpy(rng.uniform(0.5, 2.0, (ny, nx)).astype(np.float32))
    y, x = np.array([0, 3, 3, 149]), np.array([699, 0, 350, 20])
    bad = BadPixels(
        y=y,
        x=x,
        row_start=np.searchsorted(y, np.arange(ny + 1)),
        values=rng.uniform(0, 9, (n, 4)).astype(np.float32),
    )
    planes = rng.normal(size=(n, 2, 6)) * 3.0
    planes[:, :, 0] += [[-12.7, 8.4]]
    weights = rng.normal(size=(4, n)).astype(np.float32)
    moves = Moves(planes=planes, weights=weights, run=shared_run(planes, nx))
    found = {}
    for torch_only in (False, True):
        if torch_only:
            monkeypatch.setattr(passes, "kernels", lambda _: None)
        elif passes.kernels(torch.device("cpu")) is None:
            pytest.skip("Numba is not installed")
        out = torch.zeros(4, 154, 704)
        add_moved(Chunk(raw=raw, gain=gain, bad=bad), moves, out, Threads(1, None))
        small, total = torch.empty(n, 50, 232), torch.zeros(ny, nx)
        add_blocks(raw, gain, 3, small, total, Threads(1, None))
        spectra = fourier.rfft2(out)
        ranks = low_rank_of(spectra)
        factors = (torch.linspace(1, 2, 154), torch.linspace(1, 3, 353))
        frequencies = fourier.frequencies((154, 704))
        joined = add_spectra(spectra, ranks, frequencies, factors, Threads(1, None))
        found[torch_only] = (out, small, total, joined)
    for machine, twin in zip(found[False], found[True], strict=True):
        scale = float(machine.abs().max())
        apart = (machine - twin).abs() / scale
        # Where a fraction falls on a whole pixel rounding decides between two runs of taps.
        assert float(apart.mean()) < 1e-6
        assert float((apart > 1e-4).float().mean()) < 1e-4


def low_rank_of(spectra: torch.Tensor) -> LowRank:
    tables = np.random.default_rng(1).uniform(0, 1, (len(spectra), 40))
    return LowRank(frames=np.ones((len(spectra), 3)), tables=tables, step=0.02, error=0.0)


def test_true_displacement_starts_at_zero() -> None:
    x, y = grid()
    assert not displacement(0, x, y).any()
