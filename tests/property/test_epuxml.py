"""Whatever bytes stand in EPU's documents, the parser returns a whole record or refuses."""

import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from mdcatch.parsers import Record, parse
from mdcatch.parsers.epuxml import parse_epu_image
from services.kit.errors import Code, Refused
from tests.epu_tree import image_xml, stem
from tests.metadata import Sample, one_of_each, samples, shuffled

WHOLE = image_xml()
NAME = f"{stem()}.xml"
SMALL = 20_000  # bytes; such a document is cut at each of them
EDGE = 100  # bytes at either end of a large document that are cut one by one
CUTS = 100  # of a large document, in the default run


def outcome(data: bytes, name: str = NAME) -> Record | Code:
    """Parse; check that a record holds only finite numbers and that a refusal tells why."""
    try:
        record = parse(data, name)
    except Refused as error:
        assert error.detail and len(error.detail) < 1000
        return error.code
    for key, field in record.fields.items():
        assert all(map(math.isfinite, numbers(field.value))), key
    return record


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        yield from numbers(tuple(value.values()))
    elif isinstance(value, tuple):
        for one in value:
            yield from numbers(one)


def label(sample: Sample) -> str:
    return f"{sample.dialect}-{sample.expected['kind']}"


def cuts(length: int, wanted: int, seed: int) -> list[int]:
    """Return every length of a small document, of a large one the ends and a dense choice."""
    if length <= SMALL:
        return list(range(length))
    some = random.Random(seed).sample(range(length), min(wanted, length))
    return sorted({*range(EDGE), *some, *range(length - EDGE, length)})


def check_cuts(sample: Sample, wanted: int) -> None:
    content = sample.content.rstrip()
    for length in cuts(len(content), wanted, seed=1):
        code = outcome(content[:length], str(sample.path))
        # A root element whose name is cut in the middle is that of no EPU document.
        assert code in (Code.TRUNCATED, Code.EMPTY_FILE, Code.UNSUPPORTED), (length, code)
        assert length < 500 or code == Code.TRUNCATED


@pytest.mark.parametrize("sample", one_of_each("epu"), ids=label)
def test_a_sample_cut_anywhere_is_truncated_never_a_record(sample: Sample):
    check_cuts(sample, CUTS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sample", samples("epu"), ids=lambda s: s.path.name)
def test_every_sample_cut_anywhere_is_truncated_never_a_record(sample: Sample):
    check_cuts(sample, 20_000)


@pytest.mark.parametrize("sample", one_of_each("epu"), ids=label)
def test_no_part_of_a_sample_closes_its_root(sample: Sample):
    """Byte by byte: the last one alone completes the document, so no shorter part can be taken."""

    class Depth:
        opened = closed = 0

        def start(self, tag: str, attributes: dict[str, str]) -> None:
            self.opened += 1

        def end(self, tag: str) -> None:
            self.closed += 1

        def close(self) -> None: ...

    content, depth = sample.content.rstrip(), Depth()
    parser = etree.XMLParser(target=depth, encoding="utf-8")
    for place in range(len(content) - 1):
        parser.feed(content[place : place + 1])
        assert depth.opened == 0 or depth.opened > depth.closed, place
    parser.feed(content[-1:])
    parser.close()
    assert depth.opened == depth.closed > 0


@pytest.mark.parametrize("sample", one_of_each("epu"), ids=label)
def test_a_nul_byte_anywhere_is_refused(sample: Sample):
    content = sample.content.rstrip()
    for place in random.Random(2).sample(
        range(len(content)), min(200 if len(content) < 10 * SMALL else 30, len(content))
    ):
        for data in (
            content[:place] + b"\0" + content[place:],
            content[:place] + b"\0" * (len(content) - place),  # reserved, not yet written
        ):
            assert isinstance(outcome(data, str(sample.path)), Code), place
    assert outcome(content + b"\0", str(sample.path)) is Code.XML_BROKEN


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - 1))
def test_a_document_cut_anywhere_is_never_a_record(length: int):
    assert outcome(WHOLE[:length]) in (Code.TRUNCATED, Code.EMPTY_FILE, Code.UNSUPPORTED)


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


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_name_gives_a_record_with_identifiers_of_digits(name: str):
    try:
        record = parse_epu_image(WHOLE, name)
    except Refused as error:
        pytest.fail(f"{name!r}: {error}")
    for key in ("grid_square_id", "foil_hole_id", "acquisition_area_id", "acquisition_seq_id"):
        value = record.get(key)
        assert value is None or (value.isascii() and value.isdigit())


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_elements_does_not_matter(order: random.Random):
    assert parse(shuffled(WHOLE, order), NAME) == parse(WHOLE, NAME)
