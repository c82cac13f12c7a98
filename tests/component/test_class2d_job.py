"""2D classification as a job: its files, a kill in the middle, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from algorithms.formats import mrc, star
from algorithms.refine import files
from tests.native import job_server, ran
from tests.refine_data import particle_set

FOLDER = "Class2D/job001/"
OPTIONS = {
    "fn_img": "particles.star",
    "nr_classes": "3",
    "do_em": "No",
    "do_grad": "Yes",
    "nr_iter_grad": "12",
    "nr_iter_em": "4",
    "particle_diameter": "100",
    "psi_sampling": "6",
    "offset_range": "3",
    "offset_step": "1",
    "tau_fudge": "2",
    "nr_threads": "1",
    "nr_mpi": "1",
}
N = 240
LIMIT_S = 120.0


def project(place: Path, **changes: str) -> Path:
    """Make a project with particles of three classes and a job to classify them."""
    data, _ = particle_set(N, snr=0.2)
    place.mkdir()
    stack = data.images.read(np.arange(N)).numpy()
    mrc.write(place / "particles.mrcs", stack, 4.0, is_stack=True)
    rows = data.particles
    particles = star.Table.of(
        {
            "rlnImageName": [f"{n + 1:08d}@particles.mrcs" for n in range(N)],
            "rlnMicrographName": [f"mic{n % 4}.mrc" for n in range(N)],
            "rlnOpticsGroup": [1] * N,
            "rlnDefocusU": rows.defocus_u_A,
            "rlnDefocusV": rows.defocus_v_A,
            "rlnDefocusAngle": rows.defocus_angle_deg,
            "rlnColdstreamMark": [f"m{n}" for n in range(N)],
        }
    )
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
    star.save(place / "particles.star", {"optics": star.Table.of(optics), "particles": particles})
    job = {"type": "relion.class2d", "options": OPTIONS | changes, "inputs": [], "continue": False}
    (place / FOLDER).mkdir(parents=True)
    (place / FOLDER / "job.json").write_text(json.dumps(job))
    return place


def started(place: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "services.jobs", FOLDER],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def done(place: Path) -> tuple[int, str, str]:
    process = started(place)
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = project(tmp_path_factory.mktemp("class2d") / "a")
    code, out, err = done(place)
    assert (code, err) == (0, ""), out
    assert "iteration 12 of 12: 240 particles" in out
    return place


def test_the_files_are_those_of_relion(undisturbed: Path) -> None:
    folder = undisturbed / FOLDER
    names = {path.name for path in folder.glob("run_it*")}
    for number in ("000", "010", "012"):
        parts = ["data.star", "model.star", "optimiser.star", "sampling.star", "classes.mrcs"]
        assert {f"run_it{number}_{part}" for part in parts} <= names
        assert {f"run_it{number}_{part}moment.mrcs" for part in (1, 2)} <= names
    assert "run_it002_data.star" not in names
    rows = star.load(folder / "run_it012_data.star")["particles"]
    assert rows.strings("rlnColdstreamMark") == [f"m{n}" for n in range(N)]
    assert set(rows.ints("rlnClassNumber")) <= {1, 2, 3}
    assert (rows.floats("rlnMaxValueProbDistribution") > 0.0).all()
    model = files.read_model(folder / "run_it012")
    assert model.moments is not None and model.iteration == 12
    assert float(model.fractions.sum()) == pytest.approx(1.0, abs=1e-6)
    assert model.group_names == [f"mic{n}.mrc" for n in range(4)]
    with Image.open(folder / "run_classes.png") as picture:
        assert picture.width > 128 and picture.height > 128


@pytest.mark.relion
def test_relion_reads_the_tables(undisturbed: Path) -> None:
    program = shutil.which("relion_star_printtable")
    if program is None:
        pytest.skip("RELION is not installed")
    for file, block, label in (
        ("model", "data_model_classes", "rlnClassDistribution"),
        ("data", "data_particles", "rlnClassNumber"),
    ):
        path = f"{FOLDER}run_it012_{file}.star"
        told = subprocess.run(
            [program, path, block, f"_{label}"], cwd=undisturbed, capture_output=True, text=True
        )
        assert told.returncode == 0, told.stderr
        assert len(told.stdout.split()) == (3 if file == "model" else N)


def test_a_killed_run_ends_as_one_that_was_not(undisturbed: Path, tmp_path: Path) -> None:
    place = project(tmp_path / "b")
    state = place / FOLDER / ".run_state.pt"
    for _ in range(2):
        process = started(place)
        before = state.stat().st_mtime_ns if state.exists() else 0
        deadline = time.monotonic() + LIMIT_S
        while not state.exists() or state.stat().st_mtime_ns == before:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, out, err = done(place)
    assert (code, err) == (0, "") and "goes on after iteration" in out
    for path in sorted((undisturbed / FOLDER).glob("run_it*")):
        assert (place / FOLDER / path.name).read_bytes() == path.read_bytes(), path.name
    job = place / FOLDER / "job.json"
    job.write_text(job.read_text().replace('"nr_classes": "3"', '"nr_classes": "2"'))
    code, _, err = done(place)
    assert code == 1 and "other particles or options" in err


def test_em_writes_every_iteration_and_another_job_goes_on(tmp_path: Path) -> None:
    place = project(tmp_path / "em", do_em="Yes", do_grad="No")
    code, _, err = done(place)
    assert (code, err) == (0, "")
    goes_on(place, "run_it003_optimiser.star", do_em="Yes", do_grad="No")
    found = sorted(path.name for path in (place / FOLDER).glob("*_optimiser.star"))
    assert found == [f"run_it{n:03d}_optimiser.star" for n in range(5)]
    assert not list((place / FOLDER).glob("*moment*"))


def goes_on(place: Path, optimiser: str, **changes: str) -> None:
    """Let a second job go on from an iteration of the first; the last one comes out the same."""
    with job_server(place.parent):
        second = FOLDER.replace("001", "002")
        shutil.copytree(place / FOLDER, place / second, ignore=shutil.ignore_patterns("*run*"))
        job = json.loads((place / FOLDER / "job.json").read_text())
        job["options"] |= {"fn_cont": f"{FOLDER}{optimiser}", **changes}
        (place / second / "job.json").write_text(json.dumps(job))
        command = [sys.executable, "-m", "services.jobs", second]
        assert "goes on after iteration 3" in ran(command, place).stdout
        a, b = (files.read_model(place / folder / "run_it004") for folder in (FOLDER, second))
        assert float((a.references - b.references).abs().max() / a.references.std()) < 1e-4
        for wrong, words in (
            ({"nr_classes": "5"}, "set it to 3"),
            ({"do_em": "No", "do_grad": "Yes"}, "do_em"),
            ({"other_args": "--streaming Yes"}, "fn_cont and --streaming"),
        ):
            (place / second / "job.json").write_text(
                json.dumps(job | {"options": job["options"] | wrong})
            )
            assert words in ran(command, place, 1).stderr


REFUSED = [
    ({"nr_classes": "500"}, "cannot make 500 classes"),
    ({"particle_diameter": "400"}, "larger than the box"),
    ({"do_helix": "Yes"}, "do_helix"),
    ({"do_em": "Yes"}, "exactly one of them"),
    ({"other_args": "--class_replacement never"}, "--class_replacement takes copy or split"),
    ({"dont_skip_align": "No"}, "dont_skip_align"),
    ({"fn_img": "nothing.star"}, "nothing.star"),
    ({"fn_cont": "nothing_it001_optimiser.star"}, "fn_cont"),
    ({"fn_cont": "particles.star"}, "no optimiser file"),
    ({"other_args": "--streaming perhaps"}, "--streaming takes Yes or No"),
    ({"other_args": "--streaming Yes", "do_em": "Yes", "do_grad": "No"}, "classified by VDAM"),
    ({"other_args": "--pad 1"}, "--random_seed N"),
]


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with job_server(tmp_path / "server"):
        for number, (changes, message) in enumerate(REFUSED):
            place = project(tmp_path / f"c{number}", **changes)
            told = ran([sys.executable, "-m", "services.jobs", FOLDER], place, 1)
            assert message in told.stderr, changes


def test_an_image_that_is_not_finite_is_named(tmp_path: Path) -> None:
    place = project(tmp_path / "d")
    with open(place / "particles.mrcs", "r+b") as file:
        file.seek(1024 + 4 * 32 * 32 * 17)
        file.write(np.array([np.nan], "<f4").tobytes())
    code, _, err = done(place)
    assert code == 1 and "particle 18" in err and "not finite" in err
