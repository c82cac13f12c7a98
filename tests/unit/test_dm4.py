"""Gatan's files: gain references as SerialEM writes them, and broken ones."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithms.formats import dm4
from mdcatch.parsers.dm4 import parse_dm4, read_gain
from mdcatch.parsers.window import Window
from services.kit.errors import Code, Refused
from tests.header_files import dm_file

GAIN = np.arange(35, dtype=np.float32).reshape(5, 7) / 35 + 0.5


def parse(content: bytes) -> Any:
    return parse_dm4(Window.of_bytes(content), "CountRef_a.dm4")


def code_of(content: bytes) -> Code:
    with pytest.raises(Refused) as caught:
        parse(content)
    assert "CountRef_a.dm4" in caught.value.detail
    return caught.value.code


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["int16", "float32", "uint8", "int32", "uint16", "float64"])
def test_size_type_pixel_and_values(version: int, order: str, dtype: str) -> None:
    image = (GAIN * 100).astype(dtype)
    content = dm_file(image, version=version, order=order)
    record = parse(content)
    assert (record.format, record.kind) == (f"dm{version}", "gain_reference")
    assert record.get("image_size_px") == (7, 5)
    assert record.get("pixel_format") == dtype
    assert record.get("image_pixel_size_A") == pytest.approx(0.5)
    assert record.get("complete") is True
    gain = read_gain(Window.of_bytes(content), "a.dm4")
    assert gain.dtype == np.float32 and gain.flags.c_contiguous
    # The top row comes first in the file, last in MRC orientation.
    np.testing.assert_array_equal(gain, image[::-1].astype(np.float32))


def test_a_file_on_disk_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "SuperRef_a.dm4"
    path.write_bytes(dm_file(GAIN))
    np.testing.assert_array_equal(dm4.load(path), GAIN[::-1])


@pytest.mark.parametrize(("unit", "pixel"), [("nm", 0.5), ("A", 0.05), ("µm", 500.0), ("", None)])
def test_the_pixel_needs_a_length(unit: str, pixel: float | None) -> None:
    assert parse(dm_file(GAIN, unit=unit)).get("image_pixel_size_A") == pytest.approx(pixel)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_makes_no_sense_is_unknown(scale: float) -> None:
    assert parse(dm_file(GAIN, scale=scale)).get("image_pixel_size_A") is None


def test_a_stack_is_a_movie_and_no_gain() -> None:
    stack = np.zeros((3, 5, 7), np.uint8)
    content = dm_file(stack)
    record = parse(content)
    assert (record.kind, record.get("n_frames"), record.get("image_size_px")) == (
        "movie",
        3,
        (7, 5),
    )
    with pytest.raises(Refused) as caught:
        read_gain(Window.of_bytes(content), "a.dm4")
    assert caught.value.code == Code.UNSUPPORTED


@pytest.mark.parametrize("version", [3, 4])
def test_a_file_cut_anywhere_is_truncated(version: int) -> None:
    whole = dm_file(GAIN, version=version).rstrip(b"\0")
    for length in range(1, len(whole)):
        assert code_of(whole[:length]) == Code.TRUNCATED, length


def broken(content: bytes, offset: int, letters: str, value: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(letters, changed, offset, value)
    return bytes(changed)


WHOLE = dm_file(GAIN)
IMAGES = WHOLE.index(b"ImageList")


def nested(depth: int) -> bytes:
    """Groups in groups."""
    body = b""
    for _ in range(depth):
        group = b"\1\0" + struct.pack(">q", 1 if body else 0) + body
        body = struct.pack(">BH", 20, 1) + b"g" + struct.pack(">q", len(group)) + group
    root = b"\1\0" + struct.pack(">q", 1) + body
    return struct.pack(">iqi", 4, len(root), 1) + root + bytes(8)


HOSTILE = [
    (b"", Code.EMPTY_FILE),
    (struct.pack(">iqi", 5, 0, 1) + bytes(100), Code.BAD_HEADER),
    (broken(WHOLE, 12, ">i", 7), Code.BAD_HEADER),
    (broken(WHOLE, 4, ">q", -1), Code.BAD_HEADER),
    (broken(WHOLE, 18, ">q", -1), Code.BAD_HEADER),
    (broken(WHOLE, 18, ">q", 0), Code.UNSUPPORTED),
    (broken(WHOLE, 26, ">B", 99), Code.BAD_HEADER),
    (broken(WHOLE, 27, ">H", 60_000), Code.BAD_HEADER),
    (broken(WHOLE, WHOLE.index(b"%%%%") + 4, ">q", 2**62), Code.BAD_HEADER),
    (broken(WHOLE, WHOLE.index(b"%%%%") + 12, ">q", 77), Code.BAD_HEADER),
    (WHOLE.replace(b"%%%%", b"%%%$"), Code.BAD_HEADER),
    (WHOLE.replace(b"ImageList", b"ImageLost"), Code.UNSUPPORTED),
    (WHOLE.replace(b"DataType", b"DataTypo"), Code.UNSUPPORTED),
    (dm_file(GAIN, dimensions=(7, 6)), Code.BAD_HEADER),
    (dm_file(GAIN, dimensions=(0, 6)), Code.BAD_HEADER),
    (dm_file(GAIN, dimensions=(40_000, 40_000)), Code.BAD_HEADER),
    (nested(dm4.MAX_DEPTH + 2), Code.TOO_LARGE),
]


@pytest.mark.parametrize(("content", "code"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_and_broken_files_are_refused(content: bytes, code: Code) -> None:
    assert code_of(content) == code


def test_arrays_beyond_the_file_and_too_many_tags_are_refused() -> None:
    data = WHOLE.index(b"\x00\x04Data", IMAGES)  # the thumbnail's
    count = WHOLE.index(b"%%%%", data) + 4 + 8 + 16
    assert code_of(broken(WHOLE, count, ">q", 2**60)) == Code.TRUNCATED
    assert code_of(broken(WHOLE, count, ">q", -5)) == Code.BAD_HEADER
    empty = struct.pack(">BH", 20, 0) + struct.pack(">q", 10) + b"\1\0" + bytes(8)
    root = b"\1\0" + struct.pack(">q", dm4.MAX_TAGS + 1) + empty * (dm4.MAX_TAGS + 1)
    assert code_of(struct.pack(">iqi", 4, len(root), 1) + root) == Code.TOO_LARGE
