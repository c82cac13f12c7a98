"""3D classification as a job: its files, going on, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from algorithms.formats import star
from algorithms.refine import files
from tests.space_data import BOX, PIXEL_A, written

FOLDER = "Class3D/job001/"
N = 40
OPTIONS = {
    "fn_img": "p.star",
    "fn_ref": "reference.mrc",
    "fn_mask": "",
    "nr_classes": "2",
    "nr_iter": "2",
    "particle_diameter": f"{0.8 * BOX * PIXEL_A:.0f}",
    "sampling": "30 degrees",
    "offset_range": "2",
    "offset_step": "1",
    "ini_high": "30",
    "tau_fudge": "4",
    "sym_name": "C1",
    "nr_threads": "1",
    "nr_mpi": "1",
}


def project(place: Path, **changes: str) -> Path:
    """Make a project with particles, a first map and a job."""
    place.mkdir()
    written(place, N, snr=1.0)
    job = {"type": "relion.class3d", "options": OPTIONS | changes, "inputs": [], "continue": False}
    (place / FOLDER).mkdir(parents=True)
    (place / FOLDER / "job.json").write_text(json.dumps(job))
    return place


def done(place: Path) -> tuple[int, str, str]:
    process = subprocess.run(
        [sys.executable, "-m", "services.jobs", FOLDER],
        cwd=place,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    return process.returncode, process.stdout, process.stderr


def test_a_job_leaves_the_files_of_relion(tmp_path: Path) -> None:
    place = project(tmp_path / "a")
    code, out, err = done(place)
    assert (code, err) == (0, ""), out
    assert "iteration 2 of 2: 40 particles" in out
    folder = place / FOLDER
    names = {path.name for path in folder.glob("run_it*")}
    for number in ("000", "001", "002"):
        parts = ("data.star", "model.star", "optimiser.star", "sampling.star", "class001.mrc")
        assert {f"run_it{number}_{part}" for part in (*parts, "class002.mrc")} <= names
    rows = star.load(folder / "run_it002_data.star")["particles"]
    assert set(rows.ints("rlnClassNumber")) == {1, 2}
    model = files.read_model(folder / "run_it002")
    assert model.references.shape == (2, BOX, BOX, BOX) and model.iteration == 2


@pytest.mark.slow
def test_asked_for_one_iteration_more_it_does_only_that(tmp_path: Path) -> None:
    place = project(tmp_path / "c")
    assert done(place)[0] == 0
    job = json.loads((place / FOLDER / "job.json").read_text())
    job["options"]["nr_iter"] = "3"
    (place / FOLDER / "job.json").write_text(json.dumps(job))
    code, out, err = done(place)
    assert (code, err) == (0, ""), out
    assert "goes on after iteration 2" in out and "iteration 3 of 3" in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_helix": "Yes"}, "helical"),
        ({"sampling": "5 degrees"}, "option sampling"),
        ({"fn_ref": "nothing.mrc"}, "nothing.mrc, option fn_ref"),
        ({"fn_mask": "reference.mrc"}, "a mask goes from 0 to 1"),
        ({"other_args": "--random_seed 1.5"}, "--random_seed takes a whole number, not '1.5'"),
        ({"other_args": "--memory nan"}, "--memory takes a number, not 'nan'"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_done_is_refused(
    changes: dict[str, str], message: str, tmp_path: Path
) -> None:
    code, _, err = done(project(tmp_path / "b", **changes))
    assert code == 1 and message in err
