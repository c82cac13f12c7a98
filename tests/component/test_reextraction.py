"""Refined particles cut out again: in another size, and centred as refined."""

import shutil
import subprocess

import numpy as np
import pytest

from algorithms.formats import mrc, star
from algorithms.recentre import projected, recentred
from tests import native
from tests.shared import shared

JOB = "Extract/job009/"
PIXEL_A, IMAGE_A = 1.1, 2.2
HAVE_RELION = shutil.which("relion_preprocess") is not None


@pytest.fixture(scope="module", autouse=True)
def jobs(tmp_path_factory):
    """Do all jobs in one process: loading the algorithms takes longer than they do."""
    with native.job_server(tmp_path_factory.mktemp("jobs")):
        yield


@pytest.fixture
def project(tmp_path):
    """Micrographs and the particles of a refinement, some of a micrograph that is left out."""
    rng = np.random.default_rng(0)
    (tmp_path / "Mics").mkdir()
    names = [f"Mics/{name}.mrc" for name in "abc"]
    for name in names:
        image = rng.normal(40, 3, (300, 340)).astype(np.float32)
        mrc.write(tmp_path / name, image, PIXEL_A)
    optics = {"rlnOpticsGroupName": ["a", "b"], "rlnOpticsGroup": [1, 2]}
    optics |= dict.fromkeys(["rlnMicrographOriginalPixelSize"], [PIXEL_A] * 2)
    optics |= {"rlnVoltage": [300.0] * 2, "rlnSphericalAberration": [2.7] * 2}
    optics |= {"rlnAmplitudeContrast": [0.1] * 2}
    micrographs = {"rlnMicrographName": names[:2], "rlnOpticsGroup": [1, 1]}
    micrographs |= {"rlnDefocusU": [12_000.0] * 2, "rlnDefocusV": [11_000.0] * 2}
    micrographs |= {"rlnDefocusAngle": [30.0] * 2, "rlnPhaseShift": [0.0] * 2}
    tables = {
        "optics": star.Table.of(optics | {"rlnMicrographPixelSize": [PIXEL_A] * 2}),
        "micrographs": star.Table.of(micrographs),
    }
    star.save(tmp_path / "mics.star", tables, version=30001)
    count = 9
    images = {"rlnImagePixelSize": [IMAGE_A] * 2, "rlnImageSize": [40] * 2}
    particles = {
        "rlnCoordinateX": rng.integers(70, 270, count).astype(float),
        "rlnCoordinateY": rng.integers(70, 230, count).astype(float),
        "rlnImageName": [f"{i + 1:06d}@old.mrcs" for i in range(count)],
        "rlnMicrographName": [names[i % 3] for i in range(count)],
        "rlnOpticsGroup": [1] * count,
        "rlnAngleRot": rng.uniform(-180, 180, count),
        "rlnAngleTilt": rng.uniform(0, 180, count),
        "rlnAnglePsi": rng.uniform(-180, 180, count),
        "rlnOriginXAngst": rng.uniform(-9, 9, count),
        "rlnOriginYAngst": rng.uniform(-9, 9, count),
        "rlnDefocusU": rng.uniform(10_000, 12_000, count),
        "rlnDefocusV": rng.uniform(10_000, 12_000, count),
        "rlnDefocusAngle": np.zeros(count),
        "rlnRandomSubset": rng.integers(1, 3, count),
    }
    both = {
        "optics": star.Table.of(optics | images | {"rlnImageDimensionality": [2] * 2}),
        "particles": star.Table.of(particles),
    }
    star.save(tmp_path / "data.star", both, version=30001)
    return tmp_path


def again(project, code=0, more=False, **changes):
    options = {
        "star_mics": "mics.star",
        "do_reextract": "Yes",
        "fndata_reextract": "data.star",
        "extract_size": "100",
        "do_rescale": "Yes",
        "rescale": "60",
        "do_float16": "No",
        **changes,
    }
    command = native.described(project, JOB, "relion.extract", options, more=more)
    return native.ran(command, project, code)


def tables(project):
    return star.load(project / JOB / "particles.star")


RECENTRED = {"do_recenter": "Yes", "recenter_x": "5", "recenter_y": "-3", "recenter_z": "8"}


