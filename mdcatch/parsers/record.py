"""What a metadata file says: checked fields, each with its source. Absent is unknown.

Source: acquisition.md section 9 (provenance); reliability.md section 2.11 (bounds).
"""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import msgspec

from mdcatch.parsers.fields import FIELDS, MAX_TEXT, Spec
from mdcatch.parsers.keys import KEYS
from mdcatch.parsers.limits import number
from services.kit.errors import Code, Refused

_YEARS = range(1990, 2101)  # in which a digital camera can have taken an exposure

Source = Literal[
    "xml", "mdoc", "header", "name", "frames x rate", "computed", "site", "operator", "inherited"
]


class Field(msgspec.Struct, frozen=True):
    """A value in the unit of its `FIELDS` entry, and where it comes from."""

    value: Any
    source: Source


class Record(msgspec.Struct, kw_only=True):
    """One metadata file. Vectors are tuples, times ISO 8601 as the file writes them."""

    format: str  # epu_xml, epu_fractions_xml, mdoc, mrc, mrc_fei1, tiff, eer, dm4, ...
    kind: str  # exposure, foil_hole_image, fraction_table, frame_set, tilt_series, movie, ...
    fields: dict[str, Field] = {}
    notes: list[str] = []  # sentences for a person
    flags: list[str] = []  # words for a program, such as dose_conflict; a note explains each
    unknown: dict[str, str] = {}  # keys of the file without a field here, untouched
    sections: list[dict[str, Any]] = []  # of a series, each with the same keys as `fields`

    def put(self, key: str, value: Any, source: Source) -> None:
        """Keep a value that is in its bounds; None changes nothing.

        Parameters
        ----------
        key
            Member of `FIELDS`.
        value
            In the field's unit.
        source
            Where it comes from.

        Raises
        ------
        Refused
            OUT_OF_RANGE, naming the field, the value and its bounds.
        """
        if value is not None:
            self.fields[key] = Field(checked(key, value), source)

    def read(self, key: str, text: str | None, source: Source, scale: float = 1.0) -> None:
        """Keep the number that a file writes as `text`, times `scale`; see `put`."""
        if text is not None:
            self.put(key, parsed(key, text, scale), source)

    def get(self, key: str) -> Any:
        """Return a field's value, None when it is unknown."""
        field = self.fields.get(key)
        return None if field is None else field.value

    def flag(self, word: str, sentence: str) -> None:
        """Report that two sources disagree, or that a value is doubtful."""
        if word not in self.flags:
            self.flags.append(word)
        self.notes.append(f"{word}: {sentence}")

    def as_json(self) -> dict[str, Any]:
        """Return one flat object: every key this kind of file can have, null where unknown."""
        keys = KEYS.get(f"{self.format} {self.kind}") or KEYS.get(self.format, ())
        answer: dict[str, Any] = {"format": self.format, "kind": self.kind}
        answer |= {key: self.get(key) for key in keys}
        answer |= {key: field.value for key, field in self.fields.items()}
        if self.sections:
            answer["sections"] = self.sections
        answer["notes"] = self.notes
        answer["flags"] = self.flags
        answer["unknown"] = self.unknown
        answer["sources"] = {key: field.source for key, field in self.fields.items()}
        return answer


def checked(key: str, value: Any) -> Any:
    """Return a value as its field keeps it.

    Parameters
    ----------
    key
        Member of `FIELDS`.
    value
        In the field's unit.

    Raises
    ------
    Refused
        OUT_OF_RANGE, naming the field, the value and its bounds.
    """
    spec = FIELDS[key]
    kept = _CHECKS[spec.type](value, spec)
    if kept is None:
        raise Refused(Code.OUT_OF_RANGE, f"{key} is {_shown(value)}; it must be {_wanted(spec)}")
    return kept


def parsed(key: str, text: str, scale: float = 1.0) -> float | int:
    """Return the number that a file writes as `text`, times `scale`, in its field's bounds.

    Parameters
    ----------
    key
        Member of `FIELDS`.
    text
        What the file says, in the file's unit.
    scale
        Factor from the file's unit to the field's.

    Raises
    ------
    Refused
        OUT_OF_RANGE, naming the field, the value and its bounds.
    """
    spec = FIELDS[key]
    value = number(key, text, spec.bounds, scale)
    if not spec.type.startswith("whole"):
        return value
    if not value.is_integer():
        raise Refused(Code.OUT_OF_RANGE, f"{key} is {text[:40]!r}; it must be a whole number")
    return int(value)


def frozen(value: Any) -> Any:
    """Return nested lists as tuples, the form in which a record keeps them."""
    if isinstance(value, list | tuple):
        return tuple(map(frozen, value))
    if isinstance(value, dict):
        return {key: frozen(one) for key, one in value.items()}
    return value


# ---- one check per type: the value to keep, or None

_Check = Callable[[Any, Spec], Any]


def _number(value: Any, spec: Spec) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, float | int):
        return None
    low, high, _ = spec.bounds
    return value if low <= value <= high and math.isfinite(value) else None


def _whole(value: Any, spec: Spec) -> int | None:
    number = _number(value, spec)
    return None if number is None or number != int(number) else int(number)


def _numbers(value: Any, spec: Spec) -> tuple[float | int, ...] | None:
    return _each(value, spec, _number)


def _wholes(value: Any, spec: Spec) -> tuple[float | int, ...] | None:
    return _each(value, spec, _whole)


def _each(value: Any, spec: Spec, check: _Check) -> tuple[float | int, ...] | None:
    if not isinstance(value, list | tuple) or spec.length not in (None, len(value)):
        return None
    kept = tuple(number for one in value if (number := check(one, spec)) is not None)
    return kept if len(kept) == len(value) else None


def _text(value: Any, spec: Spec) -> str | None:
    fits = isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()
    return value if fits else None


def _flag(value: Any, spec: Spec) -> bool | None:
    return value if isinstance(value, bool) else None


def _time(value: Any, spec: Spec) -> str | None:
    if not isinstance(value, str) or not 19 <= len(value) <= 40 or value[10] != "T":
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return value if time.year in _YEARS else None


def _table(value: Any, spec: Spec) -> Any:
    return frozen(value)


_CHECKS = {
    "text": _text,
    "number": _number,
    "whole": _whole,
    "yes or no": _flag,
    "time": _time,
    "numbers": _numbers,
    "wholes": _wholes,
    "table": _table,
}


def _wanted(spec: Spec) -> str:
    match spec.type:
        case "text":
            return f"printable text of at most {MAX_TEXT} characters"
        case "time":
            return f"a time as ISO 8601 writes it, {_YEARS[0]} to {_YEARS[-1]}"
        case "yes or no":
            return "yes or no"
    what = {
        "number": "a number",
        "whole": "a whole number",
        "numbers": f"{spec.length or 'some'} numbers, each",
        "wholes": f"{spec.length or 'some'} whole numbers, each",
    }[spec.type]
    return f"{what} {spec.bounds}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
