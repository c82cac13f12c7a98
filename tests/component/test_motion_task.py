"""The motion correction task: every file that can be asked for, and what is refused."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from algorithms.formats import mrc, star
from algorithms.motion.starfile import read_motion
from algorithms.simulate.session import encode_tiff
from services.kit.errors import Refused
from services.prep.requests import MotionRequest, MotionResult
from services.prep.tasks import motioncorr
from tests.motionmovies import standard_movie

SHAPE = (6, 300, 400)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    frames = standard_movie(3, shape=SHAPE[1:], counts=4.0).frames[: SHAPE[0]].copy()
    frames[:, 20:23, 30:34] = 200  # larger than what is found by itself
    (folder / "a.tiff").write_bytes(encode_tiff(frames, 1.0))
    (folder / "defects.txt").write_text("30 20 4 3\n")
    return folder


def request(**changes: object) -> MotionRequest:
    ask = MotionRequest(
        movie="a",
        movie_path="a.tiff",
        root="Motion/a",
        gain_path=None,
        gain_name=None,
        gain_rotation=0,
        gain_flip=0,
        width_px=SHAPE[2],
        height_px=SHAPE[1],
        n_frames=SHAPE[0],
        pixel_size_A=1.0,
        voltage_kV=300.0,
        dose_per_frame_e_A2=1.0,
        pre_exposure_e_A2=0.0,
        first_frame=1,
        last_frame=-1,
        bin_factor=1.0,
        bfactor_px2=None,
        dose_weighting=True,
        save_nodw=True,
        save_ps=True,
        dose_per_ps_e_A2=2.0,
        float16=False,
    )
    return msgspec.structs.replace(ask, **changes)


def carried_out(project: Path, folder: Path, ask: MotionRequest) -> tuple[dict, MotionResult]:
    output = motioncorr(msgspec.msgpack.encode(ask), folder, project)
    found = {Path(target).name: folder / name for name, target in output.files.items()}
    return found, msgspec.msgpack.decode(output.result, type=MotionResult)


def test_every_file_that_can_be_asked_for(project: Path, tmp_path: Path) -> None:
    ask = request(even_odd=True, patches=(3, 3), defect_path="defects.txt", ps_size=256)
    files, result = carried_out(project, tmp_path, ask)
    kinds = ("", "_noDW", "_EVN", "_ODD", "_PS")
    images = [f"a{kind}.mrc" for kind in kinds]
    assert list(files) == ["a.log", *images, "a_shifts.png", "a.star"]
    assert "rounds" in files["a.log"].read_text()
    images = {kind: mrc.read(files[f"a{kind}.mrc"]) for kind in kinds}
    assert images["_PS"].shape == (256, 256)
    assert images["_noDW"].max() < 100  # the block of 200 in each of six frames is filled
    np.testing.assert_allclose(images["_EVN"] + images["_ODD"], images["_noDW"], atol=1e-4)
    saved = read_motion(star.load(files["a.star"]))
    general = star.load(files["a.star"])["general"].row(0)
    assert general["rlnMicrographDefectFile"] == "defects.txt"
    assert saved.shape == SHAPE
    assert (result.local_rmsd_px is None) == (saved.model is None)
    with Image.open(files["a_shifts.png"]) as picture:
        assert picture.size == (600, 450)
        colours = {colour for _, colour in picture.getcolors(1 << 16) or []}
    assert (200, 30, 30) in colours and (160, 160, 160) in colours


def test_what_is_not_asked_for_is_not_made(project: Path, tmp_path: Path) -> None:
    ask = request(save_nodw=False, save_ps=False, skip_defects=True, group_frames=2)
    files, result = carried_out(project, tmp_path, ask)
    assert list(files) == ["a.log", "a.mrc", "a_shifts.png", "a.star"]
    assert result.local_rmsd_px is None and result.hot_pixels == 0
    assert mrc.read(files["a.mrc"]).max() > 300  # bad pixels were left


def test_the_same_twice(project: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    written = []
    for folder in folders:
        folder.mkdir()
        files, _ = carried_out(project, folder, request(patches=(3, 3), float16=True))
        written.append({name: path.read_bytes() for name, path in files.items()})
    assert written[0] == written[1]


def test_defects_of_another_camera_are_refused(project: Path, tmp_path: Path) -> None:
    mrc.write(project / "other.mrc", np.zeros((10, 10), np.float32), 1.0)
    for path in ("other.mrc", "missing.txt"):
        with pytest.raises(Refused, match=f"defect file .*{path}"):
            motioncorr(msgspec.msgpack.encode(request(defect_path=path)), tmp_path, project)


def test_too_few_groups_are_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="in groups of 3; at least 3"):
        motioncorr(msgspec.msgpack.encode(request(group_frames=3)), tmp_path, project)


def write_gain(project: Path, name: str, shape: tuple[int, int]) -> np.ndarray:
    gain = np.random.default_rng(4).uniform(0.8, 1.2, shape).astype(np.float32)
    mrc.write(project / name, gain, 1.0)
    return gain


def test_the_gain_as_applied_is_kept_once(project: Path, tmp_path: Path) -> None:
    gain = write_gain(project, "turned.mrc", (400, 300))
    kept = project / "Motion/gain.mrc"
    ask = request(gain_path="turned.mrc", gain_name="Motion/gain.mrc", gain_rotation=1, gain_flip=2)
    files, result = carried_out(project, tmp_path, ask)
    assert result.reference_note == ""
    general = star.load(files["a.star"])["general"].row(0)
    assert general["rlnMicrographGainName"] == "Motion/gain.mrc"
    np.testing.assert_array_equal(mrc.read(kept), np.rot90(gain, -1)[:, ::-1])
    # The copy, which is not turned, gives the same micrograph.
    again = request(gain_path="Motion/gain.mrc", gain_name="Motion/gain.mrc")
    other = tmp_path / "other"
    other.mkdir()
    same, _ = carried_out(project, other, again)
    np.testing.assert_array_equal(mrc.read(same["a.mrc"]), mrc.read(files["a.mrc"]))
    written = kept.stat()
    carried_out(project, tmp_path, ask)
    assert kept.stat() == written
    kept.write_bytes(b"torn")
    carried_out(project, tmp_path, ask)
    assert kept.stat().st_size == written.st_size


def test_a_gain_of_another_size_is_told(project: Path, tmp_path: Path) -> None:
    for name, shape, how in (
        ("half", (150, 200), "used for 2 x 2"),
        ("twice", (600, 800), "over 2"),
    ):
        write_gain(project, f"{name}.mrc", shape)
        ask = request(gain_path=f"{name}.mrc", gain_name=f"Motion/{name}.mrc")
        _, result = carried_out(project, tmp_path, ask)
        assert how in result.reference_note and f"{name}.mrc" in result.reference_note
        assert mrc.read(project / f"Motion/{name}.mrc").shape == SHAPE[1:]


def test_defects_that_were_found_and_cannot_be_read(project: Path, tmp_path: Path) -> None:
    (project / "turned.txt").write_text("CameraSizeX 400\nCameraSizeY 300\nRotationAndFlip 3\n")
    ask = request(defect_path="turned.txt", defects_found=True)
    _, result = carried_out(project, tmp_path, ask)
    assert "found by their brightness only" in result.reference_note
    with pytest.raises(Refused, match="RotationAndFlip is 3"):
        carried_out(project, tmp_path, request(defect_path="turned.txt"))


def test_doses_that_differ_change_the_weights(project: Path, tmp_path: Path) -> None:
    images = []
    for doses in (None, ((1.0, 6),), ((0.1, 3), (8.0, 3))):
        files, _ = carried_out(project, tmp_path, request(frame_doses=doses))
        images.append(mrc.read(files["a.mrc"]))
    np.testing.assert_array_equal(images[0], images[1])
    assert np.abs(images[2] - images[0]).max() > 0.1
