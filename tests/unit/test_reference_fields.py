"""Every dialect of mdoc, MRC, TIFF and EER, field by field, against the reference results.

EPU's documents have the same table in test_epu_documents.py.
"""

from typing import Any

import pytest

from mdcatch.parsers import parse
from tests.metadata import Sample, same, samples

FOLDERS = {"serialem", "tomo5", "mrc", "synthetic"}
SAMPLES = [one for one in samples() if one.dialect in FOLDERS]
INSIDE = ("sections", "first_section")  # tables with fields of their own


def dialect_of(sample: Sample) -> str:
    """Return folder and kind: frames, tilt series, maps, sums and movies say different things."""
    return f"{sample.path.parent.name} {sample.expected['format']} {sample.expected['kind']}"


def tables(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key) or ()
    return [found] if isinstance(found, dict) else list(found)


def fields() -> list[tuple[str, str, str]]:
    """Return every dialect, table ("" for the file itself) and key with a reference value."""
    found: set[tuple[str, str, str]] = set()
    for sample in SAMPLES:
        keys = set(sample.expected) - {"notes", *INSIDE}
        found |= {(dialect_of(sample), "", key) for key in keys}
        for inside in INSIDE:
            for table in tables(sample.expected, inside):
                found |= {(dialect_of(sample), inside, key) for key in table}
    return sorted(found)


@pytest.fixture(scope="module")
def parsed() -> list[tuple[Sample, dict[str, Any]]]:
    return [(one, parse(one.content, str(one.path)).as_json()) for one in SAMPLES]


@pytest.mark.parametrize(("dialect", "inside", "key"), fields())
def test_field(
    dialect: str, inside: str, key: str, parsed: list[tuple[Sample, dict[str, Any]]]
) -> None:
    for sample, got in parsed:
        if dialect_of(sample) != dialect:
            continue
        wanted, given = [sample.expected], [got]
        if inside:
            wanted, given = tables(sample.expected, inside), tables(got, inside)
        assert len(given) == len(wanted)
        for one, other in zip(given, wanted, strict=True):
            if key not in other:  # a movie that is cut says nothing but that
                continue
            assert key in one, "every key of the reference result is there, null or not"
            value = f"{sample.path.name}: {one[key]} not {other[key]}"
            assert same(one[key], other[key], key), value


def test_all_samples_are_in_the_table() -> None:
    if not SAMPLES:
        pytest.skip("reference data not here")
    assert len(SAMPLES) == 26
    assert len({dialect_of(sample) for sample in SAMPLES}) >= 8
