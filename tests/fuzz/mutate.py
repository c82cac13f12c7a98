"""Files that are almost right: a real one, changed in a few places."""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st
from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

Change = tuple[str, int, int, int]

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_TEXTS = (
    b"0 -1 1 NaN nan INF -INF 1e999 -1e-999 1E+308 9223372036854775808 4294967296 65536 2147483647 "
    b"1_000 0x10 1. .5 + - e 1e 00012 1e-310 \xd9\xa1 true false None i:nil"
).split(b" ")
_WORDS = (0, 1, -1, 2, 3, 127, 255, 256, 4095, 65_535, 65_536, 2**24, 2**31 - 1, -(2**31), 10**9)
_TOKENS = [
    b"<!DOCTYPE a [<!ENTITY x 'y'>]>",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"-->",
    b"&x;",
    b"&#0;",
    b"&#x10FFFF;",
    b"<?xml version='1.0' encoding='utf-16'?>",
    b"<a>",
    b"</a>",
    b"/>",
    b"<",
    b">",
    b"\0",
    b"\r",
    b"\r\n",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b" i:nil='true'",
    b" z:Ref='1'",
    b"[ZValue = 0]\n",
    b"[FrameSet = 0]\n",
    b"[T = ",
    b"]",
    b" = ",
    b"=",
    b"\\",
    b"..",
    b"A" * 5000,
    b"<b>" * 70,
]


def _span(data: bytes, first: float, second: float, longest: int) -> tuple[int, int]:
    begin = int(first * len(data))
    return begin, min(len(data), begin + 1 + int(second * longest))


def _flip(data: bytes, first: float, second: float, value: int) -> bytes:
    begin = int(first * max(0, len(data) - 1))
    return data[:begin] + bytes([value % 256]) + data[begin + 1 :]


def _delete(data: bytes, first: float, second: float, value: int) -> bytes:
    begin, end = _span(data, first, second, 200)
    return data[:begin] + data[end:]


def _double(data: bytes, first: float, second: float, value: int) -> bytes:
    begin, end = _span(data, first, second, 500)
    return data[:end] + data[begin:end] * (1 + value % 3) + data[end:]


def _move(data: bytes, first: float, second: float, value: int) -> bytes:
    begin, end = _span(data, first, 0.3, 300)
    rest, place = data[:begin] + data[end:], int(second * len(data))
    return rest[:place] + data[begin:end] + rest[place:]


def _insert(data: bytes, first: float, second: float, value: int) -> bytes:
    begin = int(first * len(data))
    return data[:begin] + _TOKENS[value % len(_TOKENS)] + data[begin:]


def _number(data: bytes, first: float, second: float, value: int) -> bytes:
    """Put another text in the place of a number of a text file."""
    found = _NUMBER.search(data, int(first * len(data)))
    if found is None:
        return data
    return data[: found.start()] + _TEXTS[value % len(_TEXTS)] + data[found.end() :]


def _word(data: bytes, first: float, second: float, value: int) -> bytes:
    """Put another number in the place of one of a binary file."""
    size, kind = ((2, "h"), (4, "i"), (8, "q"))[value % 3]
    # Most of what matters stands at the beginning of a file.
    reach = len(data) if second < 0.3 else min(len(data), 1100)
    begin = int(first * reach) // 2 * 2
    limit = 2 ** (8 * size - 1)
    word = _WORDS[value % len(_WORDS)]
    number = max(-limit, min(limit - 1, word))
    packed = struct.pack(f"{'<' if second < 0.9 else '>'}{kind}", number)
    return data[:begin] + packed + data[begin + size :]


def _cut(data: bytes, first: float, second: float, value: int) -> bytes:
    return data[: int(first * len(data))]


def _zero(data: bytes, first: float, second: float, value: int) -> bytes:
    begin, end = _span(data, first, second, 1000)
    return data[:begin] + bytes(end - begin) + data[end:]


def _wide(data: bytes, first: float, second: float, value: int) -> bytes:
    """Write a text with two bytes for each character."""
    return data.decode("utf-8", "replace").encode(("utf-16", "utf-16-be", "utf-16-le")[value % 3])


