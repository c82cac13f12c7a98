"""What the operators compute, as functions of plain values. Source: schemes.md sections 1 and 3."""

import math
import re
from collections.abc import Sequence

from schemer.errors import SchemeError
from schemer.scheme import UNDEFINED, parse_bool

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_NEVER_AN_INDEX = -(2**31)  # what C++ makes of a number that is no index


def literal(text: str) -> float | None:
    """Return the number written directly in an Input2 column, None if it is not a number."""
    return float(text) if _NUMBER.fullmatch(text) else None


def leading_number(text: str) -> float:
    """Return the number at the start of a text, as C++ reads it; 0 where there is none."""
    found = _NUMBER.match(text)
    return float(found[0]) if found else 0.0


def relion_truth(text: str) -> bool:
    """Return a truth value as RELION reads it: every number but 0 is true, every word false."""
    return leading_number(text) != 0


def number(text: str) -> float:
    """Return the number that a cell of a STAR file holds."""
    try:
        if "_" not in text:
            return float(text)
    except ValueError:
        pass
    raise SchemeError(f"{text!r} was read from a STAR file where a number is needed")


def truth(text: str) -> bool:
    """Return the truth value that a cell of a STAR file holds."""
    value = parse_bool(text)
    if value is None:
        raise SchemeError(f"{text!r} was read from a STAR file where 0 or 1 is needed")
    return value


def divide(a: float, b: float) -> float:
    """Return a / b; infinity or NaN by zero."""
    if b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)


def round_(a: float) -> float:
    """Return the nearest integer, halves away from zero."""
    return math.copysign(math.floor(abs(a) + 0.5), a) + 0.0 if math.isfinite(a) else a


def index(a: float) -> int:
    """Return a float variable rounded to an index."""
    return int(round_(a)) if math.isfinite(a) else _NEVER_AN_INDEX


def words(text: str) -> list[str]:
    """Return the words between commas, without the empty ones."""
    return [word for word in text.split(",") if word]


def nth_word(text: str, rank: int) -> str:
    """Return word number `rank` of a text: 1 is the first, -1 the last; else `undefined`."""
    found = words(text)
    if not 1 <= abs(rank) <= len(found):
        return UNDEFINED
    return found[rank - 1 if rank > 0 else rank]


def cut(text: str, separator: str, *, last: bool, after: bool) -> str:
    """Return what stands before or after the first or last separator; all of it without one."""
    if not separator or separator not in text:
        return text
    parts = text.rpartition(separator) if last else text.partition(separator)
    return parts[2] if after else parts[0]


def star_parts(text: str) -> tuple[str, str, str]:
    """Return file, table and label of `file.star,tablename,label`."""
    parts = words(text)
    if len(parts) < 3:
        raise SchemeError(
            f"{text!r} does not name a STAR column; write it as file.star,tablename,label"
        )
    return parts[0], parts[1], parts[2]


def sort_index(values: Sequence[float], rank: int, name: str) -> int:
    """Return the row, from 0, of the value at `rank`: 1 is the smallest, -1 the largest."""
    if not 1 <= abs(rank) <= len(values):
        raise SchemeError(
            f"rank {rank} of {len(values)} values of {name!r}; 1 is the smallest, -1 the largest"
        )
    order = sorted(range(len(values)), key=values.__getitem__)
    return order[rank - 1 if rank > 0 else rank]


def average(values: Sequence[float]) -> float:
    """Return the mean; 0 of nothing."""
    return math.fsum(values) / len(values) if values else 0.0
