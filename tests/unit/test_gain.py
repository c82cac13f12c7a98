"""Gain references: eight orientations, whole-factor sizes, defects."""

import numpy as np
import pytest
import tifffile

from algorithms.formats import mrc
from algorithms.formats.errors import FormatError
from algorithms.formats.gain import load_gain

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
