"""One target per parser; the files to begin with are the real samples, made small, and our own."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from mdcatch.parsers import Record, fei, parse
from mdcatch.parsers.atlas import parse_atlas
from mdcatch.parsers.dm4 import parse_dm4
from mdcatch.parsers.eerheader import parse_eer
from mdcatch.parsers.epusession import parse_epu_session, parse_sample, parse_screening_session
from mdcatch.parsers.epuxml import parse_epu_image
from mdcatch.parsers.fractions import parse_fractions
from mdcatch.parsers.gridsquare import parse_grid_square
from mdcatch.parsers.mdoc import parse_mdoc
from mdcatch.parsers.mrcheader import parse_mrc
from mdcatch.parsers.tiffheader import parse_tiff
from mdcatch.parsers.window import Window
from tests.fuzz.harness import Target
from tests.header_files import dm_file, eer_file, fei_record, mrc_file, tiff_file
from tests.metadata import Sample, one_of_each, samples

LISTED = 4  # entries of a long list that are kept
LONGEST = 60_000  # bytes of a file to begin with

# Kinds of mdoc that no sample has: a series in one movie, many movies, an idoc of images.
_SHOT = b"""TiltAngle = %d
StagePosition = 1.5 -2.5
PixelSpacing = 1.5
ExposureDose = 2.5
Binning = 0.5
SubFramePath = X:\\a\\b_%d.tif
NumSubFrames = 12
FrameDosesAndNumber = 0.2 10  0.25 2
FrameTSStartEndFrames = 0 11
MultishotHoleAndPosition = -1 1 2
DateTime = 25-Sep-2023  14:13:2%d
TimeStamp = 12093574%d
"""
_HEAD = b"T = SerialEM: a D3946 25-Sep-23\nVoltage = 300\n"
MDOCS = [
    _HEAD + b"".join(b"[%s = %d]\n" % (kind, n) + _SHOT % (n, n, n, n) for kind, n in kinds)
    for kinds in (
        [(b"FrameSet", 0), (b"ZValue", 0), (b"ZValue", 1), (b"ZValue", 2)],
        [(b"FrameSet", 0), (b"FrameSet", 1), (b"FrameSet", 2)],
        [(b"Image", 0), (b"Image", 1)],
        [(b"ZValue", 0), (b"MontSection", 0)],
    )
]

EXPOSURE = "Images-Disc1/GridSquare_1/Data/FoilHole_1_Data_2_3_20240101_101010.xml"


def targets() -> list[Target]:
    """Return all targets."""
    everything = [*map(small, one_of_each()), *_mrcs(), *_tiffs(), *_dms(), eer_file()]
    return [
        _text("epu-image", parse_epu_image, EXPOSURE, "epu_xml"),
        _text("fractions", parse_fractions, EXPOSURE, "epu_fractions_xml"),
        _text("epu-session", parse_epu_session, "EpuSession.dm", "EpuSessionXml"),
        _text("sample", parse_sample, "Sample.dm", "SampleXml"),
        _text("screening", parse_screening_session, "S.dm", "ScreeningSessionXml"),
        _text("grid-square", parse_grid_square, "GridSquare_1.dm", "GridSquareXml"),
        _text("atlas", parse_atlas, "Atlas.dm", "AtlasSessionXml"),
        _text("mdoc", parse_mdoc, "a_20240101_101010.mrc.mdoc", "mdoc", MDOCS),
        _window("mrc", parse_mrc, "a.mrc", _mrcs()),
        _window("tiff", parse_tiff, "a.tif", _tiffs()),
        _window("eer", parse_eer, "a.eer", [eer_file(), eer_file(sums=1)]),
        _window("dm4", parse_dm4, "a.dm4", _dms()),
        Target("any", lambda data: parse(data, f"a{_suffix(data)}"), everything),
    ]


def _suffix(data: bytes) -> str:
    """Return a suffix that depends on the content, and on nothing else."""
    suffixes = ("", ".xml", ".dm", ".mdoc", ".mrc", ".tif", ".eer", ".dm4", ".gain", ".txt")
    return suffixes[sum(data[:64]) % len(suffixes)]


def _text(
    name: str,
    function: Callable[[bytes, str], Record],
    path: str,
    kind: str,
    made: Sequence[bytes] = (),
) -> Target:
    seeds = [small(sample) for sample in one_of_each() if sample.expected["format"] == kind]
    seeds = [*seeds, *made] or [b"<a/>", b"a = 1\n"]
    return Target(name, lambda data: function(data, path), seeds)


def _window(
    name: str, function: Callable[[Window, str], Record], path: str, made: list[bytes]
) -> Target:
    suffix = path[path.rindex(".") :]
    seeds = [small(sample) for sample in samples() if sample.path.suffix == suffix]
    return Target(name, lambda data: function(Window.of_bytes(data), path), [*seeds, *made])


def _mrcs() -> list[bytes]:
    values = {"HT": 3e5, "Dose": 4e21, "Pixel size X": 1e-10, "Application": "EPU"}
    records = [(kind, fei_record(kind, values) * 2) for kind in fei.TYPES]
    extended = [mrc_file(nz=2, extended=record, kind=kind.encode()) for kind, record in records]
    return [mrc_file(nz=3), mrc_file(mode=101, order=">"), *extended]


def _tiffs() -> list[bytes]:
    text = b"SerialEM\nr/f 3\ngain.mrc\ndefects.txt\0"
    pages: list[dict[int, tuple[int, Any]]] = [{270: (2, text)}, {}, {}]
    return [tiff_file(pages), tiff_file(pages, big=True, order=">")]


def _dms() -> list[bytes]:
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    return [dm_file(image), dm_file(image.astype(np.uint16), version=3, order=">")]


def small(sample: Sample) -> bytes:
    """Return a sample with its long lists cut short, so that a change hits what matters."""
    content = sample.content
    if sample.path.suffix not in (".xml", ".dm"):
        return content[:LONGEST]
    root = etree.fromstring(content)
    for element in list(root.iter()):
        for surplus in list(element)[LISTED:] if len(element) > 50 else ():
            element.remove(surplus)
    return etree.tostring(root)
