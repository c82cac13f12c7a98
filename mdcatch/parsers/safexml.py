"""XML from strangers: never an entity, a network access or a huge tree.

Source: reliability.md section 2.11; acquisition.md sections 1.5 and 1.13 (8).
"""

import codecs
from functools import lru_cache
from typing import Any, NamedTuple

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from mdcatch.parsers.encoding import as_utf8
from mdcatch.parsers.limits import (
    MAX_XML_BYTES,
    MAX_XML_DEPTH,
    MAX_XML_ELEMENTS,
    MAX_XML_TEXT,
)
from services.kit.errors import Code, Refused

Element = Any  # lxml's classes are compiled and carry no types

_PAIR = "KeyValueOfstringanyType"
_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_PIECE = 2**20  # bytes fed at once; libxml2 refuses more than 10 MB in one piece
_OPTIONS: dict[str, Any] = {
    "encoding": "utf-8",
    "resolve_entities": False,
    "no_network": True,
    "load_dtd": False,
    "dtd_validation": False,
    "huge_tree": False,
    "remove_comments": True,
    "remove_pis": True,
    "collect_ids": False,
}


class Caps(NamedTuple):
    """Largest document that is parsed."""

    size: int = MAX_XML_BYTES
    elements: int = MAX_XML_ELEMENTS


def read_tree(data: bytes, caps: Caps = Caps()) -> Element:  # noqa: B008 - immutable
    """Return the root element of an XML document.

    Parameters
    ----------
    data
        Whole file, UTF-8 or, with its mark, UTF-16; whatever its declaration says.
    caps
        Largest size and number of elements. Depth and texts are checked by whoever walks the tree,
        with `check_depth` and `clean`.

    Raises
    ------
    Refused
        EMPTY_FILE, XML_TOO_LARGE, XML_DTD, TRUNCATED (well formed up to its end, but not closed),
        XML_BROKEN.
    """
    _check_size(data, caps)
    try:
        data = as_utf8(data)
    except UnicodeError as error:
        raise Refused(Code.XML_BROKEN, f"not well-formed XML: {error}") from None
    _check_size(data, caps)
    _check_start(data)
    # The parser below is told that everything is UTF-8, so these bytes are what it would see.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise Refused(Code.XML_DTD, "the XML has a DOCTYPE or ENTITY declaration; EPU writes none")
    parser = etree.XMLParser(**_OPTIONS)
    try:
        for begin in range(0, len(data), _PIECE):
            parser.feed(data[begin : begin + _PIECE])
    except etree.XMLSyntaxError as error:
        large = error.code in (
            etree.ErrorTypes.ERR_RESOURCE_LIMIT,
            etree.ErrorTypes.ERR_NO_MEMORY,
        )
        code = Code.XML_TOO_LARGE if large else Code.XML_BROKEN
        raise Refused(code, f"not well-formed XML: {_told(error)}") from None
    try:
        return parser.close()
    except etree.XMLSyntaxError as error:
        if error.code == etree.ErrorTypes.ERR_INTERNAL_ERROR:  # what libxml2 stopped at silently
            raise Refused(Code.XML_BROKEN, "not well-formed XML: an undefined entity") from None
        raise Refused(Code.TRUNCATED, f"the XML ends too early: {_told(error)}") from None


def local(tag: str) -> str:
    """Return an element's name without its namespace."""
    return _local(tag)


def clean(element: Element) -> str:
    """Return an element's text before its first child, without surrounding blanks."""
    text = element.text
    if text is None:
        return ""
    if len(text) > MAX_XML_TEXT:
        raise Refused(Code.XML_TOO_LARGE, f"a text of more than {MAX_XML_TEXT} characters")
    return text.strip()


def check_depth(depth: int) -> None:
    """Refuse what is nested deeper than any metadata."""
    if depth > MAX_XML_DEPTH:
        raise Refused(
            Code.XML_TOO_LARGE,
            f"elements nested more than {MAX_XML_DEPTH} levels deep; "
            "this is not a microscope's metadata",
        )


