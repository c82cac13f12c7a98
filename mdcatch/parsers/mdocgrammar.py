"""The text form of SerialEM's metadata: global values, titles, and sections of `key = value` lines.

What is wrong inside one section stays with that section: one bad tilt does not cost the series.

Source: acquisition.md section 3.2; reliability.md section 2.11.
"""

import re
from collections.abc import Iterator

import msgspec

from services.kit.errors import Code, Refused

# 2,000 sections of a tilt series have 2 MB; a section has 20 to 60 keys, the longest line 90
# characters.
MAX_BYTES = 8 * 2**20
MAX_SECTIONS = 2000
MAX_LINE = 4096
MAX_KEYS = 200

_LINE_END = re.compile(r"\r\n|\n|\r")
_KIND = re.compile(r"\w[^\[\]]*")
_KEY_START = re.compile(r"[\w(\[]")
_UNIQUE = ("ZValue", "Image")  # sections that stand for one image each
_TIMES = ("DateTime", "TimeStamp")  # written after all that describes the exposure
_WHOLE_TIME = re.compile(r"\d{1,4}-[A-Za-z]{3}-\d{1,4} +\d\d:\d\d:\d\d", re.ASCII)
# Once written for one section, a program writes these for all of them.
_STEADY = frozenset(
    (
        "TiltAngle StagePosition StageZ Magnification PixelSpacing ExposureDose ExposureTime "
        "Binning SubFramePath NumSubFrames FrameDosesAndNumber DateTime TimeStamp UncroppedSize "
        "FilterSlitAndLoss RotationAndFlip FrameTSStartEndFrames PieceCoordinates"
    ).split()
)


class Section(msgspec.Struct):
    """One `[kind = name]` block; `fault` says why its values cannot be trusted, "" if they can."""

    kind: str
    name: str
    values: dict[str, str] = {}
    fault: str = ""

    def __str__(self) -> str:
        shown = f"{self.kind} = {self.name}"[:80]
        return "".join(sign if sign.isprintable() else "?" for sign in shown)


class Document(msgspec.Struct):
    """A whole file, as text."""

    titles: list[str] = []
    values: dict[str, str] = {}
    sections: list[Section] = []
    open_line: tuple[str, str] | None = None  # the last line, where the file ends inside it

    def of_kind(self, kind: str) -> list[Section]:
        """Return the sections of one kind, in the order of the file."""
        return [section for section in self.sections if section.kind == kind]


def read_document(content: bytes) -> Document:
    """Split an mdoc or idoc into its parts.

    Parameters
    ----------
    content
        Whole file: UTF-8 or, where an operator's name is not, Latin-1; any line ends.

    Raises
    ------
    Refused
        EMPTY_FILE, TOO_LARGE, TRUNCATED (the file ends inside its last section) or BAD_HEADER (no
        mdoc).
    """
    text = _text(content)
    document = Document()
    target: Section | None = None
    is_open = _LINE_END.split(text[-MAX_LINE:])[-1].strip() != ""
    lines = list(_lines(text))
    for number, line in enumerate(lines, 1):
        is_section = line.startswith("[") and line.endswith("]")
        inner = line[1:-1] if is_section else line
        key, equals, value = (part.strip() for part in inner.partition("="))
        ends_here = is_open and number == len(lines)
        if is_section and equals and _KIND.fullmatch(key) and key != "T":
            target = _opened(document, key, value)
        elif not equals or not _KEY_START.match(key):
            if ends_here:
                raise Refused(Code.TRUNCATED, f"the file ends inside the line {line[:80]!r}")
            _blame(document, target, f"line {line[:80]!r} is not `key = value`")
        elif key == "T":
            document.titles.append(value)
        else:
            _keep(document, target, key, value)
            document.open_line = (key, value) if ends_here else None
    _blame_doubles(document)
    if reason := _missing_end(document):
        raise Refused(Code.TRUNCATED, reason)
    return document


