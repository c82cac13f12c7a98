"""The initial model's schedules, its start from nothing, and when its steps become finer."""

from dataclasses import replace

import pytest
import torch

from algorithms.refine import schedule, start
from algorithms.refine.files import read_data
from algorithms.refine.space.firstmodel import FirstModelRun, first_sampling
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.types import Options
from tests.volume_data import blob_map, write_particles

BOX, PIXEL_A, DIAMETER_A = 24, 6.0, 100.0
OPTIONS = Options(
    n_classes=2,
    iterations=20,
    gradient=True,
    particle_diameter_A=DIAMETER_A,
    tau2_fudge=4.0,
    norm=False,
    scale=False,
    center_classes=False,
    inactivity=0.0,
    max_significants=200,
    pad=1,
    seed=5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("first")
    write_particles(place, blob_map(BOX, 1), 40, box=BOX, pixel_A=PIXEL_A, snr=0.5, seed=2)
    return place


@pytest.mark.parametrize(
    ("iteration", "batch", "step"),
    [(1, 500, 0.9), (85, 2875, 0.7), (110, 5250, 0.504), (160, 10_000, 0.5), (200, 10_000, 0.5)],
)
def test_schedules_of_initial_models(iteration, batch, step):
    assert schedule.batch_size(iteration, 200, 100_000, 1, 3) == batch
    last = schedule.LAST_STEP[3]
    assert schedule.step_size(iteration, 200, last=last) == pytest.approx(step, abs=2e-3)
    assert schedule.batch_size(iteration, 200, 10_000_000, 1, 3) <= 50_000
    assert schedule.batch_size(200, 200, 100_000, 3, 3) == 100_000


def test_a_model_begins_with_smooth_blobs_within_the_particle(folder):
    data = read_data(folder / "particles.star", folder)
    sampling = first_sampling(PIXEL_A, "C1")
    model = start.start(data, OPTIONS, sampling, ["one"])
    assert model.references.shape == (2, BOX, BOX, BOX)
    first, second = model.references
    assert float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.99
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    far = torch.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    beyond = far > DIAMETER_A / PIXEL_A / 2.0 + 5.0
    assert float(model.references[:, beyond].abs().max()) == 0.0
    spectrum = torch.fft.rfftn(first.double()).abs()
    index = torch.fft.fftfreq(BOX, 1.0 / BOX)
    shell = torch.sqrt(
        index[:, None, None] ** 2 + index[:, None] ** 2 + index[: BOX // 2 + 1].abs() ** 2
    )
    assert float(spectrum[shell > 6.0].max()) < 0.05 * float(spectrum.max())
    assert model.pad == 1
    assert model.moments is not None
    assert model.moments.first.shape == (2, 2, BOX * BOX * (BOX // 2 + 1))
    again = start.start(data, OPTIONS, sampling, ["one"])
    assert torch.equal(again.references, model.references)
    other = start.start(data, replace(OPTIONS, seed=6), sampling, ["one"])
    assert not torch.equal(other.references, model.references)


def test_steps_become_finer_when_the_resolution_stands_still(folder, tmp_path):
    run = FirstModelRun(
        folder / "particles.star", tmp_path / "run", "run", folder, OPTIONS,
        first_sampling(PIXEL_A, "C1"),
    )  # fmt: skip
    model = run.model
    model.iteration, model.moved_A = 19, 3.0
    model.accuracy_deg, model.accuracy_A = torch.tensor([2.0, 999.0]), torch.tensor([1.0, 999.0])

    def order(no_gain):
        model.no_gain = no_gain
        run._take_finer_steps()
        assert isinstance(model.sampling, Sampling3D)
        return model.sampling.healpix_order

    before = model.sampling
    assert order(0) == 1
    assert order(1) == 2
    assert model.sampling.psi_step_deg == before.psi_step_deg / 2.0
    assert model.sampling.offset_step_A < before.offset_step_A
    assert model.no_gain == 0
    assert order(1) == 3
    assert order(1) == 3  # finer ones would have to be local
    model.sampling = before
    model.accuracy_deg = torch.tensor([21.0, 999.0])
    assert order(1) == 1  # 15 degrees are below three quarters of it: they are fine enough
