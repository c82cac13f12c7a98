"""The real metadata samples and their reference results; comparing a record with one.

Tolerances as in the samples' SOURCE.md: numbers 1e-4 relative, times the same instant.
"""

import json
import math
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from mdcatch.parsers import Record
from tests.shared import SHARED

ROOT = SHARED / "data/metadata"
APART = {"notes"}  # sentences, not values


class Sample(NamedTuple):
    """A file, what it must give, and where it comes from."""

    path: Path
    expected: dict[str, Any]
    dialect: str

    @property
    def content(self) -> bytes:
        return self.path.read_bytes()


@cache
def samples(folder: str = "") -> list[Sample]:
    """Return the samples with a reference result below a folder; none where they are not here."""
    found = []
    for place in sorted((ROOT / folder).rglob("*.expected.json")):
        expected = json.loads(place.read_text())
        if "kind" in expected:  # listings and tables are no metadata files
            path = place.with_name(place.name.removesuffix(".expected.json"))
            found.append(Sample(path, expected, path.relative_to(ROOT / folder).parts[0]))
    return found


@cache
def one_of_each(folder: str = "") -> list[Sample]:
    """Return the first sample of each dialect and kind."""
    first: dict[tuple[str, str], Sample] = {}
    for sample in samples(folder):
        first.setdefault((sample.dialect, sample.expected["kind"]), sample)
    return list(first.values())


def same(got: Any, wanted: Any, key: str) -> bool:
    """Tell whether a value is the reference value, within its tolerance."""
    if got is None or wanted is None or isinstance(wanted, bool):
        return got is wanted
    if isinstance(wanted, dict):
        return set(got) >= set(wanted) and all(same(got[k], wanted[k], k) for k in wanted)
    if isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(same, got, wanted, [key] * len(wanted)))
    if isinstance(wanted, float | int):
        tolerance = 0.05 if key == "n_frames_estimate" else 1e-4
        return math.isclose(got, wanted, rel_tol=tolerance, abs_tol=1e-15)
    if key.endswith("_time"):
        return datetime.fromisoformat(got) == datetime.fromisoformat(wanted)
    return got == wanted


def differences(record: Record, expected: dict[str, Any]) -> list[str]:
    """Return one line per value that is not the reference value."""
    got = record.as_json()
    return [
        f"{key} is {got.get(key)!r:.200}, not {wanted!r:.200}"
        for key, wanted in expected.items()
        if key not in APART and not same(got.get(key), wanted, key)
    ]


ORDERED = {"_items", "m_serializationArray", "KeyValuePairs"}
ORDERED |= {"DoseFractions", "Fractions", "Defocus"}


def shuffled(content: bytes, random: Any) -> bytes:
    """Return an XML document with the elements below each element in another order.

    Lists keep theirs: there it has a meaning.
    """
    root = etree.fromstring(content, etree.XMLParser(remove_comments=True))
    for element in list(root.iter()):
        if element.tag.rpartition("}")[2] not in ORDERED:
            children = list(element)
            random.shuffle(children)
            element[:] = children
    return etree.tostring(root)
