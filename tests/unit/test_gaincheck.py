"""Gain and MTF files: which one, and which way round; certain, or no answer."""

import dataclasses
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from algorithms.formats import mrc
from algorithms.formats.gain import load_gain
from algorithms.gain_orientation import ORIENTATIONS, find_orientation, match, oriented
from algorithms.simulate.movie import RenderedMovie, render_movie, session_detector
from algorithms.simulate.recipe import Recipe, load_recipe
from mdcatch.gain_command import gain_command
from mdcatch.gaincheck import check_gain, same_as
from mdcatch.gainfiles import Choice, choose_gain, date_in, needs_gain
from mdcatch.mtf import choose_mtf
from services.kit.sitetables import Camera
from tests.shared import shared

SEEDS = range(12)


def recipe(electrons: float, gain_noise: float = 0.03, **changes: int) -> Recipe:
    """Ten frames of 1.5 A pixels that hold `electrons` per pixel in all."""
    return dataclasses.replace(
        load_recipe("tiny"),
        n_frames=10,
        pixel_size_A=1.5,
        dose_per_frame_e_A2=electrons / 10 / 1.5**2,
        gain_noise=gain_noise,
        n_particles=6,
        **changes,
    )


@lru_cache(maxsize=2 * len(SEEDS))  # several tests look at the same movies; none changes one
def rendered(seed: int, electrons: float, gain_noise: float = 0.03, **changes: int):
    return render_movie(recipe(electrons, gain_noise, **changes), seed)


def mean(movie: RenderedMovie) -> np.ndarray:
    return movie.frames.mean(axis=0, dtype=np.float32)


def turned_away(gain: np.ndarray, rotation: int, flip: int) -> np.ndarray:
    """Return the file from which (rotation, flip) makes the gain."""
    if flip:
        gain = (gain[::-1], gain[:, ::-1])[flip - 1]
    return np.ascontiguousarray(np.rot90(gain, rotation))


def answer(mean: np.ndarray, gain: np.ndarray):
    found = find_orientation(mean, gain, np.random.default_rng(0))
    return None if found.best is None else (found.best.rotation, found.best.flip)


# The eight orientations


@pytest.mark.parametrize("rotation", range(4))
@pytest.mark.parametrize("flip", range(3))
def test_orientations_are_those_of_motion_correction(tmp_path, rotation, flip):
    pattern = 0.5 + np.arange(12, dtype=np.float32).reshape(3, 4)
    mrc.write(tmp_path / "gain.mrc", pattern, 1.0)
    expected = oriented(pattern, rotation, flip)
    loaded = load_gain(tmp_path / "gain.mrc", expected.shape, rotation, flip)
    np.testing.assert_array_equal(loaded, expected)
    np.testing.assert_array_equal(oriented(pattern, *same_as(rotation, flip)), expected)
    assert same_as(rotation, flip) in ORIENTATIONS


def test_eight_orientations_are_all_different():
    pattern = np.arange(16.0).reshape(4, 4)
    assert len({oriented(pattern, *one).tobytes() for one in ORIENTATIONS}) == 8


# Simulated movies with known orientation


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_is_found(orientation):
    for seed in (1, 2, 3):
        movie = rendered(seed, electrons=10.0)
        assert answer(mean(movie), turned_away(movie.gain, *orientation)) == orientation


@pytest.mark.parametrize(
    ("electrons", "gain_noise", "least"),
    [
        (10.0, 0.03, 12),  # ten frames of 1 e/px and 3 %: preprocessing.md section 9.1
        (3.0, 0.03, 12),
        (30.0, 0.01, 12),
        (3.0, 0.02, 5),
        (0.3, 0.03, 0),  # too few electrons in 256 x 256 px
        (30.0, 0.0, 0),  # only waves and seams, which look alike when mirrored
    ],
)
def test_an_answer_is_right_or_there_is_none(electrons, gain_noise, least):
    right = 0
    for seed in SEEDS:
        orientation = ORIENTATIONS[seed % 8]
        movie = rendered(seed, electrons, gain_noise)
        found = answer(mean(movie), turned_away(movie.gain, *orientation))
        assert found in (orientation, None), seed
        right += found == orientation
    assert right >= least


def test_there_is_no_answer_where_none_can_be():
    for seed in SEEDS:
        movie = rendered(seed, electrons=10.0)
        frames, rng = mean(movie), np.random.default_rng(seed)
        flat = find_orientation(frames, np.ones_like(movie.gain), rng)
        assert flat.best is None
        assert flat.reason.startswith("the gain is flat")
        corrected = find_orientation(frames * movie.gain, movie.gain, rng)
        assert corrected.best is None
        assert "corrected already" in corrected.reason
        other = session_detector(recipe(10.0), seed + 1000).gain
        assert find_orientation(frames, other, rng).best is None
    assert find_orientation(np.ones_like(frames), movie.gain, rng).best is None


