"""The same said in other ways that XML and mdoc allow is the same record, for every real file."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from mdcatch.parsers import Record, parse
from services.kit.errors import Code, Refused
from tests.metadata import Sample, one_of_each, samples

# Twelve samples are the tilts of one series: the first speaks for them.
MDOCS = [
    sample
    for sample in samples()
    if sample.path.suffix == ".mdoc"
    and not re.fullmatch(r"TS_019_00(0[1-9]|1\d)_.*", sample.path.name)
]
DECLARATION = re.compile(r"^\s*<\?xml.*?\?>")
TEXT = re.compile(r">([^<>&]*[^<>&\s][^<>&]*)<")


def name_of(sample: Sample) -> str:
    return f"{sample.dialect}-{sample.path.name}"


# ---- XML


def without_declaration(text: str) -> str:
    return DECLARATION.sub("", text)


def with_prefix(text: str) -> str:
    """Give the default namespace a prefix, where there is one for the whole document."""
    if text.count('xmlns="') != 1:
        return text
    named = re.sub(r"<(/?)(?!\w+:)([A-Za-z_])", r"<\1q:\2", text)
    return named.replace('xmlns="', 'xmlns:q="')


def in_pieces(text: str) -> str:
    """Cut each text with a comment."""
    return TEXT.sub(lambda m: f">{m[1][:2]}<!-- {m[1][:1]} -->{m[1][2:]}<", text)


def as_numbers(text: str) -> str:
    """Write each sign as a character reference."""
    return TEXT.sub(lambda m: ">" + "".join(f"&#{ord(sign)};" for sign in m[1]) + "<", text)


def pretty(text: str) -> str:
    root = etree.fromstring(text.encode(), etree.XMLParser(remove_blank_text=True))
    return etree.tostring(root, pretty_print=True, encoding="unicode")


XML: dict[str, Callable[[str], str | bytes]] = {
    "prefix": with_prefix,
    "other prefixes": lambda t: re.sub(r"(?<=[ <:/])([aiz])(?=[:=])", r"\1\1", t),
    "comments": lambda t: t.replace("</", "<!-- <x>1</x> --></"),
    "texts in pieces": in_pieces,
    "instructions": lambda t: t.replace("</", "<?x y?></"),
    "character data": lambda t: TEXT.sub(r"><![CDATA[\1]]><", t),
    "character references": as_numbers,
    "blanks": lambda t: TEXT.sub(">\n\t \\1 \r\n<", t),
    "pretty": pretty,
    "single quotes": lambda t: t.replace('"', "'"),
    "declared utf-8": lambda t: '<?xml version="1.0" encoding="utf-8"?>\n' + t,
    "declared utf-16": lambda t: '<?xml version="1.0" encoding="utf-16"?>\n' + t,
    "utf-16": lambda t: ('<?xml version="1.0" encoding="utf-16"?>\n' + t).encode("utf-16"),
    "utf-16, big end": lambda t: b"\xfe\xff" + t.encode("utf-16-be"),
    "nothing before the root": lambda t: t,
    "blank lines before the root": lambda t: "\r\n\n" + t,
}


@pytest.mark.parametrize("sample", one_of_each("epu"), ids=name_of)
@pytest.mark.parametrize("way", XML)
def test_xml(sample: Sample, way: str) -> None:
    text = without_declaration(sample.content.decode("utf-8-sig"))
    said = XML[way](text)
    name = str(sample.path)
    other = parse(said if isinstance(said, bytes) else said.encode(), name)
    assert other == parse(sample.content, name)


@pytest.mark.parametrize("sample", one_of_each("epu"), ids=name_of)
def test_utf_16_cut_anywhere_is_truncated(sample: Sample) -> None:
    content = sample.content.decode("utf-8-sig").rstrip().encode("utf-16")
    for length in range(3, len(content), max(1, len(content) // 12)):
        with pytest.raises(Refused) as caught:
            parse(content[:length], str(sample.path))
        assert length < 200 or caught.value.code == Code.TRUNCATED, length


# ---- mdoc


def numbers(write: Callable[[str], str]) -> Callable[[str], str]:
    """Write the numbers of some keys in another way."""
    keys = "TiltAngle|Magnification|ExposureTime|NumSubFrames|TargetDefocus|PixelSpacing|StageZ"
    pattern = re.compile(rf"(?m)^({keys}) = (-?[\d.]+) *$")
    return lambda text: pattern.sub(lambda m: f"{m[1]} = {write(m[2])}", text)


MDOC: dict[str, Callable[[str], str]] = {
    "no blanks": lambda t: t.replace(" = ", "="),
    "tabs": lambda t: t.replace(" = ", "\t=\t"),
    "indented": lambda t: re.sub("(?m)^(?=.)", "   ", t),
    "blanks in brackets": lambda t: re.sub(r"(?m)^\[(\w+) = (.*)\]$", r"[  \1  =  \2  ]", t),
    "comments": lambda t: re.sub(r"(?m)^\[(?=[ZFM])", "# NumSubFrames = 3\n[", t),
    "titles in brackets": lambda t: re.sub(r"(?m)^T = (.*)$", r"[T = \1]", t),
    "titles without": lambda t: re.sub(r"(?m)^\[T = (.*)\]$", r"T = \1", t),
    "exponents": numbers(lambda number: f"{float(number):.17E}"),
    "three digits of exponent": numbers(lambda number: f"{number}e+000"),
    "signs": numbers(lambda number: number if number.startswith("-") else f"+{number}"),
    "zeros": numbers(lambda number: f"{number}000" if "." in number else f"{number}.0"),
    "another site's name": lambda t: t.replace("SerialEM: ", "SerialEM: Ångström 電 "),
    "twice the same": lambda t: re.sub(r"(?m)^(Magnification = .*)$", r"\1\n\1", t),
}


def values_of(record: Record) -> dict[str, Any]:
    apart = ("notes", "unknown")
    answer = {key: value for key, value in record.as_json().items() if key not in apart}
    for table in answer.get("sections", ()):
        for key in apart:
            table.pop(key, None)
    return answer


@pytest.mark.parametrize("sample", MDOCS, ids=name_of)
@pytest.mark.parametrize("way", MDOC)
def test_mdoc(sample: Sample, way: str) -> None:
    text = sample.content.decode().replace("\r\n", "\n")
    name = sample.path.name
    wanted, got = (
        values_of(parse(sample.content, name)),
        values_of(parse(MDOC[way](text).encode(), name)),
    )
    assert got == wanted


@pytest.mark.parametrize("sample", MDOCS, ids=name_of)
def test_keys_that_are_new_are_kept_and_change_nothing(sample: Sample) -> None:
    lines = r"\1\nNewKey(x) = NaN\nEmpty = \nDE12-Thing [a] = b = c"
    text = re.sub(r"(?m)^(Magnification = .*)$", lines, sample.content.decode())
    name = sample.path.name
    record = parse(text.encode(), name)
    first = record.sections[0] if record.sections else record.get("first_section")
    kept = record.unknown if first is None else first["unknown"]
    assert kept["NewKey(x)"] == "NaN" and kept["Empty"] == "" and kept["DE12-Thing [a]"] == "b = c"
    wanted = values_of(parse(sample.content, name))
    got = values_of(record)
    for answer in (wanted, got):
        answer.pop("first_section", None)
    assert got == wanted
