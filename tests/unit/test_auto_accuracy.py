"""Accuracies of poses in three dimensions: what noise and shape make of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.orientation import euler
from algorithms.refine import files
from algorithms.refine.accuracy import ROTATIONS, measure
from algorithms.refine.auto.begin import begun
from algorithms.refine.auto.rules import Rules
from algorithms.refine.auto.settings import Settings
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.tables import reference_of
from algorithms.refine.types import DataSet, Model, Options
from tests.volume_data import blob_map, write_map, write_particles

BOX, PIXEL_A, N = 24, 5.0, 60
OPTIONS = Options(
    n_classes=1, iterations=999, particle_diameter_A=100.0, tau2_fudge=1.0, ini_high_A=0.0
)


@pytest.fixture
def state(tmp_path: Path):
    def make(volume: Tensor) -> tuple[DataSet, Model]:
        truth = write_particles(tmp_path, volume, N, box=BOX, pixel_A=PIXEL_A, snr=0.2)
        settings = Settings(
            reference=write_map(tmp_path / "reference.mrc", truth.volume, PIXEL_A),
            rules=Rules(particle_diameter_A=100.0),
            sampling=Sampling3D(
                healpix_order=1, psi_step_deg=30.0, offset_range_A=25.0, offset_step_A=10.0
            ),
        )
        data = files.read_data(tmp_path / "particles.star", tmp_path)
        model, _ = begun(data, OPTIONS, settings, ["group"] * 4, [30, 30])
        model.noise[:] = 1.0 / (2.0 * BOX**2)  # white, of variance 1
        rows = data.particles
        angles = euler.angles(euler.random_rotations(N, torch.Generator().manual_seed(1)))
        rows.rot_deg, rows.tilt_deg, rows.psi_deg = angles.numpy().T.copy()
        return data, model

    return make


def accuracy(data: DataSet, model: Model, seed: int = 0) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    measure(data, model, OPTIONS, reference_of(model, BOX), np.arange(N), random)
    return float(model.accuracy_deg[0]), float(model.accuracy_A[0])


def test_noise_makes_poses_uncertain_in_proportion(state) -> None:
    data, model = state(blob_map(BOX, 4))
    degrees, shift = accuracy(data, model)
    model.noise *= 4.0
    twice = accuracy(data, model)
    # The difference of two images grows with the square of a small error.
    assert twice[0] / degrees == pytest.approx(2.0, abs=0.5)
    assert twice[1] / shift == pytest.approx(2.0, abs=0.4)
    assert 3.0 < degrees < 25.0
    assert float(model.orientability.sum()) == pytest.approx(1.0)


def test_a_sphere_has_no_orientation(state) -> None:
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    square = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    data, model = state(torch.exp(-square / (2.0 * 3.0**2)))
    degrees, shift = accuracy(data, model)
    assert degrees >= 30.0 and degrees == pytest.approx(ROTATIONS[-1])
    assert shift < 10.0 * PIXEL_A


def test_what_is_measured_is_that_of_the_particles_it_is_asked_of(state) -> None:
    data, model = state(blob_map(BOX, 4))
    assert accuracy(data, model, 3) == accuracy(data, model, 3)
    random = np.random.default_rng(0)
    measure(data, model, OPTIONS, reference_of(model, BOX), np.array([7]), random)
    single = float(model.accuracy_deg[0])
    assert single in ROTATIONS
