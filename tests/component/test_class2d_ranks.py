"""2D classification by several processes: the same answer, and how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from algorithms.formats import star
from algorithms.refine import files
from algorithms.refine.run import Run
from services.jobs.classes import options_of, sampling_of
from services.jobs.job import Job
from tests.component.test_class2d_job import FOLDER, LIMIT_S, N, done, project, started

TWO = {"nr_iter_grad": "6", "nr_mpi": "2", "other_args": "--random_seed 5"}
PIXELS, EARLY = 32 * 32, 160


def children(process: int) -> list[int]:
    """Return the processes that another one has started."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]


def helper_of(process: "subprocess.Popen[str]", state: Path) -> int:
    """Wait for an iteration and return the number of the second process."""
    before = state.stat().st_mtime_ns if state.exists() else 0
    deadline = time.monotonic() + LIMIT_S
    while not state.exists() or state.stat().st_mtime_ns == before:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    (found,) = children(process.pid)
    return found


def gone(process: int) -> bool:
    """Wait until a process is no more; tell whether that is so."""
    deadline = time.monotonic() + 20.0
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not Path(f"/proc/{process}").exists()


def results(place: Path) -> dict[str, bytes]:
    found = (place / FOLDER).glob("run_it*")
    return {path.name: path.read_bytes() for path in found if path.suffix != ".png"}


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = project(tmp_path_factory.mktemp("ranks") / "two", **TWO)
    code, out, err = done(place)
    assert (code, err) == (0, ""), out
    assert not (place / FOLDER / ".coldstream" / "ranks").exists()
    return place


def test_two_processes_find_what_one_finds(shared_run: Path, tmp_path: Path) -> None:
    place = project(tmp_path / "one", **TWO)
    job = Job(place, FOLDER)
    root = place / FOLDER / "run"
    alone = Run(
        place / "particles.star", root, "run", place, options_of(job, 5), sampling_of(job, 4.0)
    )
    one = alone.run()
    two = files.read_model(shared_run / FOLDER / "run_it006")
    spread = one.references.std((1, 2))
    assert float(((one.references - two.references).std((1, 2)) / spread).max()) < 1e-3
    assert float((one.noise / two.noise - 1.0).abs().max()) < 1e-5
    assert float((one.fractions - two.fractions).abs().max()) < 1e-5
    assert two.log_likelihood == pytest.approx(one.log_likelihood, rel=1e-6)
    particles = files.read_data(shared_run / FOLDER / "run_it006_data.star", place).particles
    assert (particles.classes == alone.data.particles.classes).mean() > 0.99
    assert np.abs(particles.norm - alone.data.particles.norm).max() < 1e-4
    assert (particles.significant == alone.data.particles.significant).mean() > 0.98


def test_a_process_that_ends_ends_all_and_the_run_goes_on(shared_run: Path, tmp_path: Path) -> None:
    place = project(tmp_path / "b", **TWO)
    process = started(place)
    helper = helper_of(process, place / FOLDER / ".run_state.pt")
    os.kill(helper, signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1 and "another process of the run has ended" in err
    assert gone(helper)
    code, out, err = done(place)
    assert (code, err) == (0, "") and "goes on after iteration" in out
    assert results(place) == results(shared_run)


@pytest.mark.slow
def test_an_image_that_one_process_cannot_use_is_named_by_the_job(tmp_path: Path) -> None:
    place = project(tmp_path / "d", **TWO)
    process = started(place)
    helper = helper_of(process, place / FOLDER / ".run_state.pt")
    process.kill()
    process.communicate()
    assert gone(helper)
    with open(place / "particles.mrcs", "r+b") as file:  # only the second process reads this one
        file.seek(1024 + 4 * PIXELS * (N - 1))
        file.write(np.full(PIXELS, np.nan, "<f4").tobytes())
    code, _, err = done(place)
    assert code == 1 and f"process 2 of 2: the image of particle {N}" in err


@pytest.mark.slow
def test_torchrun_starts_the_processes(shared_run: Path, tmp_path: Path) -> None:
    place = project(tmp_path / "c", **TWO)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    told = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "-m", "services.jobs", FOLDER],
        cwd=place, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert results(place) == results(shared_run)


@pytest.mark.slow
def test_particles_join_a_run_of_two_processes(tmp_path: Path) -> None:
    """Each process is given the larger set, and none of it is lost or classified by nobody."""
    streaming = {"other_args": "--random_seed 5 --streaming Yes", "nr_iter_grad": "20"}
    place = project(tmp_path / "e", **(TWO | streaming))
    table = place / "particles.star"
    whole = star.load(table)
    few = {name: values[:EARLY] for name, values in whole["particles"].columns.items()}
    star.save(table, {**whole, "particles": star.Table(few)})
    process = started(place)
    helper_of(process, place / FOLDER / ".run_state.pt")
    star.save(table, whole)
    out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, err) == (0, ""), out
    assert f"{N - EARLY} particles have joined" in out
    last = max((place / FOLDER).glob("run_it*_data.star"))
    rows = star.load(last)["particles"]
    assert len(set(rows.strings("rlnImageName"))) == N
    assert set(rows.ints("rlnClassNumber")) <= {1, 2, 3}
    assert (rows.floats("rlnMaxValueProbDistribution") > 0.0).all()
