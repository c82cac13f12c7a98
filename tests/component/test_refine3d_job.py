"""3D auto-refinement as a job: its files, a kill in the middle, and what it refuses."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from algorithms.formats import mrc, star
from services.kit import iterations
from tests.native import described, job_server, ran
from tests.volume_data import blob_map, write_map, write_particles

FOLDER = "Refine3D/job004/"
BOX, PIXEL_A, N = 24, 5.0, 80
OPTIONS = {
    "fn_img": "particles.star",
    "fn_ref": "reference.mrc",
    "ref_correct_greyscale": "No",
    "ini_high": "30",
    "particle_diameter": "90",
    "sampling": "30 degrees",
    "auto_local_sampling": "15 degrees",
    "offset_range": "3",
    "offset_step": "1",
    "sym_name": "C1",
    "trust_ref_size": "No",
    "do_zero_mask": "Yes",
    "nr_mpi": "1",
    "nr_threads": "1",
    "auto_faster": "Yes",
    "other_args": "--random_seed 3",
}
LIMIT_S = 200.0
FINAL = [
    "run_class001.mrc",
    "run_half1_class001_unfil.mrc",
    "run_half2_class001_unfil.mrc",
    "run_model.star",
    "run_data.star",
    "run_optimiser.star",
    "run_sampling.star",
]


def project(place: Path) -> Path:
    truth = write_particles(place, blob_map(BOX, 5), N, box=BOX, pixel_A=PIXEL_A, snr=0.1, seed=2)
    write_map(place / "reference.mrc", truth.volume, PIXEL_A)
    return place


def job(place: Path, folder: str = FOLDER, **changes: str) -> list[str]:
    return described(place, folder, "relion.refine3d", OPTIONS | changes)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    place = project(tmp_path_factory.mktemp("refine") / "a")
    with job_server(place):
        yield place


@pytest.fixture(scope="module")
def undisturbed(server: Path) -> tuple[Path, str]:
    return server, ran(job(server), server, 0).stdout


def test_the_files_are_those_of_relion(undisturbed: tuple[Path, str]) -> None:
    place, said = undisturbed
    folder = place / FOLDER
    names = {path.name for path in folder.iterdir()}
    assert set(FINAL) <= names
    told = iterations.read(folder)
    assert told[-1].is_last and told[-1].files == f"{FOLDER}run"
    for number in range(told[-1].iteration):
        for part in ("half1_model.star", "half2_class001.mrc", "data.star", "optimiser.star"):
            assert f"run_it{number:03d}_{part}" in names
    assert f"run_it{told[-1].iteration:03d}_data.star" not in names
    assert f"converged after {told[-1].iteration} iterations" in said
    assert "local searches" in said and "halves of 40 and 40" in said
    assert (folder / "run_fsc.png").read_bytes().startswith(b"\x89PNG")
    rows = star.load(folder / "run_data.star")["particles"]
    assert np.bincount(rows.ints("rlnRandomSubset")).tolist() == [0, 40, 40]
    model = star.load(folder / "run_model.star")
    shells = model["model_class_1"]
    resolution = model["model_general"].floats("rlnCurrentResolution")[0]
    curve = np.array(shells.floats("rlnGoldStandardFsc"))
    assert resolution == pytest.approx(told[-1].resolution_A, rel=1e-6)
    assert curve[0] == 1.0 and curve[2] > 0.9
    assert mrc.read_header(folder / "run_class001.mrc").pixel_size_A == pytest.approx(PIXEL_A)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fn_ref": "other_box.mrc"}, ("other_box.mrc is 20 px wide", "particles 24 px")),
        ({"fn_ref": "other_pixel.mrc"}, ("pixel size of 2.5 A", "particles 5 A")),
        ({"fn_mask": "inverted.mrc"}, ("inverted.mrc", "is it inverted?")),
        ({"fn_mask": "empty.mrc"}, ("empty.mrc is empty",)),
        ({"fn_img": "few.star"}, ("few.star", "halves of 7 and 7", "at least 10")),
        ({"do_solvent_fsc": "Yes"}, ("do_solvent_fsc", "fn_mask is empty")),
        ({"sampling": "8 degrees"}, ("option sampling", "'8 degrees'", "7.5")),
        ({"do_blush": "Yes"}, ("do_blush", "executor relion")),
        ({"sym_name": "Q7"}, ("Q7", "no point group")),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(server: Path, changes, words) -> None:
    volume = blob_map(20, 1)
    write_map(server / "other_box.mrc", volume, PIXEL_A)
    write_map(server / "other_pixel.mrc", blob_map(BOX, 1), 2.5)
    write_map(server / "inverted.mrc", 1.0 - (blob_map(BOX, 1) > 0.2).double(), PIXEL_A)
    write_map(server / "empty.mrc", 0.0 * blob_map(BOX, 1), PIXEL_A)
    few = star.load(server / "particles.star")
    columns = {name: values[:14] for name, values in few["particles"].columns.items()}
    star.save(server / "few.star", {**few, "particles": star.Table(columns)})
    folder = "Refine3D/job009/"
    said = ran(job(server, folder, **changes), server, 1).stderr
    for word in words:
        assert word in said
    shutil.rmtree(server / folder)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bytes(undisturbed, tmp_path: Path) -> None:
    place, _ = undisturbed
    other = project(tmp_path / "b")
    command = job(other)
    mark = other / FOLDER / "run_it003_optimiser.star"
    process = subprocess.Popen(
        command, cwd=other, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    begun = time.monotonic()
    while not mark.exists():
        assert process.poll() is None and time.monotonic() - begun < LIMIT_S
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = subprocess.run(
        command, cwd=other, capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    assert "goes on after iteration" in again.stdout
    for name in FINAL:
        assert (other / FOLDER / name).read_bytes() == (place / FOLDER / name).read_bytes(), name


@pytest.mark.slow
def test_halves_in_a_mask_and_a_reference_that_is_made_to_fit(server: Path) -> None:
    write_map(server / "mask.mrc", (blob_map(BOX, 5) > 0.05).double(), PIXEL_A)
    write_map(server / "fine.mrc", blob_map(40, 5), 3.0)
    folder = "Refine3D/job005/"
    changes = {"fn_mask": "mask.mrc", "do_solvent_fsc": "Yes", "fn_ref": "fine.mrc"}
    ran(job(server, folder, **changes, trust_ref_size="Yes"), server, 0)
    assert (server / folder / "run_it001_half2_class001_unfil.mrc").exists()
    spectra = star.load(server / folder / "run_model.star")["model_class_1"]
    curve = np.array(spectra.floats("rlnGoldStandardFsc"))
    assert curve[2] > 0.9
    volume, mask = (
        mrc.read(server / name) for name in (f"{folder}run_it001_half1_class001.mrc", "mask.mrc")
    )
    assert not volume[np.asarray(mask) == 0.0].any()


@pytest.mark.slow
def test_two_processes_refine_as_one_does(undisturbed, tmp_path: Path) -> None:
    place, _ = undisturbed
    other = project(tmp_path / "c")
    subprocess.run(
        job(other, nr_mpi="2"), cwd=other, capture_output=True, timeout=LIMIT_S, check=True
    )
    maps = [mrc.read(one / FOLDER / "run_class001.mrc") for one in (place, other)]
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.99


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="needs RELION")
def test_relion_post_processes_the_half_maps(undisturbed) -> None:
    place, _ = undisturbed
    mask = (blob_map(BOX, 5) > 0.1).double()
    write_map(place / "particle.mrc", mask, PIXEL_A)
    (place / "post").mkdir()
    command = ["relion_postprocess", "--i", f"{FOLDER}run_half1_class001_unfil.mrc"]
    command += ["--mask", "particle.mrc", "--o", "post/post"]
    done = subprocess.run(
        [*command, "--angpix", str(PIXEL_A)],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (place / "post" / "post.mrc").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("relion_refine_mpi") is None, reason="needs RELION")
def test_relion_goes_on_from_an_iteration(undisturbed) -> None:
    """RELION 3.1 knows noise by group, later ones by optics group; all else is read as it is."""
    place, _ = undisturbed
    shutil.rmtree(place / "on", ignore_errors=True)
    (place / "on").mkdir()
    for path in (place / FOLDER).glob("run_it002_*"):
        content = path.read_bytes()
        if path.suffix == ".star":
            text = content.decode().replace(FOLDER, "on/")
            content = with_noise_by_group(text, groups=4).encode()
        (place / "on" / path.name).write_bytes(content)
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3", "relion_refine_mpi"]
    command += ["--continue", "on/run_it002_optimiser.star", "--o", "on/run_ct2", "--j", "1"]
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Refinement has converged" in done.stdout
    ours, theirs = (
        mrc.read(place / name) for name in (f"{FOLDER}run_class001.mrc", "on/run_ct2_class001.mrc")
    )
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9


def with_noise_by_group(text: str, groups: int) -> str:
    name = "data_model_optics_group_1"
    if name not in text:
        return text
    before, block = text.split(name)
    block, mark, after = block.partition("\ndata_")
    copies = "".join(f"data_model_group_{n}{block}\n" for n in range(1, groups + 1))
    return before + copies + mark.lstrip() + after
