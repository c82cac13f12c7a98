"""Gain references: eight orientations, whole-factor sizes, defects."""

import numpy as np
import pytest
import tifffile

from algorithms.formats import mrc
from algorithms.formats.errors import FormatError
from algorithms.formats.gain import load_gain
from tests.eer_files import big_tiff
from tests.header_files import dm_file

PATTERN = 0.5 + np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def gain_file(tmp_path):
    mrc.write(tmp_path / "gain.mrc", PATTERN, 1.0)
    return tmp_path / "gain.mrc"


@pytest.mark.parametrize("rotation", range(4))
@pytest.mark.parametrize("flip", range(3))
def test_rotation_comes_before_flip(gain_file, rotation, flip):
    height, width = PATTERN.shape
    rotated = np.zeros((width, height) if rotation % 2 else (height, width), np.float32)
    for y in range(height):
        for x in range(width):
            target = {
                0: (y, x),
                1: (x, height - 1 - y),
                2: (height - 1 - y, width - 1 - x),
                3: (width - 1 - x, y),
            }[rotation]
            rotated[target] = PATTERN[y, x]
    expected = {0: rotated, 1: rotated[::-1], 2: rotated[:, ::-1]}[flip]
    read = load_gain(gain_file, rotated.shape, rotation, flip)
    np.testing.assert_array_equal(read, expected)
    assert read.dtype == np.float32
    assert read.flags.c_contiguous


def test_tiff_gain_is_turned_like_a_tiff_movie(tmp_path):
    tifffile.imwrite(tmp_path / "gain.tif", PATTERN)
    np.testing.assert_array_equal(load_gain(tmp_path / "gain.tif", (3, 4)), PATTERN[::-1])


def test_counting_gain_for_a_super_resolution_movie(gain_file):
    gain = load_gain(gain_file, (6, 8))
    for y, x in ((0, 0), (1, 1), (5, 7), (2, 5)):
        assert gain[y, x] == PATTERN[y // 2, x // 2]


def test_super_resolution_gain_for_a_counting_movie(tmp_path):
    fine = np.ones((6, 8), np.float32)
    fine[0, 0], fine[5, 7] = 3, 0
    mrc.write(tmp_path / "gain.mrc", fine, 1.0)
    expected = np.ones((3, 4))
    expected[0, 0], expected[2, 3] = 1.5, 0  # a block with a defect is a defect
    np.testing.assert_array_equal(load_gain(tmp_path / "gain.mrc", (3, 4)), expected)


def test_the_gain_of_an_eer_camera_is_used_as_it_is_stored(tmp_path):
    tifffile.imwrite(tmp_path / "a.gain", PATTERN)
    read = load_gain(tmp_path / "a.gain", (3, 4), is_eer=True)
    np.testing.assert_array_equal(read, PATTERN)
    fine = load_gain(tmp_path / "a.gain", (6, 8), is_eer=True)
    np.testing.assert_array_equal(fine[::2, ::2], PATTERN)


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".dm4"])
def test_any_other_gain_of_an_eer_movie_divides(tmp_path, suffix):
    pattern = PATTERN.copy()
    pattern[1, 2] = 0
    path = tmp_path / f"gain{suffix}"
    if suffix == ".mrc":
        mrc.write(path, pattern, 1.0)
    elif suffix == ".tif":
        tifffile.imwrite(path, pattern[::-1])
    else:
        path.write_bytes(dm_file(pattern[::-1]))
    expected = np.zeros((3, 4))
    expected[pattern > 0] = pattern.mean() / pattern[pattern > 0]
    read = load_gain(path, (3, 4), is_eer=True)
    np.testing.assert_allclose(read, expected, rtol=1e-6)
    np.testing.assert_array_equal(load_gain(path, (3, 4)), pattern)
    fine = load_gain(path, (6, 8), is_eer=True)
    np.testing.assert_allclose(fine[1::2, 1::2], expected, rtol=1e-6)


