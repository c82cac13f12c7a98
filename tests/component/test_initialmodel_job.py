"""The initial model as a job: its files, its symmetry, and what it refuses."""

import numpy as np
import pytest
import torch

from algorithms.formats import mrc, star
from algorithms.maps import symmetry_align
from algorithms.orientation import symmetry
from tests.native import described, job_server, ran
from tests.volume_data import blob_map, write_particles

pytestmark = pytest.mark.slow
JOB, BOX, PIXEL_A = "InitialModel/job001/", 24, 6.0
OPTIONS = {
    "fn_img": "particles.star",
    "nr_iter": "6",
    "nr_classes": "2",
    "particle_diameter": "100",
    "sym_name": "D2",
    "do_run_C1": "Yes",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    place = tmp_path_factory.mktemp("initial")
    volume = blob_map(BOX, 3)
    volume = symmetry_align.mean_of_views(volume, symmetry.operators("D2"), torch.zeros(3))
    write_particles(place, volume, 150, box=BOX, pixel_A=PIXEL_A, snr=0.3, seed=2)
    with job_server(place):
        yield place


def do(project, code=0, **changes):
    return ran(
        described(project, JOB, "relion.initialmodel", {**OPTIONS, **changes}), project, code
    )


@pytest.fixture(scope="module")
def done(project):
    return do(project)


def test_the_job_leaves_a_model_of_the_symmetry(project, done):
    volume = torch.from_numpy(np.array(mrc.read(project / JOB / "initial_model.mrc")))
    assert volume.shape == (BOX, BOX, BOX)
    own = symmetry.operators("D2")
    again = symmetry_align.mean_of_views(volume, own, torch.zeros(3))
    assert torch.corrcoef(torch.stack([volume.flatten(), again.flatten()]))[0, 1] > 0.97
    assert "% of the particles is taken" in done.stdout
    assert "along the axes of D2" in done.stdout


def test_the_job_leaves_relions_files(project, done):
    root = project / JOB / "run_it006"
    for name in ("_data.star", "_model.star", "_optimiser.star", "_sampling.star"):
        assert root.with_name(root.name + name).exists(), name
    for number in (1, 2):
        header = mrc.read_header(root.with_name(f"run_it006_class{number:03d}.mrc"))
        assert (header.nx, header.nz) == (BOX, BOX)
    particles = star.load(root.with_name("run_it006_data.star"))["particles"]
    assert set(particles.ints("rlnClassNumber")) <= {1, 2}
    assert len(set(particles.floats("rlnAngleTilt"))) > 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sym_name": "X9"}, "is no point group"),
        ({"ctf_intact_first_peak": "Yes"}, "ctf_intact_first_peak"),
        ({"fn_img": "missing.star"}, "missing.star"),
        ({"particle_diameter": "900"}, "larger than the box"),
    ],
)
def test_what_cannot_be_done_is_said(project, change, words):
    assert words in do(project, 1, **change).stderr
