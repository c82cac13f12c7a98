"""Files that name bad pixels: lists of rectangles, maps, and what is refused."""

import numpy as np
import pytest
import tifffile

from algorithms.formats import mrc
from algorithms.formats.defects import MAX_TEXT_BYTES, defect_mask, load_defects
from algorithms.formats.errors import FormatError


def test_rectangles_are_clipped_to_the_image(tmp_path):
    text = "1 2 3 1\n\n 8 0 5 2\r\n-2 5 3 1\n"
    expected = np.zeros((6, 10), bool)
    expected[2, 1:4] = True
    expected[0:2, 8:10] = True
    expected[5, 0] = True
    np.testing.assert_array_equal(defect_mask(text, (6, 10)), expected)
    (tmp_path / "a.txt").write_text(text)
    np.testing.assert_array_equal(load_defects(tmp_path / "a.txt", (6, 10)), expected)


@pytest.mark.parametrize("name", ["a.mrc", "a.tif"])
def test_maps_lie_as_movies_do(tmp_path, name):
    bad = np.zeros((6, 10), np.float32)
    bad[1, 3] = 1
    if name == "a.mrc":
        mrc.write(tmp_path / name, bad, 1.0)
    else:
        tifffile.imwrite(tmp_path / name, bad[::-1].astype("u1"))
    found = load_defects(tmp_path / name, (6, 10))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, bad > 0)
    with pytest.raises(FormatError, match="10 x 6 px, the movie 6 x 10"):
        load_defects(tmp_path / name, (10, 6))


SERIALEM = """# of a test
CameraSizeX 10
CameraSizeY 6
RotationAndFlip 0
K2Type 1
BadPixels 1 0 2 5
BadColumns 9
BadRows 4
PartialBadColumn 5 2 1 3
PartialBadRow 2 1 0 3
"""


def test_a_list_of_serialem_counts_from_the_top(tmp_path):
    top_down = np.zeros((6, 10), bool)
    top_down[[0, 5], [1, 2]] = True
    top_down[:, 9] = True
    top_down[4] = True
    top_down[1:4, 5:7] = True
    top_down[2, 0:4] = True
    path = tmp_path / "defects_1.txt"
    path.write_text(SERIALEM)
    np.testing.assert_array_equal(load_defects(path, (6, 10)), top_down[::-1])
    finer = top_down[::-1].repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(load_defects(path, (12, 20)), finer)
    coarser = top_down[::-1].reshape(3, 2, 5, 2).any((1, 3))
    np.testing.assert_array_equal(load_defects(path, (3, 5)), coarser)
    path.write_text(SERIALEM.replace("BadRows 4", "UsableArea 1 1 4 8"))
    found = load_defects(path, (6, 10))[::-1]
    assert found[0].all() and found[5].all() and found[:, 0].all() and not found[4, 3]


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (
            "CameraSizeX 5760\nRotationAndFlip 3\nBadColumns 10 11\n",
            "UNSUPPORTED",
            "clip defectmap",
        ),
        ("K2Type 1\n", "BAD_HEADER", "CameraSizeX and CameraSizeY are 0 and 0"),
        ("CameraSizeX 99999\nCameraSizeY 99999\nBadRows 1\n", "BAD_HEADER", "movie is 10 x 6"),
        ("CameraSizeX 10\nCameraSizeY 6\nBadColumns 10\n", "BAD_HEADER", "BadColumns has 10"),
        ("CameraSizeX 10\nCameraSizeY 6\nBadPixels 1 2 3\n", "BAD_HEADER", "line 3"),
        ("CameraSizeX 10\nCameraSizeY 6\nBadThings 1\n", "BAD_HEADER", "line 3"),
        ("1 2 3\n", "BAD_HEADER", "line 1"),
        ("1 2 3 4\n1 2 3.5 4\n", "BAD_HEADER", "line 2"),
        ("1 2 3 99999999999999999999\n", "BAD_HEADER", "line 1"),
        ("0 0 10 6\n", "BAD_HEADER", "every pixel"),
        ("\0\xff" * 10, "BAD_HEADER", "line 1"),
        ("1 1 1 1\n" * (MAX_TEXT_BYTES // 8 + 1), "TOO_LARGE", "the limit is"),
    ],
)
def test_other_lists_are_refused(tmp_path, text, code, said):
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(FormatError, match=said) as error:
        load_defects(path, (6, 10))
    assert error.value.code == code