def test_an_eer_gain_of_twice_the_size(tmp_path):
    """For one that divides the sum of a block is meant; of one that multiplies, the mean."""
    fine = np.random.default_rng(1).uniform(0.8, 1.2, (6, 8)).astype(np.float32)
    fine[5, 7] = 0
    sums = fine.reshape(3, 2, 4, 2).sum((1, 3))
    sums[2, 3] = 0  # a block with a defect is a defect
    mrc.write(tmp_path / "gain.mrc", fine, 1.0)
    expected = np.divide(sums.mean(), sums, out=np.zeros((3, 4), np.float32), where=sums > 0)
    found = load_gain(tmp_path / "gain.mrc", (3, 4), is_eer=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    tifffile.imwrite(tmp_path / "a.gain", fine)
    np.testing.assert_allclose(
        load_gain(tmp_path / "a.gain", (3, 4), is_eer=True), sums / 4, rtol=1e-6
    )


@pytest.mark.parametrize("version", [3, 4])
def test_a_dm_file_is_turned_upside_down(tmp_path, version):
    path = tmp_path / f"gain.dm{version}"
    path.write_bytes(dm_file(PATTERN, version=version))
    np.testing.assert_array_equal(load_gain(path, (3, 4)), PATTERN[::-1])


def test_what_is_no_gain(tmp_path):
    path = tmp_path / "a.eer"
    path.write_bytes(big_tiff([bytes(8)] * 3, (48, 64)))
    with pytest.raises(FormatError, match="an EER movie is no gain reference"):
        load_gain(path, (48, 64))
    path = tmp_path / "a.dm4"
    path.write_bytes(b"no DM4 file")
    with pytest.raises(FormatError, match="BAD_HEADER"):
        load_gain(path, (48, 64))


@pytest.mark.parametrize("shape", [(4, 3), (3, 8), (6, 4), (5, 7), (3, 3)])
def test_other_sizes_are_refused_with_both_sizes(gain_file, shape):
    with pytest.raises(FormatError, match=f"4 x 3 px after rotation, the movie {shape[1]} x") as e:
        load_gain(gain_file, shape)
    assert e.value.code == "BAD_HEADER"


def test_gains_without_sense_are_refused(tmp_path, gain_file):
    tifffile.imwrite(tmp_path / "nan.tif", np.array([[1, np.nan]], np.float32))
    mrc.write(tmp_path / "zero.mrc", np.zeros((1, 2)), 1.0)
    mrc.write(tmp_path / "stack.mrc", np.ones((2, 1, 2)), 1.0, is_stack=True)
    for name in ("nan.tif", "zero.mrc", "stack.mrc"):
        with pytest.raises(FormatError, match="BAD_HEADER"):
            load_gain(tmp_path / name, (1, 2))
    for rotation, flip in ((4, 0), (-1, 0), (0, 3)):
        with pytest.raises(ValueError, match="gain rotation"):
            load_gain(gain_file, (3, 4), rotation, flip)


DEFECTS = "<defects><row>1</row><col>4-5</col><area>0,2,1,3</area><point>3,3</point></defects>"


def test_defects_of_a_gain_file_are_zero(tmp_path):
    gain = np.full((5, 7), 1.5, np.float32)
    expected = gain.copy()
    expected[1] = 0
    expected[:, 4:6] = 0
    expected[2:4, 0:2] = 0
    expected[3, 3] = 0
    path = tmp_path / "a.gain"
    for kind in ("s", "B"):
        tag = (65100, kind, 0 if kind == "s" else len(DEFECTS), DEFECTS.encode(), True)
        tifffile.imwrite(path, gain, extratags=[tag])
        np.testing.assert_array_equal(load_gain(path, (5, 7), is_eer=True), expected)


@pytest.mark.parametrize("text", ["<other/>", "<defects><row>9</row></defects>"])
def test_defects_of_a_gain_file_that_are_none(tmp_path, text):
    path = tmp_path / "a.gain"
    gain = np.ones((5, 7), np.float32)
    tifffile.imwrite(path, gain, extratags=[(65100, "s", 0, text.encode(), True)])
    with pytest.raises(FormatError, match="tag 65100: the defects"):
        load_gain(path, (5, 7), is_eer=True)
