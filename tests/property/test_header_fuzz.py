"""Whatever bytes stand in a header, there is a record or a refusal: nothing else."""

import math
import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdcatch.parsers.dm4 import parse_dm4, read_gain
from mdcatch.parsers.eerheader import parse_eer
from mdcatch.parsers.mrcheader import parse_mrc
from mdcatch.parsers.record import Record
from mdcatch.parsers.tiffheader import parse_tiff
from mdcatch.parsers.window import Window
from services.kit.errors import Code, Refused
from tests.header_files import dm_file, eer_file, fei_record, mrc_file, tiff_file
from tests.shared import shared


class Case(NamedTuple):
    """A parser and a whole file for it."""

    parse: Callable[[Window, str], Record]
    content: bytes


EXTENDED = fei_record("FEI2", {"HT": 3e5, "Dose": 4e21, "Magnification": 1e5, "D-Number": "3299"})
TEXT = (2, "SerialEM r/f 3\nCountRef_a.mrc\ndefects_a.txt")
CASES = {
    "mrc": Case(parse_mrc, mrc_file(nz=3)),
    "fei": Case(parse_mrc, mrc_file(extended=EXTENDED, kind=b"FEI2")),
    "tiff": Case(parse_tiff, tiff_file([{270: TEXT, 282: (5, (10**8, 1))}, {}, {}])),
    "bigtiff": Case(parse_tiff, tiff_file([{}, {}], big=True, order=">")),
    "eer": Case(parse_eer, eer_file(3, sums=1)),
    "dm4": Case(parse_dm4, dm_file(np.ones((3, 4), np.float32))),
    "dm3": Case(parse_dm4, dm_file(np.ones((3, 4), np.float32), version=3)),
}
case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def outcome(case: Case, content: bytes) -> Record | Code:
    """Parse; check that a record holds only finite numbers, and that only headers were read."""
    asked = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal asked
        assert offset >= 0 and length >= 0
        asked += length
        return content[offset : offset + length]

    try:
        record = case.parse(Window(read, len(content)), "a file")
    except Refused as error:
        assert error.detail
        return error.code
    assert asked < 2 * len(content) + 10_000
    for field in record.fields.values():
        values = field.value if isinstance(field.value, tuple) else (field.value,)
        assert all(math.isfinite(value) for value in values if isinstance(value, float))
    if case.parse is parse_dm4 and record.kind == "gain_reference":
        assert read_gain(Window.of_bytes(content), "a").shape == record.get("image_size_px")[::-1]
    return record


@case
def test_a_file_cut_at_every_byte(case: Case) -> None:
    whole = outcome(case, case.content)
    assert isinstance(whole, Record) and whole.get("complete") is True
    for length in range(len(case.content.rstrip(b"\0"))):
        cut = outcome(case, case.content[:length])
        if isinstance(cut, Record):
            assert cut.get("complete") is False, length
            known = {key: field.value for key, field in cut.fields.items()}
            del known["complete"]
            known.pop("size_bytes", None)
            assert all(whole.get(key) == value for key, value in known.items()), length
            assert not known or case.parse is parse_mrc
        else:
            assert cut in (Code.TRUNCATED, Code.EMPTY_FILE), length


@case
@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=12))
def test_changed_bytes(case: Case, changes: list[tuple[int, int]]) -> None:
    content = bytearray(case.content)
    for place, value in changes:
        content[place % len(content)] = value
    outcome(case, bytes(content))


@case
@settings(max_examples=200, deadline=None)
@given(
    place=st.integers(0, 10_000),
    value=st.sampled_from(
        [b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 7 + b"\x7f", bytes(8), b"\x80" + bytes(7)]
    ),
    width=st.sampled_from([1, 2, 4, 8]),
)
def test_extreme_numbers_anywhere(case: Case, place: int, value: bytes, width: int) -> None:
    content = bytearray(case.content)
    place %= len(content)
    content[place : place + width] = value[:width]
    outcome(case, bytes(content))


@case
@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=3000))
def test_any_bytes_behind_the_right_beginning(case: Case, content: bytes) -> None:
    for kept in (0, 4, 16, 300):
        outcome(case, case.content[:kept] + content)


SAMPLES = pytest.mark.parametrize(
    ("parse", "name", "step"),
    [
        (parse_mrc, "mrc/epu1.2_k2_fei1_sum.mrc", 4001),
        (parse_tiff, "synthetic/k3_serialem_8frames.tif", 101),
        (parse_eer, "synthetic/falcon4i_20frames.eer", 101),
    ],
)
Parse = Callable[[Window, str], Record]


def check_sample_cut(parse: Parse, content: bytes, lengths: Iterable[int]) -> None:
    """A cut movie says that it is cut, and of what it says nothing is other than in the whole."""
    sample = Case(parse, content)
    whole = outcome(sample, content)
    assert isinstance(whole, Record)
    for length in lengths:
        cut = outcome(sample, content[:length])
        if not isinstance(cut, Record):
            assert cut in (Code.TRUNCATED, Code.EMPTY_FILE), length
            continue
        assert cut.get("complete") is False
        for key in cut.fields.keys() - {"complete", "size_bytes"}:
            assert cut.fields[key] == whole.fields[key], (length, key)
            assert parse is parse_mrc, "its header alone tells nothing of a TIFF"


@SAMPLES
def test_the_samples_cut(parse: Parse, name: str, step: int) -> None:
    content = shared(f"data/metadata/{name}").read_bytes()
    ends = [*range(1900), *range(1900, len(content), step), *range(len(content) - 99, len(content))]
    check_sample_cut(parse, content, ends)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@SAMPLES
def test_the_samples_cut_at_every_byte(parse: Parse, name: str, step: int) -> None:
    content = shared(f"data/metadata/{name}").read_bytes()
    check_sample_cut(parse, content, range(0, len(content), 1 if step < 1000 else 7))


@SAMPLES
def test_the_samples_changed(parse: Parse, name: str, step: int) -> None:
    content = shared(f"data/metadata/{name}").read_bytes()
    sample, rng = Case(parse, content), random.Random(3)
    for _ in range(100):
        changed = bytearray(content)
        for _ in range(rng.randrange(1, 30)):
            changed[rng.randrange(min(len(changed), 4096))] = rng.randrange(256)
        outcome(sample, bytes(changed))