class Pair(NamedTuple):
    """Value of a .NET key/value pair and the local name of its declared type."""

    text: str
    type: str
    element: Element = None


class Leaves:
    """What a document says: texts by path, pairs by list.

    Paths are local names below the root, joined by "/"; elements inside the value of a pair are in
    none of them. A path with two texts that differ says nothing that can be trusted: asking for it
    is refused.
    """

    def __init__(self, root: Element):
        self.root = local(root.tag)
        self.pairs: dict[str, dict[str, Pair]] = {}
        self._texts: dict[str, str] = {}
        self._twice: set[str] = set()
        clean(root)
        self._walk(root, "", 2)

    def text(self, path: str) -> str | None:
        """Return the text at a path, None when there is none.

        Raises
        ------
        Refused
            XML_BROKEN when the document gives it twice, with different texts.
        """
        if path in self._twice:
            raise Refused(Code.XML_BROKEN, f"{path} is given twice with different values")
        return self._texts.get(path)

    def texts(self) -> dict[str, str]:
        """Return all texts by path; of those given twice the first."""
        return dict(self._texts)

    def _walk(self, parent: Element, path: str, depth: int) -> None:
        check_depth(depth)
        texts = self._texts
        for element in parent:
            name = _local(element.tag)
            here = f"{path}/{name}" if path else name
            if name == _PAIR:
                self._pair(element, path)
                continue
            if element.text is not None:
                text = clean(element)
                if text and texts.setdefault(here, text) != text:
                    self._twice.add(here)
            if len(element):
                self._walk(element, here, depth + 1)

    def _pair(self, element: Element, path: str) -> None:
        """Take a key and its value from inside their own element, whatever their order."""
        key, value = "", None
        for child in element:
            name = _local(child.tag)
            if name == "Key":
                key = clean(child)
            elif name == "Value":
                value = child
        if not key:
            return
        pair = Pair("", "")
        if value is not None:
            pair = Pair(clean(value), value.get(_TYPE, "").rpartition(":")[2], value)
        known = self.pairs.setdefault(path, {}).setdefault(key, pair)
        if known is not pair and known[:2] != pair[:2]:
            raise Refused(Code.XML_BROKEN, f"key {key[:80]!r} is given twice, not the same")
        if value is not None and len(value):
            for inner in value.iter():  # their depth is bounded by libxml2, at 256
                clean(inner)


def read_leaves(data: bytes) -> Leaves:
    """Return what an XML document says; raises what `read_tree` raises."""
    return Leaves(read_tree(data))


@lru_cache(4096)
def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _check_start(data: bytes) -> None:
    """Tell an empty file and what is no XML at all from one that is cut."""
    start = data.removeprefix(codecs.BOM_UTF8).strip()
    if not start:
        raise Refused(Code.EMPTY_FILE, "the XML file is empty")
    if codecs.BOM_UTF8.startswith(start):
        raise Refused(Code.TRUNCATED, "the XML ends before it begins")
    if not start.startswith(b"<"):
        raise Refused(Code.XML_BROKEN, f"not XML: it begins with {start[:20]!r}")


def _check_size(data: bytes, caps: Caps) -> None:
    """Refuse by counting signs, before anything is built from them."""
    if len(data) > caps.size:
        raise Refused(Code.XML_TOO_LARGE, f"{len(data)} bytes; at most {caps.size} are read")
    brackets = data.count(b"<")
    if brackets > caps.elements:
        brackets -= data.count(b"</")
    if brackets > caps.elements or data.count(b"=") > caps.elements:
        raise Refused(
            Code.XML_TOO_LARGE,
            f"more than {caps.elements} elements or attributes; "
            "this is not a microscope's metadata",
        )


def _told(error: Exception) -> str:
    return str(getattr(error, "msg", None) or error).replace("\n", " ")[:200]
