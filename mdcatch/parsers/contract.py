"""Documents of .NET's data-contract writer (EPU's .dm files): elements by local names along a path.

Names repeat in several namespaces, lists hold nil entries, and an attribute z:Ref stands for the
element with that z:Id.

Source: acquisition.md section 2.7.
"""

import re
from collections.abc import Iterator

from mdcatch.parsers.limits import MAX_DM_BYTES, MAX_DM_ELEMENTS
from mdcatch.parsers.safexml import Caps, Element, check_depth, clean, local, read_tree
from services.kit.errors import Code, Refused

_CAPS = Caps(MAX_DM_BYTES, MAX_DM_ELEMENTS)
_Z = "{http://schemas.microsoft.com/2003/10/Serialization/}"
_ID, _REF, _ASSEMBLY = f"{_Z}Id", f"{_Z}Ref", f"{_Z}Assembly"
_NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
# Looks at elements, all in all: twice what a square of the largest size needs. References let a
# small document stand for a huge one.
_MAX_LOOKS = 1_000_000
_VERSION = re.compile(r"Version=(\d{1,9}(?:\.\d{1,9}){1,3})(?=,|$|\s)", re.ASCII)


class Contract:
    """One document.

    Parameters
    ----------
    content
        Whole file.
    root
        Local name its root must have.

    Raises
    ------
    Refused
        What `read_tree` raises; XML_BROKEN for another root or a reference to nothing.
    """

    def __init__(self, content: bytes, root: str):
        self.root = read_tree(content, _CAPS)
        if local(self.root.tag) != root:
            raise Refused(
                Code.XML_BROKEN, f"root element is {local(self.root.tag)[:80]!r}, not {root}"
            )
        self._by_id: dict[str, Element] = {}
        self._looks = 0
        self._look(self.root, 1)

    @property
    def version(self) -> str | None:
        """Version of the program: that of the root's assembly; `Version` inside is the schema's."""
        found = _VERSION.search(self.root.get(_ASSEMBLY, ""))
        return found[1] if found else None

    def find(self, path: str, start: Element | None = None) -> Element | None:
        """Return the first element along a path of local names, below `start` or the root.

        A nil element is None; a reference is followed. Of namesakes the one in the namespace of
        its parent is meant; two of those that differ are refused (XML_BROKEN).
        """
        element = self.root if start is None else start
        for name in path.split("/"):
            self._count(len(element))
            element = self._only([child for child in element if local(child.tag) == name], element)
            element = None if element is None else self._resolve(element)
            if element is None:
                return None
        return element

    def text(self, path: str, start: Element | None = None) -> str | None:
        """Return the text of the element that `find` returns; None where it has none."""
        element = self.find(path, start)
        return None if element is None else clean(element) or None

    def figure(self, path: str, start: Element | None = None) -> str | None:
        """Return the text of a number; None where it is NaN, which .NET writes for "not set"."""
        text = self.text(path, start)
        return None if text == "NaN" else text

    def items(self, path: str, start: Element | None = None) -> list[Element]:
        """Return what is in the element that `find` returns, without nil entries."""
        element = self.find(path, start)
        children = () if element is None else element
        self._count(len(children))
        return [item for item in map(self._resolve, children) if item is not None]

    def pairs(self, path: str, start: Element | None = None) -> Iterator[tuple[str, Element]]:
        """Yield key and value of a dictionary's entries; those without a value are left out."""
        for item in self.items(path, start):
            key, value = self.text("key", item), self.find("value", item)
            if key is not None and value is not None:
                yield key, value

    def scalars(self) -> dict[str, str]:
        """Return the texts of the elements directly below the root that have no children."""
        found = ((local(child.tag), clean(child)) for child in self.root if not len(child))
        return {name: text for name, text in found if text}

    def is_reference(self, path: str, start: Element) -> bool:
        """Tell whether the last element of a path only refers to another."""
        folder, _, name = path.rpartition("/")
        parent = self.find(folder, start) if folder else start
        children = () if parent is None else parent
        return any(child.get(_REF) for child in children if local(child.tag) == name)

    def _count(self, looks: int) -> None:
        self._looks += looks
        if self._looks > _MAX_LOOKS:
            raise Refused(Code.XML_TOO_LARGE, "its references make it larger than any metadata")

    def _look(self, parent: Element, depth: int) -> None:
        """Check depth and texts of the whole document; remember who can be referred to."""
        check_depth(depth)
        clean(parent)
        if identity := parent.get(_ID):
            self._by_id.setdefault(identity, parent)
        for child in parent:
            self._look(child, depth + 1)

    def _resolve(self, element: Element) -> Element | None:
        reference = element.get(_REF)
        if reference is not None:
            target = self._by_id.get(reference)
            if target is None:
                raise Refused(Code.XML_BROKEN, f"z:Ref {reference[:40]!r} refers to nothing")
            return None if target.get(_REF) else target
        return None if element.get(_NIL) == "true" else element

    def _only(self, namesakes: list[Element], parent: Element) -> Element | None:
        """Return the one element that is meant, whatever the order in which they stand."""
        if len(namesakes) > 1:
            home = parent.tag.rpartition("}")[0]
            namesakes = [
                one for one in namesakes if one.tag.rpartition("}")[0] == home
            ] or namesakes
        first = namesakes[0] if namesakes else None
        for other in namesakes[1:]:
            if not self._alike(other, first):
                name = local(other.tag)[:80]
                raise Refused(Code.XML_BROKEN, f"{name} is given twice with different values")
        return first

    def _alike(self, one: Element, other: Element) -> bool:
        """Compare two elements with all that is in them."""
        self._count(1)
        return (
            (one.tag, clean(one), len(one)) == (other.tag, clean(other), len(other))
            and dict(one.attrib) == dict(other.attrib)
            and all(map(self._alike, one, other))
        )
