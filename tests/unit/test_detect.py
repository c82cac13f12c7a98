"""Content decides which parser reads a file; the name where the content does not."""

import numpy as np
import pytest

from mdcatch.parsers import parse
from mdcatch.parsers.detect import load_all
from mdcatch.parsers.window import Window
from services.kit.errors import Code, Refused
from tests.header_files import dm_file, eer_file, mrc_file, tiff_file

IMAGE = b"<?xml version='1.0'?>\n<!-- a <comment/> -->\n<MicroscopeImage/>"
MDOC = b"T = SerialEM: made by hand\n\n[FrameSet = 0]\nDateTime = 25-Sep-23  14:13:26\n"
DM4 = dm_file(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    ("content", "names", "format"),
    [
        (IMAGE, ("a.xml", "a.dm", "a", "a.tif"), "epu_xml"),
        (b"\xef\xbb\xbf \n" + IMAGE[22:], ("a.xml", "a"), "epu_xml"),
        (IMAGE.decode().encode("utf-16"), ("a.xml", "a"), "epu_xml"),
        (b"\xfe\xff" + "<SampleXml/>".encode("utf-16-be"), ("Sample.dm", "a"), "SampleXml"),
        (b"<e:MicroscopeImage xmlns:e='urn:e'/>", ("a.xml",), "epu_xml"),
        (b"<Acquisition/>", ("a_Fractions.xml", "a.xml", "a"), "epu_fractions_xml"),
        (b"<EpuSessionXml/>", ("EpuSession.dm", "a.xml"), "EpuSessionXml"),
        (b"<AtlasSessionXml a='b'/>", ("Atlas.dm",), "AtlasSessionXml"),
        (b"<GridSquareXml\n/>", ("GridSquare_1.dm",), "GridSquareXml"),
        (b"<SampleXml/>", ("Sample.dm",), "SampleXml"),
        (b"<ScreeningSessionXml/>", ("ScreeningSession.dm",), "ScreeningSessionXml"),
        (MDOC, ("a.mrc.mdoc", "a.idoc", "a", "a.txt"), "mdoc"),
        (mrc_file(nz=2), ("a.mrc", "a.mrcs", "a", "a.tif", "a.xml"), "mrc"),
        (tiff_file([{}, {}]), ("a.tif", "a.TIFF", "a", "a.mrc"), "tiff"),
        (eer_file(), ("a.eer", "a.EER", "a.tif", "a"), "eer"),
        (DM4, ("a.dm4", "a.DM4"), "dm4"),
    ],
)
def test_the_content_decides(content: bytes, names: tuple[str, ...], format: str):
    for name in names:
        assert parse(content, name).format == format, name
        assert parse(Window.of_bytes(content), f"Z:\\x.y\\{name}").format == format


@pytest.mark.parametrize(
    ("content", "name", "code"),
    [
        (b"", "a.xml", Code.EMPTY_FILE),
        (b"", "a.tif", Code.EMPTY_FILE),
        (b"hello", "a.txt", Code.UNSUPPORTED),
        (bytes(300), "a", Code.UNSUPPORTED),
        (b"hello", "a.xml", Code.XML_BROKEN),
        ("hello".encode("utf-16"), "a", Code.UNSUPPORTED),
        (b"\xff\xfe\0\xdc\0\0", "a", Code.UNSUPPORTED),
        (MDOC.decode().encode("utf-16"), "a.mdoc", Code.BAD_HEADER),
        (b"<svg/>", "a.xml", Code.UNSUPPORTED),
        (b"<svg>", "a.svg", Code.UNSUPPORTED),
        (b"<!DOCTYPE svg><svg/>", "a.xml", Code.XML_DTD),
        (b"<", "a", Code.TRUNCATED),
        (b"<?xml version='1.0'", "a", Code.TRUNCATED),
        (bytes(300), "a.xml", Code.XML_BROKEN),
        (bytes(2000), "a.tif", Code.BAD_HEADER),
    ],
)
def test_what_is_none_of_them_is_refused(content: bytes, name: str, code: Code):
    with pytest.raises(Refused) as caught:
        parse(content, name)
    assert caught.value.code == code and caught.value.detail


def test_text_that_says_map_where_mrc_does_is_no_mrc():
    text = MDOC + b"Note = ".ljust(208 - len(MDOC), b"x") + b"MAP \n"
    assert parse(text, "a.mdoc").format == "mdoc"


def test_of_a_large_file_only_what_is_asked_for_is_read():
    asked: list[int] = []
    content = mrc_file(nx=64, ny=64, nz=50)

    def read(offset: int, length: int) -> bytes:
        asked.append(length)
        return content[offset : offset + length]

    assert parse(Window(read, len(content)), "a.mrc").format == "mrc"
    assert sum(asked) < len(content) / 10


def test_every_parser_there_is_can_be_loaded():
    load_all()
