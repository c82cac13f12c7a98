"""Whatever bytes stand in an image XML, the parser returns a record or refuses: nothing else."""

import math

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mdcatch.parsers.epuxml import EpuImage, parse_image
from services.kit.errors import Code, Refused
from tests.epu_tree import image_xml
from tests.shared import shared

WHOLE = image_xml()


def outcome(data: bytes) -> EpuImage | Code:
    """Parse; check that a record holds only finite numbers."""
    try:
        record = parse_image(data)
    except Refused as error:
        assert error.detail
        return error.code
    for field, value in msgspec.structs.asdict(record).items():
        if isinstance(value, float):
            assert math.isfinite(value), field
    return record


def test_a_sample_cut_anywhere_is_truncated_never_a_record():
    path = next(shared("data/metadata/epu/epu3.4.0_k3").rglob("FoilHole_*_Data_*.xml"))
    data = path.read_bytes().rstrip()
    for length in [*range(1, 200), *range(200, len(data), 97), len(data) - 1]:
        assert outcome(data[:length]) == Code.TRUNCATED, length


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - 1))
def test_a_document_cut_anywhere_is_never_a_record(length: int):
    assert outcome(WHOLE[:length]) in (Code.TRUNCATED, Code.EMPTY_FILE)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=40))
@example([(0, 0)])
def test_flipped_bytes_give_a_record_or_a_refusal(flips: list[tuple[int, int]]):
    data = bytearray(WHOLE)
    for position, value in flips:
        data[position] = value
    outcome(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)), st.binary(max_size=64))
def test_a_span_replaced_by_anything_gives_a_record_or_a_refusal(
    begin: int, end: int, inserted: bytes
):
    outcome(WHOLE[: min(begin, end)] + inserted + WHOLE[max(begin, end) :])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_in_a_number_gives_a_record_or_a_refusal(text: str):
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    outcome(image_xml(dose_e_m2=escaped).replace(b"\x00", b" "))