# ---- XML that stays well formed


def _chosen(root: Any, place: float) -> Any:
    elements = list(root.iter())
    return elements[int(place * max(0, len(elements) - 1))]


def _prune(root: Any, first: float, second: float, value: int) -> None:
    element = _chosen(root, first)
    if element.getparent() is not None:
        element.getparent().remove(element)


def _repeat(root: Any, first: float, second: float, value: int) -> None:
    element = _chosen(root, first)
    if element.getparent() is not None:
        copies = [etree.fromstring(etree.tostring(element)) for _ in range(1 + value % 3)]
        element.getparent().extend(copies)


def _graft(root: Any, first: float, second: float, value: int) -> None:
    copy = etree.fromstring(etree.tostring(_chosen(root, first)))
    _chosen(root, second).insert(0, copy)


def _say(root: Any, first: float, second: float, value: int) -> None:
    _chosen(root, first).text = _TEXTS[value % len(_TEXTS)].decode()


def _rename(root: Any, first: float, second: float, value: int) -> None:
    _chosen(root, first).tag = _chosen(root, second).tag


def _refer(root: Any, first: float, second: float, value: int) -> None:
    z = "{http://schemas.microsoft.com/2003/10/Serialization/}"
    name = (f"{z}Ref", f"{z}Id", "{http://www.w3.org/2001/XMLSchema-instance}nil")[value % 3]
    text = "true" if value % 3 == 2 else str(value % 40)
    _chosen(root, first).set(name, text)


def _tree(change: Callable[[Any, float, float, int], None]) -> Callable[..., bytes]:
    """Return a change of an XML document; what is none stays as it is."""

    def changed(data: bytes, first: float, second: float, value: int) -> bytes:
        if not data.lstrip().startswith(b"<") or len(data) > MAX_BYTES // 4:
            return data
        try:
            root = etree.fromstring(data, etree.XMLParser(resolve_entities=False))
        except etree.XMLSyntaxError:
            return data
        change(root, first, second, value)
        return etree.tostring(root)

    return changed


CHANGES: dict[str, Callable[[bytes, float, float, int], bytes]] = {
    "prune": _tree(_prune),
    "repeat": _tree(_repeat),
    "graft": _tree(_graft),
    "say": _tree(_say),
    "rename": _tree(_rename),
    "refer": _tree(_refer),
    "number": _number,
    "word": _word,
    "flip": _flip,
    "delete": _delete,
    "double": _double,
    "move": _move,
    "insert": _insert,
    "cut": _cut,
    "zero": _zero,
    "wide": _wide,
}
SCALE = 2**16  # steps in which a place from 0 to 1 is chosen
MAX_BYTES = 2**20  # what doubling may lead to


def apply(data: bytes, change: Change) -> bytes:
    """Return a file with one change: its name, two places in steps of 1 / SCALE, a number."""
    name, first, second, value = change
    return CHANGES[name](data, first / SCALE, second / SCALE, value)[:MAX_BYTES]


def steps(data: bytes, changes: Sequence[Change]) -> Iterator[bytes]:
    """Yield a file after each of its changes, so that every change is tried with few others too."""
    for change in changes:
        data = apply(data, change)
        yield data


def changed(seeds: Sequence[bytes]) -> st.SearchStrategy[tuple[bytes, list[Change]]]:
    """Return the strategy of a file to begin with and what is done to it, bit by bit.

    Changes that keep an XML document well formed come first, for after the others nothing else
    is reached.
    """
    place, value = st.integers(0, SCALE), st.integers(0, 10_000)

    def some(names: Sequence[str], most: int) -> st.SearchStrategy[list[Change]]:
        change = st.tuples(st.sampled_from(names), place, place, value)
        return st.lists(change, max_size=most)

    names = list(CHANGES)
    both = st.tuples(some(names[:7], 6), some(names[6:], 5)).map(lambda two: two[0] + two[1])
    return st.tuples(st.sampled_from(list(seeds)), both)