def test_a_symmetric_gain_has_two_right_orientations_and_no_answer():
    rng = np.random.default_rng(1)
    half = 1 + 0.03 * rng.standard_normal((128, 64))
    gain = np.concatenate([half, half[:, ::-1]], axis=1).astype(np.float32)
    frames = rng.poisson(10.0 / gain).astype(np.float32)
    found = find_orientation(frames, gain, rng)
    assert found.best is None
    assert found.reason.startswith("two orientations fit alike")


def test_a_gain_that_divides_is_recognised():
    for seed in SEEDS:
        movie = rendered(seed, electrons=10.0)
        inverse = np.divide(1, movie.gain, out=np.zeros_like(movie.gain), where=movie.gain > 0)
        found = find_orientation(mean(movie), turned_away(inverse, 1, 2), np.random.default_rng(0))
        assert found.is_inverse
        assert found.best is not None
        assert (found.best.rotation, found.best.flip) == (1, 2)


def test_frames_that_are_not_square_leave_four_orientations():
    movie = rendered(4, electrons=10.0, nx=256, ny=192)
    for orientation in ((1, 0), (1, 1), (2, 0)):
        found = find_orientation(
            mean(movie), turned_away(movie.gain, *orientation), np.random.default_rng(0)
        )
        assert found.best is not None
        assert (found.best.rotation, found.best.flip) == orientation
        assert len(found.scores) == 4


def test_gain_and_frames_are_compared_at_the_coarser_sampling():
    movie = rendered(5, electrons=20.0)
    frames, gain = mean(movie), movie.gain
    blocks = frames.reshape(128, 2, 128, 2)
    binned = blocks.mean(axis=(1, 3))  # a movie that was binned by 2: its gain is twice its size
    assert answer(*match(binned, turned_away(gain, 3, 0))) == (3, 0)
    whole = gain.reshape(128, 2, 128, 2)
    small = np.where(whole.all(axis=(1, 3)), whole.mean(axis=(1, 3)), 0).astype(np.float32)
    finer = np.random.default_rng(5).poisson(
        (20.0 / np.where(small > 0, small, 1)).repeat(2, axis=0).repeat(2, axis=1)
    )
    assert answer(*match(finer.astype(np.float32), turned_away(small, 0, 2))) == (0, 2)
    with pytest.raises(ValueError, match="256 x 256 px fits no frames of 100 x 128 px"):
        match(np.ones((128, 100), np.float32), gain)
    with pytest.raises(ValueError, match="match them first"):
        find_orientation(binned, gain, np.random.default_rng(0))


# Files


def write_session(folder: Path, orientation: tuple[int, int] = (0, 0)) -> tuple[list[Path], Path]:
    made = recipe(10.0, nx=256, ny=224)
    paths = []
    for index in range(2):
        movie = render_movie(made, 6, index=index)
        paths.append(folder / f"movie{index}.mrc")
        mrc.write(paths[-1], movie.frames.astype(np.int16), 1.5, is_stack=True)
    gain = folder / "gain.mrc"
    mrc.write(gain, turned_away(movie.gain, *orientation), 1.5)
    return paths, gain


def test_files_are_compared_and_the_answer_is_a_setting(tmp_path):
    movies, gain = write_session(tmp_path, (1, 2))
    right = check_gain(movies, gain, 1, 2)
    assert (right.found, right.flag, right.n_frames) == ((1, 2), "", 20)
    assert check_gain(movies, gain, 3, 1).flag == ""  # the same orientation, said otherwise
    wrong = check_gain(movies, gain)
    assert (wrong.found, wrong.flag) == ((1, 2), "gain_orientation")
    assert "gain_rot 1 and gain_flip 2, not 0 and 0" in wrong.sentence
    assert wrong.scores[0][:2] == (1, 2)
    assert wrong.scores[0][2] > 10 * wrong.chance
    assert load_gain(gain, (224, 256), *wrong.found).shape == (224, 256)


def test_a_middle_part_gives_the_same_answer(tmp_path, monkeypatch):
    movies, gain = write_session(tmp_path, (2, 0))
    monkeypatch.setattr("mdcatch.gaincheck.PART_PX", 160)
    found = check_gain(movies, gain)
    assert found.found == (2, 0)
    assert len(found.scores) == 4  # a turn by 90 degrees does not fit, though the part is square


