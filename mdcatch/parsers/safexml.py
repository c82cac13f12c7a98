"""XML from strangers: every leaf by its path, never an entity, a network access or a huge tree.

Source: reliability.md section 2.11; acquisition.md sections 1.5 and 1.13 (8).
"""

from typing import NamedTuple

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from mdcatch.parsers.limits import (
    MAX_XML_BYTES,
    MAX_XML_DEPTH,
    MAX_XML_ELEMENTS,
    MAX_XML_TEXT,
)
from services.kit.errors import Code, Refused

_PAIR = "KeyValueOfstringanyType"
_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"


class Pair(NamedTuple):
    """Value of a .NET key/value pair and the local name of its declared type."""

    text: str
    type: str


class Leaves:
    """What a document says: texts by path, pairs by list, number of elements by path.

    Paths are local names below the root, joined by "/"; of repeated elements the first text counts.
    This is lxml's parser target, so no tree is ever built.
    """

    def __init__(self) -> None:
        self.root = ""
        self.texts: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.pairs: dict[str, dict[str, Pair]] = {}
        self._paths: list[str] = []
        self._open_pairs: list[list[str | None]] = []  # [key, value, type] of pairs being read
        self._text: list[str] = []
        self._length = 0
        self._elements = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Note an opening tag."""
        self._elements += 1
        name = tag.rpartition("}")[2]
        paths = self._paths
        if self._elements > MAX_XML_ELEMENTS or len(paths) >= MAX_XML_DEPTH:
            raise Refused(
                Code.XML_TOO_LARGE,
                f"more than {MAX_XML_ELEMENTS} elements or {MAX_XML_DEPTH} levels; "
                "this is not a microscope's metadata",
            )
        if not paths:
            self.root = name
            paths.append("")
        else:
            path = f"{paths[-1]}/{name}" if paths[-1] else name
            paths.append(path)
            self.counts[path] = self.counts.get(path, 0) + 1
            if name == _PAIR:
                self._open_pairs.append([None, None, ""])
            elif name == "Value" and self._open_pairs and attributes:
                self._open_pairs[-1][2] = attributes.get(_TYPE, "").rpartition(":")[2]
        self._text = []
        self._length = 0

    def data(self, text: str) -> None:
        """Note a piece of text."""
        self._length += len(text)
        if self._length > MAX_XML_TEXT:
            raise Refused(Code.XML_TOO_LARGE, f"a text of more than {MAX_XML_TEXT} characters")
        self._text.append(text)

    def end(self, tag: str) -> None:
        """Note a closing tag: keep the leaf's text, complete the pair."""
        path = self._paths.pop()
        text = "".join(self._text).strip()
        self._text = []
        self._length = 0
        if text and path not in self.texts:
            self.texts[path] = text
        if self._open_pairs:
            self._end_in_pair(path, text)

    def close(self) -> "Leaves":
        """Return itself: lxml hands this back."""
        return self

    def _end_in_pair(self, path: str, text: str) -> None:
        parent, _, name = path.rpartition("/")
        pair = self._open_pairs[-1]
        if name == _PAIR:
            key, value, kind = self._open_pairs.pop()
            if key:
                self._keep(parent, key, Pair(value or "", kind or ""))
        elif parent.endswith(_PAIR) and name == "Key":
            pair[0] = text
        elif parent.endswith(_PAIR) and name == "Value":
            pair[1] = text

    def _keep(self, section: str, key: str, pair: Pair) -> None:
        known = self.pairs.setdefault(section, {}).setdefault(key, pair)
        if known != pair:
            raise Refused(Code.XML_BROKEN, f"key {key[:80]!r} is given twice with different values")


def read_leaves(data: bytes) -> Leaves:
    """Return what an XML document says.

    Parameters
    ----------
    data
        Whole file, UTF-8.

    Raises
    ------
    Refused
        EMPTY_FILE, XML_TOO_LARGE, XML_DTD, TRUNCATED (well formed up to its end, but not closed),
        XML_BROKEN.
    """
    if not data.strip():
        raise Refused(Code.EMPTY_FILE, "the XML file is empty")
    if len(data) > MAX_XML_BYTES:
        raise Refused(Code.XML_TOO_LARGE, f"{len(data)} bytes; at most {MAX_XML_BYTES} are read")
    # The parser below is told that everything is UTF-8, so these bytes are what it would see.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise Refused(Code.XML_DTD, "the XML has a DOCTYPE or ENTITY declaration; EPU writes none")
    leaves = Leaves()
    parser = etree.XMLParser(
        target=leaves,
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        parser.feed(data)
    except etree.XMLSyntaxError as error:
        raise Refused(Code.XML_BROKEN, f"not well-formed XML: {error.msg}") from None
    try:
        parser.close()
    except etree.XMLSyntaxError as error:
        raise Refused(Code.TRUNCATED, f"the XML ends too early: {error.msg}") from None
    return leaves
