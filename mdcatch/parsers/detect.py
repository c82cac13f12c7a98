"""Which parser reads a file: its content decides, its name where the content does not.

Source: acquisition.md sections 2 to 6, 10 (5).
"""

import re
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import PurePosixPath
from typing import NamedTuple

from mdcatch.parsers.encoding import as_utf8
from mdcatch.parsers.limits import MAX_DM_BYTES, MAX_XML_BYTES
from mdcatch.parsers.record import Record
from mdcatch.parsers.window import Window
from services.kit.errors import Code, Refused

HEAD = 4096  # bytes looked at; the comments before a root element are shorter
_MAX_MDOC_BYTES = 8 * 2**20

_ROOT = re.compile(rb"<(?:[A-Za-z][\w.-]{0,40}:)?([A-Za-z][\w.-]{0,80})[\s/>]")
_NOT_ROOT = re.compile(rb"<\?.*?\?>|<!--.*?-->", re.DOTALL)
_MDOC = re.compile(rb"\s*(\[?[A-Za-z][\w .()/-]{0,60}=)")
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class _Reader(NamedTuple):
    """A parser by name, so that only those in use are loaded; `cap` is None for a window."""

    module: str
    function: str
    cap: int | None = None


_XML = {
    "MicroscopeImage": _Reader("epuxml", "parse_epu_image", MAX_XML_BYTES),
    "Acquisition": _Reader("fractions", "parse_fractions", MAX_XML_BYTES),
    "EpuSessionXml": _Reader("epusession", "parse_epu_session", MAX_DM_BYTES),
    "SampleXml": _Reader("epusession", "parse_sample", MAX_DM_BYTES),
    "ScreeningSessionXml": _Reader("epusession", "parse_screening_session", MAX_DM_BYTES),
    "GridSquareXml": _Reader("gridsquare", "parse_grid_square", MAX_DM_BYTES),
    "AtlasSessionXml": _Reader("atlas", "parse_atlas", MAX_DM_BYTES),
}
_MDOC_READER = _Reader("mdoc", "parse_mdoc", _MAX_MDOC_BYTES)
_MRC = _Reader("mrcheader", "parse_mrc")
_TIFF = _Reader("tiffheader", "parse_tiff")
_EER = _Reader("eerheader", "parse_eer")
_DM4 = _Reader("dm4", "parse_dm4")
_SUFFIXES = {
    ".xml": _XML["MicroscopeImage"],
    ".mdoc": _MDOC_READER,
    ".idoc": _MDOC_READER,
    ".mrc": _MRC,
    ".mrcs": _MRC,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".gain": _TIFF,
    ".eer": _EER,
    ".dm4": _DM4,
}


def parse(source: bytes | Window, name: str) -> Record:
    """Return what a metadata or movie file says.

    Parameters
    ----------
    source
        Content, or a window onto the file: of movies only headers are read.
    name
        Path of the file, with its folders: identifiers are in them.

    Raises
    ------
    Refused
        UNSUPPORTED for a file of another kind; else what its parser raises.
    """
    window = Window.of_bytes(source) if isinstance(source, bytes) else source
    if window.size == 0:
        raise Refused(Code.EMPTY_FILE, "the file has no bytes")
    reader = _reader(window.read(0, HEAD), name)
    function: Callable[..., Record] = getattr(
        import_module(f"mdcatch.parsers.{reader.module}"), reader.function
    )
    if reader.cap is None:
        return function(window, name)
    # One byte more than is allowed, so that the parser sees and refuses what is too large.
    return function(window.read(0, reader.cap + 1), name)


def load_all() -> None:
    """Load every parser, so that none has to be loaded while a file is parsed."""
    for reader in {*_XML.values(), *_SUFFIXES.values()}:
        import_module(f"mdcatch.parsers.{reader.module}")


def _reader(head: bytes, name: str) -> _Reader:
    suffix = PurePosixPath(name.replace("\\", "/")).suffix.lower()
    by_name = _SUFFIXES.get(suffix)
    with suppress(UnicodeError):
        head = as_utf8(head)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        return _xml(start)
    if head.startswith(_TIFFS):
        return _TIFF  # it knows an EER movie by its compression
    if by_name is not _MDOC_READER and head[208:211] == b"MAP":
        return _MRC
    if head[:4] in (b"\0\0\0\3", b"\0\0\0\4") and suffix in (".dm3", ".dm4"):
        return _DM4
    if by_name is not None:
        return by_name
    if _MDOC.match(head):
        return _MDOC_READER
    raise Refused(
        Code.UNSUPPORTED,
        "neither EPU's XML, nor mdoc, MRC, TIFF, EER or DM4; rename it if it is one of them",
    )


def _xml(start: bytes) -> _Reader:
    """Return the reader of a document by its root element."""
    root = _ROOT.match(_NOT_ROOT.sub(b"", start).lstrip())
    if root is None:  # broken, or not begun: the parser says which
        return _XML["MicroscopeImage"]
    reader = _XML.get(root[1].decode())
    if reader is None:
        raise Refused(
            Code.UNSUPPORTED, f"an XML document of kind {root[1].decode()!r}; no file of EPU"
        )
    return reader