def test_what_cannot_be_compared_says_why(tmp_path):
    movies, gain = write_session(tmp_path)
    mrc.write(tmp_path / "other.mrc", np.ones((100, 90), np.float32), 1.0)
    other = check_gain(movies, tmp_path / "other.mrc")
    assert other.flag == "gain_mismatch"
    assert "90 x 100 px fits no frames of 256 x 224 px" in other.sentence
    (tmp_path / "gain.dm4").write_bytes(b"\0" * 200)
    assert check_gain(movies, tmp_path / "gain.dm4").flag == "gain_unchecked"
    assert "no movie was given" in check_gain([], gain).sentence
    assert check_gain([tmp_path / "absent.mrc"], gain).flag == "gain_unchecked"
    mixed = check_gain([movies[0], tmp_path / "other.mrc"], gain)
    assert "unlike the movies before" in mixed.sentence


def test_the_command_prints_scores_and_ends_with_1_when_wrong(tmp_path):
    import typer

    app = typer.Typer()
    app.command()(gain_command)
    movies, gain = write_session(tmp_path, (0, 1))
    arguments = [*map(str, movies), "--gain", str(gain)]
    wrong = CliRunner().invoke(app, arguments)
    assert wrong.exit_code == 1
    assert wrong.output.splitlines()[0].startswith("gain_rot 0  gain_flip 1  correlation")
    right = CliRunner().invoke(app, [*arguments, "--flip", "1", "--json"])
    assert right.exit_code == 0
    assert json.loads(right.output)["found"] == [0, 1]


def test_the_reference_movies_fit_their_gain():
    session = next(shared("data/movies/sim_30S").glob("Supervisor_*"))
    movies = sorted(session.rglob("*_fractions.tiff"))
    found = check_gain(movies, session / "gain.mrc")
    assert (found.found, found.flag) == ((0, 0), "")
    assert check_gain(movies[:1], session / "gain.mrc", 0, 1).flag == "gain_orientation"


# Which file

K3 = Camera(model="K3", gain=("*_gain.tiff", "*_special.mrc"), gain_folder="/gains")
EER = "20240830_103455_EER_GainReference.gain"
EPU_MOVIE = "G/Data/FoilHole_1_Data_2_3_20240901_060108_EER.eer"
GAINS = ["/gains/20240715_080000_EER_GainReference.gain", f"/gains/{EER}"]
GAINS += ["/gains/20240901_060107_EER_GainReference.gain"]
GAINS += ["/gains/20241001_080000_EER_GainReference.gain", "/gains/notes.txt"]


def test_a_stated_name_is_found_in_the_cameras_folder_whatever_its_case():
    found = choose_gain(EPU_MOVIE, EER.upper(), K3, [], GAINS)
    assert found == Choice(f"/gains/{EER}", f"{EER} is stated by the metadata")


def test_a_stated_gain_that_is_gone_is_replaced_by_the_one_valid_then():
    found = choose_gain(EPU_MOVIE, "20240901_000000_x.gain", K3, [], GAINS)
    assert found.path == "/gains/20240901_060107_EER_GainReference.gain"
    assert found.flag == "gain_by_date"
    early = "FoilHole_1_Data_2_3_20240101_060108_EER.eer"
    assert choose_gain(early, "x.gain", K3, [], GAINS).flag == "gain_missing"
    assert choose_gain(EPU_MOVIE, None, K3, [], GAINS).flag == "gain_by_date"


def test_the_gain_twin_of_a_converted_mrc_goes_first():
    files = ["/gains/a.mrc", "/gains/A.gain"]
    assert choose_gain(EPU_MOVIE, "a.mrc", None, [], files).path == "/gains/A.gain"
    assert choose_gain(EPU_MOVIE, "a.mrc", None, [], files[:1]).path == "/gains/a.mrc"


@pytest.mark.parametrize(
    ("camera", "beside", "expected"),
    [
        (K3, ["D/x_special.mrc", "D/y_gain.tiff"], "D/x_special.mrc"),
        (K3, ["D/Y_GAIN.TIFF"], "D/Y_GAIN.TIFF"),
        (K3, ["D/y-gain-ref.MRC"], None),  # the site's patterns replace the built-in ones
        (None, ["D/FoilHole_1_Data_2_3_20200101_0000-gain-ref.MRC"], "first"),
        (Camera(model="K2"), ["D/y_fractions.tiff", "gain.mrc"], "gain.mrc"),
        (None, ["D/y.tiff"], None),
    ],
)
def test_patterns_of_the_camera(camera, beside, expected):
    found = choose_gain("D/m_fractions.tiff", None, camera, beside)
    assert found.path == (beside[0] if expected == "first" else expected)
    assert (found.flag == "gain_missing") == (found.path is None)


