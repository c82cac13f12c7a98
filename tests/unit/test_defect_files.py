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


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (
            "CameraSizeX 5760\nRotationAndFlip 3\nBadColumns 10 11\n",
            "UNSUPPORTED",
            "clip defectmap",
        ),
        ("K2Type 1\n", "UNSUPPORTED", "SerialEM"),
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