@pytest.mark.relion
@pytest.mark.skipif(not HAVE_RELION, reason="RELION is not here")
@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, ""),
        ({"do_recenter": "Yes"}, "--recenter"),
        (RECENTRED, "--recenter --recenter_x 5 --recenter_y -3 --recenter_z 8"),
        ({"do_reset_offsets": "Yes"}, "--reset_offsets"),
    ],
)
def test_tables_and_images_are_relions(project, changes, flags):
    said = again(project, **changes)
    assert "3 particles are in 1 micrographs that star_mics does not have" in said.stdout
    command = "relion_preprocess --i mics.star --reextract_data_star data.star --extract"
    command += " --part_star P/p.star --part_dir P/ --extract_size 100 --scale 60 --norm"
    command += f" --bg_radius 22 --invert_contrast {flags}"
    subprocess.run(command.split(), cwd=project, capture_output=True, check=True)
    theirs, ours = star.load(project / "P/p.star")["particles"], tables(project)["particles"]
    assert list(ours.columns) == list(theirs.columns)
    for label in set(ours.columns) - {"rlnImageName", "rlnMicrographName"}:
        np.testing.assert_allclose(ours.floats(label), theirs.floats(label), atol=1e-5)
    for name in "ab":
        one, two = (mrc.read(project / f / f"Mics/{name}.mrcs") for f in (JOB, "P"))
        assert np.linalg.norm(one - two) < 1e-5 * np.linalg.norm(two)


def test_all_columns_stay_and_new_ones_are_in_place(project):
    again(project, **RECENTRED)
    before, after = star.load(project / "data.star"), tables(project)
    old, new = before["particles"], after["particles"]
    rows = [i for i, name in enumerate(old.strings("rlnMicrographName")) if "c" not in name[5:6]]
    order = sorted(rows, key=lambda i: (old.strings("rlnMicrographName")[i], i))
    assert list(new.columns) == list(old.columns)
    for label in ("rlnAngleRot", "rlnDefocusU", "rlnRandomSubset", "rlnMicrographName"):
        assert new.strings(label) == [old.strings(label)[i] for i in order]
    names = new.strings("rlnImageName")
    assert names[0] == f"00000001@{JOB}Mics/a.mrcs"
    assert len(set(names)) == len(names) == 6
    # No more than half a pixel is left in the origins.
    for axis in "XY":
        assert np.abs(new.floats(f"rlnOrigin{axis}Angst")).max() <= 0.5 * PIXEL_A + 1e-9
        assert (new.floats(f"rlnCoordinate{axis}") % 1 == 0).all()
    optics = after["optics"]
    assert optics.strings("rlnOpticsGroup") == ["1"]  # the one that has particles
    assert optics.floats("rlnImagePixelSize")[0] == pytest.approx(PIXEL_A * 100 / 60)
    assert optics.strings("rlnImageSize") == ["60"]
    assert "rlnMicrographPixelSize" not in optics.columns
    for name in ("extractpick.star", "reextract.star"):
        listed = star.load(project / JOB / name)["coordinate_files"]
        assert listed.strings("rlnMicrographName") == ["Mics/a.mrc", "Mics/b.mrc"]


def test_what_is_done_is_not_done_again(project):
    again(project)
    stack = project / JOB / "Mics/a.mrcs"
    stamp = stack.stat().st_mtime_ns
    said = again(project, more=True)
    assert "2 of 2 micrographs have their result already" in said.stdout
    assert stack.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"do_recenter": "Yes", "do_reset_offsets": "Yes"}, "one of the two"),
        ({"fndata_reextract": "none.star"}, "none.star"),
        ({"do_extract_helix": "Yes"}, "helical"),
        ({"rescale": "61"}, "must be even"),
    ],
)
def test_wrong_options_are_refused(project, changes, words):
    if "do_extract_helix" in changes:
        pytest.importorskip("schemer")
        command = native.described(
            project, JOB, "relion.extract", {"star_mics": "mics.star", "do_extract_helix": "Yes"}
        )
        assert "relion.extract.helical" in native.ran(command, project, 1).stderr
        return
    assert words in again(project, 1, **changes).stderr


def test_a_point_of_the_reference_is_where_the_view_has_it():
    x_axis = projected(np.array([[0.0, 0.0, 0.0], [90.0, 0.0, 0.0], [0.0, 0.0, 90.0]]), (1, 0, 0))
    np.testing.assert_allclose(x_axis, [[1, 0], [0, -1], [0, -1]], atol=1e-12)
    np.testing.assert_allclose(
        projected(np.array([[0.0, 90.0, 0.0]]), (0, 0, 2)), [[-2, 0]], atol=1e-12
    )
    found = recentred(np.array([[100.0, 50.0]]), np.array([[3.3, -2.1]]), 1.1)
    assert (found.x_px[0], found.y_px[0]) == (97, 52)
    np.testing.assert_allclose(found.origin_y_A, [0.1], atol=1e-9)


def test_a_refinement_of_relions_tutorial_is_read():
    path = shared("data/star/relion_tutorial")
    files = sorted(path.rglob("run_data.star"))
    if not files:
        pytest.skip("no refinement there")
    particles = star.load(files[0])["particles"]
    angles = np.stack([particles.floats(f"rlnAngle{a}") for a in ("Rot", "Tilt", "Psi")], axis=1)
    moved = projected(angles, (0.0, 0.0, 10.0))
    assert np.isfinite(moved).all()
    assert np.hypot(*moved.T).max() <= 10 + 1e-9