SERIALEM = [
    "CountRef_a_Oct07_22.10.00.mrc",
    "CountRef_a_Oct08_01.59.24.mrc",
    "SuperRef_a_Oct08_07.00.00.mrc",
    "CountRef_a_Oct08_09.00.00.mrc",
]


def test_serialems_reference_is_the_newest_that_is_not_later_than_the_movie():
    def choose(movie: str, at: str | None = None) -> str | None:
        return choose_gain(movie, None, None, SERIALEM, (), at).path

    assert choose("s_00993_33.0_Oct08_07.39.05.tif") == SERIALEM[2]
    assert choose("s_00993_33.0_Oct08_07.39.05.tif", "2021-10-08T07:39:08") == SERIALEM[2]
    assert choose("s_00001_Oct08_01.59.24.tif") == SERIALEM[1]
    assert choose("s_00001_Oct08_00.00.01.tif") == SERIALEM[0]
    assert choose("s_00001_Oct07_00.00.01.tif") is None
    assert choose("without_date.tif", "2021-10-08T23:00:00+02:00") == SERIALEM[3]
    assert choose("without_date.tif") is None
    new_year = choose_gain("m_Jan01_00.10.00.tif", None, None, ["SuperRef_b_Dec31_20.00.00.mrc"])
    assert new_year.path is not None
    only = choose_gain("m.tif", None, None, ["CountRef_syn_00000.mrc"])
    assert only.flag == "gain_by_order"


def test_a_dm4_is_chosen_only_without_a_twin():
    stated = "SuperRef_s_Oct08_01.59.24.dm4"
    found = choose_gain("m.tif", stated, None, [stated])
    assert (found.path, found.flag) == (stated, "")
    twin = choose_gain("m.tif", stated, None, [stated, stated.replace("dm4", "mrc")])
    assert twin.path == "SuperRef_s_Oct08_01.59.24.mrc"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("FoilHole_1_Data_2_3_20200323_1002-1.mrc", "2020-03-23T10:02"),
        ("2023-09-25_14.13.07_Grid9.tif", "2023-09-25T14:13:07"),
        ("x_Feb29_10.00.00.tif", "2000-02-29T10:00"),
        ("x_Feb30_10.00.00.tif", None),
        ("x_Foo08_10.00.00.tif", None),
        ("Position_1_20241301_250000.eer", None),
        ("12345678.mrc", None),
    ],
)
def test_dates_in_names(name, expected):
    from datetime import datetime

    found = date_in(f"20010101_000000/{name}", datetime(2000, 6, 1))
    assert found == (datetime.fromisoformat(expected) if expected else None)


@pytest.mark.parametrize(
    ("format", "detector", "corrected", "expected"),
    [
        ("mrc", "BM-Falcon", None, False),
        ("mrc", "EF-CCD", None, True),
        ("tiff", "EF-Falcon", None, True),
        ("eer", "EF-Falcon", None, True),
        ("tiff", "EF-CCD", True, False),
        ("mrc", None, None, True),
    ],
)
def test_which_frames_need_a_gain(format, detector, corrected, expected):
    assert needs_gain(format, detector, corrected) == expected


# Modulation transfer function

FALCON = Camera(
    model="Falcon 4i",
    mtf={"counting": "/mtf/f4i_{kV}kV.star", "linear": "/mtf/f4i_linear.star"},
)
GATAN = Camera(model="K3", mtf={"counting": "/k3.star", "super-resolution": "/k3_sr_{kV}.star"})


@pytest.mark.parametrize(
    ("camera", "kV", "counting", "fine", "path", "reason"),
    [
        (FALCON, 300.0, True, False, "/mtf/f4i_300kV.star", "Falcon 4i, counting, 300 kV"),
        (FALCON, 200.0, False, False, "/mtf/f4i_linear.star", "Falcon 4i, linear, 200 kV"),
        (FALCON, 300.0, None, False, None, "whether Falcon 4i counted electrons is unknown"),
        (FALCON, None, True, False, None, "the voltage is unknown"),
        (GATAN, 299.97, None, False, "/k3.star", "K3, counting, 300 kV"),
        (GATAN, 300.0, True, True, "/k3_sr_300.star", "K3, super-resolution, 300 kV"),
        (FALCON, 300.0, True, True, None, "no MTF of Falcon 4i in super-resolution mode"),
        (None, 300.0, True, False, None, "the camera is not in the site's configuration"),
    ],
)
def test_mtf_by_camera_mode_and_voltage(camera, kV, counting, fine, path, reason):
    found = choose_mtf(camera, kV, counting, fine)
    assert found.path == (None if path is None else Path(path))
    assert found.reason.startswith(reason)
