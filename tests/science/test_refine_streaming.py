"""Particles that join a running classification are classified as well as those it began with."""

from pathlib import Path

import numpy as np
import pytest

from algorithms.formats import mrc, star
from algorithms.refine.sampling import Sampling
from algorithms.refine.streaming import Stream
from algorithms.refine.types import Options
from tests.refine_data import Truth, particle_set

N, EARLY, K, ITERATIONS = 400, 200, 5, 20
JOINS_AT = 13
OPTIONS = Options(
    n_classes=K, iterations=ITERATIONS, particle_diameter_A=100.0, gradient=True, seed=3
)
SAMPLING = Sampling(psi_step_deg=12.0, offset_range_A=12.0, offset_step_A=8.0)


class Growing:
    """A table of particles of which more and more rows are there."""

    def __init__(self, folder: Path):
        self.folder = folder
        data, self.truth = particle_set(N, snr=0.2, seed=5)
        self.rows = data.particles
        stack = data.images.read(np.arange(N)).numpy()
        mrc.write(folder / "particles.mrcs", stack, 4.0, is_stack=True)

    def show(self, rows: range) -> None:
        optics = {
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnOpticsGroup": [1],
            "rlnVoltage": [300.0],
            "rlnSphericalAberration": [2.7],
            "rlnAmplitudeContrast": [0.1],
            "rlnImagePixelSize": [4.0],
            "rlnImageSize": [32],
            "rlnImageDimensionality": [2],
        }
        chosen = np.array(rows)
        particles = {
            "rlnImageName": [f"{n + 1:08d}@particles.mrcs" for n in rows],
            "rlnMicrographName": [f"mic{n // 25}.mrc" for n in rows],
            "rlnOpticsGroup": [1] * len(rows),
            "rlnDefocusU": self.rows.defocus_u_A[chosen],
            "rlnDefocusV": self.rows.defocus_v_A[chosen],
            "rlnDefocusAngle": self.rows.defocus_angle_deg[chosen],
        }
        tables = {"optics": star.Table.of(optics), "particles": star.Table.of(particles)}
        star.save(self.folder / "particles.star", tables)

    def run(self, name: str) -> Stream:
        root = self.folder / name / "run"
        root.parent.mkdir(exist_ok=True)
        table = self.folder / "particles.star"
        return Stream(table, root, "run", self.folder, OPTIONS, SAMPLING)


def classified(growing: Growing, name: str, *, killed: bool = False) -> Stream:
    """Classify half of the particles, then all; started anew after every third iteration."""
    growing.show(range(EARLY))
    run = growing.run(name)
    while not run.finished:
        if run.model.iteration == JOINS_AT:
            growing.show(range(N))
        run.step()
        if killed and run.model.iteration % 3 == 0:
            run = growing.run(name)
    return run


def correct(run: Stream, truth: Truth) -> np.ndarray:
    """Tell for each particle whether its class is of the structure that it is of."""
    table = np.zeros((K, 3))
    np.add.at(table, (run.data.particles.classes, truth.classes), 1.0)
    return table.argmax(1)[run.data.particles.classes] == truth.classes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Growing, Stream]:
    growing = Growing(tmp_path_factory.mktemp("stream"))
    return growing, classified(growing, "a")


def test_late_particles_are_classified_as_well(finished: tuple[Growing, Stream]) -> None:
    growing, run = finished
    good = correct(run, growing.truth)
    early, late = good[:EARLY].mean(), good[EARLY:].mean()
    error = np.sqrt(early * (1.0 - early) / EARLY + late * (1.0 - late) / (N - EARLY))
    assert early > 0.9 and late > 0.9
    assert abs(early - late) < max(3.0 * error, 0.02)
    pmax = run.data.particles.pmax
    assert abs(pmax[:EARLY].mean() - pmax[EARLY:].mean()) < 0.05
    assert run.model.iteration > ITERATIONS - 5  # the schedule went back when they joined


@pytest.mark.slow
def test_none_is_lost_or_doubled_when_it_is_killed(finished: tuple[Growing, Stream]) -> None:
    growing, run = finished
    again = classified(growing, "b", killed=True)
    assert again.model.iteration == run.model.iteration
    files = sorted(path.name for path in (growing.folder / "a").glob("run_it*"))
    assert files == sorted(path.name for path in (growing.folder / "b").glob("run_it*"))
    assert f"run_it{run.model.iteration:03d}_data.star" in files
    for name in files:
        a, b = (growing.folder / folder / name for folder in "ab")
        assert a.read_bytes() == b.read_bytes(), name
    rows = star.load(growing.folder / "b" / files[-1].replace("sampling", "data"))["particles"]
    names = rows.strings("rlnImageName")
    assert names == [f"{n + 1:08d}@particles.mrcs" for n in range(N)]
    assert set(rows.ints("rlnClassNumber")) <= set(range(1, K + 1))


def test_particles_that_are_withdrawn_leave_and_a_request_ends_it(tmp_path: Path) -> None:
    growing = Growing(tmp_path)
    growing.show(range(EARLY))
    run = growing.run("c")
    run.step()
    growing.show(range(50, EARLY))
    psi = run.data.particles.psi_deg[50:].copy()
    run.take_in()
    assert len(run.data) == EARLY - 50
    assert np.array_equal(run.data.particles.psi_deg, psi)
    run.conclude()
    run.step()
    assert run.finished and (run.data.particles.classes >= 0).all()