def _text(content: bytes) -> str:
    if not content.strip():
        raise Refused(Code.EMPTY_FILE, "the mdoc is empty")
    if len(content) > MAX_BYTES:
        raise Refused(Code.TOO_LARGE, f"{len(content)} bytes; at most {MAX_BYTES} are read")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Refused(Code.BAD_HEADER, "two bytes for each character: this is no mdoc")
    if content.endswith(b"\0"):
        raise Refused(Code.TRUNCATED, "the mdoc ends in zero bytes: it is not written yet")
    if b"\0" in content:
        raise Refused(Code.BAD_HEADER, "zero bytes inside the text: this is no mdoc")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _lines(text: str) -> Iterator[str]:
    """Yield what stands on lines, without blanks around; a bracket can span several lines."""
    held = ""
    for raw in _LINE_END.split(text):
        line = raw.strip()
        if len(raw) > MAX_LINE or len(held) > MAX_LINE:
            raise Refused(Code.TOO_LARGE, f"a line of more than {MAX_LINE} characters")
        if held and line.startswith("["):
            raise Refused(Code.BAD_HEADER, f"the bracket of {held[:80]!r} is not closed")
        line = f"{held} {line}".strip() if held else line
        held = line if line.startswith("[") and "]" not in line else ""
        if line and not held and not line.startswith("#"):
            yield line
    if held:
        raise Refused(Code.TRUNCATED, f"the file ends inside {held[:80]!r}")


def _opened(document: Document, kind: str, name: str) -> Section:
    if len(document.sections) >= MAX_SECTIONS:
        raise Refused(Code.TOO_LARGE, f"more than {MAX_SECTIONS} sections")
    section = Section(kind, name)
    if kind == "ZValue" and not re.fullmatch(r"\d{1,9}", name, re.ASCII):
        section.fault = f"[{section}]: not the number of a section"
    document.sections.append(section)
    return section


def _keep(document: Document, target: Section | None, key: str, value: str) -> None:
    values = document.values if target is None else target.values
    if len(values) >= MAX_KEYS:
        raise Refused(Code.TOO_LARGE, f"more than {MAX_KEYS} keys in one section")
    if values.setdefault(key, value) != value:
        given = f"key {key[:80]!r} is given twice, as {values[key][:40]!r} and {value[:40]!r}"
        _blame(document, target, given)


def _blame(document: Document, target: Section | None, fault: str) -> None:
    """Note a fault of a section; outside of sections it concerns the whole file."""
    if target is None:
        raise Refused(Code.BAD_HEADER, f"{fault}; this is no mdoc, or a broken one")
    target.fault = target.fault or f"[{target}]: {fault}"


def _blame_doubles(document: Document) -> None:
    """Two sections for one image: nothing tells which of them is right."""
    for kind in _UNIQUE:
        known: dict[str, Section] = {}
        for section in document.of_kind(kind):
            first = known.setdefault(section.name, section)
            if first is not section and first.values != section.values:
                for one in (first, section):
                    one.fault = one.fault or f"[{section}] is given twice, with different values"


def _missing_end(document: Document) -> str:
    """Say why the last section is not complete, "" when it is.

    Nothing marks the end of an mdoc. The last section counts as whole when its last line has an
    end and it has what its sisters have; without sisters, when it has a time.
    """
    if not document.sections:
        return "the mdoc has no section yet"
    last = document.sections[-1]
    sisters = [s for s in document.of_kind(last.kind)[:-1] if s.values]
    if document.open_line is not None:
        key, value = document.open_line
        repeated = any(sister.values.get(key) == value for sister in sisters)
        if not repeated and not (key == "DateTime" and _WHOLE_TIME.fullmatch(value)):
            return f"the file ends inside the line {key[:80]!r}"
    if sisters:
        common = set.intersection(*(set(sister.values) for sister in sisters))
        missing = sorted(common & _STEADY - set(last.values))
    else:
        missing = [] if any(key in last.values for key in _TIMES) else ["DateTime"]
    return f"the last section, [{last}], has no {missing[0]} yet" if missing else ""
