"""Local resolution as a job; RELION's program on the same half-maps where installed."""

import shutil
import subprocess

import numpy as np
import pytest

from algorithms.formats import mrc
from tests.native import described, job_server, ran
from tests.unit.test_local_resolution import PIXEL_A, halves

pytestmark = pytest.mark.slow
LOCAL = "LocalRes/job003/"
HALVES = [f"Refine3D/run_half{number}_class001_unfil.mrc" for number in (1, 2)]
OPTIONS = {
    "fn_in": HALVES[0],
    "fn_mask": "mask.mrc",
    "do_resmap_locres": "No",
    "do_relion_locres": "Yes",
    "adhoc_bfac": "-50",
    "angpix": f"{PIXEL_A}",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    place = tmp_path_factory.mktemp("local")
    (place / "Refine3D").mkdir()
    first, second, mask, _ = halves()
    for name, volume in zip([*HALVES, "mask.mrc"], (first, second, mask), strict=True):
        mrc.write(place / name, volume.numpy(), PIXEL_A)
    with job_server(place):
        yield place


@pytest.fixture(scope="module")
def done(project):
    return ran(described(project, LOCAL, "relion.localres.own", OPTIONS), project, 0).stdout


def test_the_job_leaves_relions_files(project, done):
    for name in ("relion_locres.mrc", "relion_locres_filtered.mrc"):
        assert mrc.read_header(project / LOCAL / name).pixel_size_A == pytest.approx(PIXEL_A)
    for name, start in (("histogram.pdf", b"%PDF"), ("locres.png", b"\x89PNG")):
        assert (project / LOCAL / name).read_bytes().startswith(start)
    assert "local resolution at FSC 0.143" in done


@pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="needs RELION")
def test_resolution_and_map_are_like_relions(project, done):
    command = ["relion_postprocess", "--locres", "--i", HALVES[0], "--o", "theirs"]
    command += ["--angpix", str(PIXEL_A), "--adhoc_bfac", "-50"]
    subprocess.run(command, cwd=project, capture_output=True, timeout=250, check=False)
    mask = mrc.read(project / "mask.mrc") > 0.5
    ours, theirs = (
        mrc.read(project / place)[mask]
        for place in (f"{LOCAL}relion_locres.mrc", "theirs_locres.mrc")
    )
    ratio = ours / theirs
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
    assert np.corrcoef(1.0 / ours, 1.0 / theirs)[0, 1] > 0.8
    maps = [
        mrc.read(project / place)[mask]
        for place in (f"{LOCAL}relion_locres_filtered.mrc", "theirs_locres_filtered.mrc")
    ]
    # RELION 3.1.3 writes the sum of both halves here, not their mean.
    assert np.corrcoef(maps)[0, 1] > 0.97


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"other_args": "--locres_sampling 0"}, "--locres_sampling 0 is not between"),
        ({"other_args": "--locres_sampling 400"}, "does not fit into a box"),
    ],
)
def test_what_is_not_done_is_refused(project, change, words):
    said = ran(described(project, LOCAL, "relion.localres.own", {**OPTIONS, **change}), project, 1)
    assert words in said.stderr
