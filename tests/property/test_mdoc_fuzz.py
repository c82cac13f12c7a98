"""Whatever bytes stand in an mdoc, the parser returns a record or refuses: nothing else.

And nothing half: of a file that is cut, what a record says is what the whole file says.
"""

import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.simulate.epu import plan_session
from algorithms.simulate.recipe import load_recipe
from algorithms.simulate.serialem import DIALECTS, frame_mdoc
from mdcatch.parsers.mdoc import parse_mdoc
from mdcatch.parsers.record import Record
from services.kit.errors import Code, Refused
from tests.shared import shared

RECIPE = load_recipe("tiny")
EXPOSURE = plan_session(RECIPE, 1)[0]
FRAMES = [
    frame_mdoc(RECIPE, EXPOSURE, 15_000.0, gain="CountRef_a.mrc", dialect=dialect).encode()
    for dialect in DIALECTS
]
GLOBAL_LINES = 3  # title, voltage, blank


def as_series(number: int) -> bytes:
    """A tilt series made of the second dialect's sections."""
    lines = FRAMES[1].decode().split("\n")
    head = ["PixelSpacing = 1.5", f"[{lines[0]}]", "[T =  Tilt axis angle = 80, dosym = 8]", ""]
    for n in range(number):
        head += [f"[ZValue = {n}]", *lines[GLOBAL_LINES + 1 :]]
    return "\n".join(head).encode()


SERIES = as_series(3)
WHOLE = [*FRAMES, SERIES]


def outcome(content: bytes) -> Record | Code:
    """Parse; check that a record holds only finite numbers."""
    try:
        record = parse_mdoc(content, "a.mdoc")
    except Refused as error:
        assert error.detail
        return error.code
    for number in numbers(record.as_json()):
        assert math.isfinite(number)
    return record


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for one in value.values() for number in numbers(one)]
    if isinstance(value, list | tuple):
        return [number for one in value for number in numbers(one)]
    return [value] if isinstance(value, float) else []


def shots(record: Record) -> list[dict[str, Any]]:
    alone = {key: field.value for key, field in record.fields.items()}
    return record.sections or [alone]


def check_cut(whole: bytes, length: int) -> None:
    """A cut file is refused, or says nothing that the whole file does not say."""
    cut = outcome(whole[:length])
    if not isinstance(cut, Record):
        assert cut in (Code.TRUNCATED, Code.EMPTY_FILE, Code.BAD_HEADER), length
        return
    full = outcome(whole)
    assert isinstance(full, Record)
    if full.kind == "montage":  # it grows piece by piece, and no movie hangs on it
        return
    for got, wanted in zip(shots(cut), shots(full), strict=False):
        # What is computed from all there is, and what is said of the whole, may differ.
        for key in set(got) - {"notes", "flags", "unknown", "n_sections", "section"}:
            if got[key] is not None and "estimate" not in key:
                assert got[key] == wanted.get(key), (length, key)
        # Everything up to the time is there: dose, pixel, frames, files.
        for key in ("total_dose_e_per_A2", "pixel_size_A", "n_frames", "movie_file"):
            assert got.get(key) == wanted.get(key), (length, key)


@pytest.mark.parametrize("whole", WHOLE, ids=[*DIALECTS, "series"])
def test_a_file_cut_at_every_byte(whole: bytes) -> None:
    for length in range(len(whole)):
        check_cut(whole, length)


def cuts(path: Path) -> range:
    """Every byte of a small file, some of a large one."""
    size = path.stat().st_size
    return range(0, size, 1 if size < 2000 else 499)


def test_every_real_file_cut() -> None:
    found = sorted(shared("data/metadata").rglob("*.mdoc"))
    for path in found:
        content = path.read_bytes()
        for length in cuts(path):
            check_cut(content, length)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_real_file_cut_at_every_byte() -> None:
    for path in sorted(shared("data/metadata").rglob("*.mdoc")):
        content = path.read_bytes()
        for length in range(len(content)):
            check_cut(content, length)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=40),
)
def test_changed_bytes(whole: bytes, changes: list[tuple[int, int]]) -> None:
    content = bytearray(whole)
    for place, value in changes:
        content[place % len(content)] = value
    outcome(bytes(content))


def test_one_byte_in_a_hundred_of_every_real_file_changed() -> None:
    rng = random.Random(8)
    for path in sorted(shared("data/metadata").rglob("*.mdoc")):
        whole = path.read_bytes()
        for _ in range(4):
            content = bytearray(whole)
            for _ in range(len(whole) // 100):
                content[rng.randrange(len(content))] = rng.randrange(256)
            outcome(bytes(content))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(WHOLE), st.integers(0, 10_000), st.integers(0, 10_000), st.binary(max_size=80)
)
def test_a_span_replaced_by_anything(whole: bytes, a: int, b: int, inserted: bytes) -> None:
    begin, end = sorted((a % len(whole), b % len(whole)))
    outcome(whole[:begin] + inserted + whole[end:])


LINE = st.one_of(
    st.sampled_from(SERIES.decode().split("\n")),
    st.text(max_size=40),
    st.builds(
        "{} = {}".format,
        st.sampled_from([line.split(" = ")[0] for line in FRAMES[2].decode().split("\n")]),
        st.one_of(
            st.floats().map(str),
            st.integers().map(str),
            st.text(max_size=20),
            st.sampled_from(["NaN", "1e999", "-0", "1.0e-005", "0 0", "1 2 3", "9" * 400]),
        ),
    ),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(LINE, max_size=60), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_lines(lines: list[str], end: str) -> None:
    outcome(end.join(lines).encode("utf-8", "surrogatepass"))


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(FRAMES))
def test_the_order_of_keys_does_not_matter(rng: random.Random, whole: bytes) -> None:
    lines = whole.decode().splitlines()
    head, values = lines[: GLOBAL_LINES + 1], lines[GLOBAL_LINES + 1 :]
    rng.shuffle(values)
    first, second = outcome("\n".join([*head, *values, ""]).encode()), outcome(whole)
    assert isinstance(first, Record) and isinstance(second, Record)
    assert first.fields == second.fields
    assert first.unknown == second.unknown
