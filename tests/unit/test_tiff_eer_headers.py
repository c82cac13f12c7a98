"""Headers of TIFF and EER movies: samples, both byte orders and sizes, and lies in every number."""

import json
import struct
from typing import Any

import pytest

from mdcatch.parsers import directories
from mdcatch.parsers.eerheader import parse_eer
from mdcatch.parsers.record import Record
from mdcatch.parsers.tiffheader import parse_tiff
from mdcatch.parsers.window import Window
from services.kit.errors import Code, Refused
from tests.header_files import EER_ITEMS, eer_file, tiff_file
from tests.shared import shared

SERIALEM = "SerialEMCCD: Dose frac. image, scaled by 1.00  r/f 3\nCountRef_a.mrc\ndefects_a.txt"
Page = dict[int, tuple[int, Any]]


def tiff(content: bytes, name: str = "a.tif") -> Record:
    return parse_tiff(Window.of_bytes(content), name)


def eer(content: bytes) -> Record:
    return parse_eer(Window.of_bytes(content), "a.eer")


def code_of(parse: Any, content: bytes) -> Code:
    with pytest.raises(Refused) as caught:
        parse(content)
    assert caught.value.detail
    return caught.value.code


def pages(number: int = 3, first: Page | None = None) -> list[Page]:
    return [first or {}, *({} for _ in range(number - 1))]


@pytest.mark.parametrize(
    "name",
    [
        "falcon4i_20frames.eer",
        "falcon4i_truncated.eer",
        "k3_serialem_8frames.tif",
        "k3_serialem_truncated.tif",
    ],
)
def test_the_samples_give_the_reference_values(name: str) -> None:
    path = shared(f"data/metadata/synthetic/{name}")
    expected = json.loads(path.with_name(name + ".expected.json").read_text())
    parse = parse_eer if name.endswith(".eer") else parse_tiff
    with path.open("rb") as file:
        answer = parse(Window.of_file(file), name).as_json()
    for key, wanted in expected.items():
        if key == "notes":
            continue
        if isinstance(wanted, float | list):
            assert answer[key] == pytest.approx(wanted, rel=1e-4), key
        else:
            assert answer[key] == wanted, key
    if "truncated" in name:
        known = {key for key, value in answer.items() if value not in (None, {}, [])}
        assert known <= {"format", "kind", "complete", "notes", "sources"}


# ---- TIFF


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_field_of_a_tiff(big: bool, order: str) -> None:
    first: Page = {
        270: (2, SERIALEM),
        282: (5, (2_540_000_000, 10)),
        296: (3, 2),
        306: (2, "2024:09:01 06:01:10"),
    }
    record = tiff(tiff_file(pages(5, first), big=big, order=order, compression=5))
    assert (record.format, record.kind) == ("tiff", "movie")
    for key, wanted in {
        "n_frames": 5,
        "movie_size_px": (4, 3),
        "pixel_size_A": 1.0,
        "pixel_size_source": "resolution tags (low trust)",
        "compression": "lzw",
        "pixel_format": "uint8",
        "rotation_flip": 3,
        "gain_reference": "CountRef_a.mrc",
        "defects_file": "defects_a.txt",
        "acquisition_time": "2024-09-01T06:01:10",
        "complete": True,
        "voltage_kV": None,
        "total_dose_e_per_A2": None,
        "exposure_time_s": None,
    }.items():
        assert (
            record.get(key) == pytest.approx(wanted)
            if wanted == 1.0
            else (record.get(key) == wanted)
        ), key


@pytest.mark.parametrize(
    ("resolution", "unit", "pixel"),
    [
        ((72, 1), 2, None),  # 72 dots per inch say nothing
        ((10**8, 1), 3, 1.0),
        ((10**8, 1), 1, None),
        ((0, 1), 2, None),
        ((1, 0), 2, None),
        ((4_000_000_000, 1), 2, None),  # 0.06 A
        ((12_700_000, 1), 2, 20.0),
        ((12_000_000, 1), 2, None),
    ],
)
def test_the_resolution_counts_only_where_it_can_be_a_pixel(
    resolution: tuple[int, int], unit: int, pixel: float | None
) -> None:
    record = tiff(tiff_file(pages(first={282: (5, resolution), 296: (3, unit)})))
    assert record.get("pixel_size_A") == pytest.approx(pixel)


@pytest.mark.parametrize(
    ("text", "rotation", "gain", "defects"),
    [
        (SERIALEM, 3, "CountRef_a.mrc", "defects_a.txt"),
        ("x r/f 0\r\nSuperRef_a.dm4\r\n", 0, "SuperRef_a.dm4", None),
        ("x r/f 7\ndefects_a.txt", 7, None, "defects_a.txt"),
        ("x r/f 1\n" + r"X:\g\..\CountRef_a.mrc", 1, "CountRef_a.mrc", None),
        ("x r/f 9\nCountRef_a.mrc", None, "CountRef_a.mrc", None),
        ("x r/f 12\nCountRef_a.mrc", None, None, None),
        ("x r/f 2\n..\n", 2, None, None),
        ("another program", None, None, None),
    ],
)
def test_descriptions(
    text: str, rotation: int | None, gain: str | None, defects: str | None
) -> None:
    record = tiff(tiff_file(pages(first={270: (2, text)})))
    assert record.get("rotation_flip") == rotation
    assert record.get("gain_reference") == gain
    assert record.get("defects_file") == defects


def test_packed_pixels_are_told_by_the_size() -> None:
    content = tiff_file(pages(2, {}), nx=5760, ny=8184)
    record = tiff(content)
    assert (record.get("movie_size_px"), record.get("pixel_format")) == ((11520, 8184), "uint4")


def test_one_directory_is_an_image_and_a_gain_file_a_gain() -> None:
    assert tiff(tiff_file(pages(1))).kind == "image"
    gain = tiff(tiff_file(pages(1, {65100: (7, b"<defects/>")})), "x/20240101_gain.GAIN")
    assert (gain.kind, gain.get("image_size_px")) == ("gain_reference", (4, 3))
    assert any("defects" in note for note in gain.notes)


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_cut_anywhere_is_not_complete_and_says_nothing_else(big: bool) -> None:
    whole = tiff_file(pages(4, {270: (2, SERIALEM)}), big=big)
    for length in range(1, len(whole)):
        record = tiff(whole[:length])
        assert {key: field.value for key, field in record.fields.items()} == {"complete": False}
        assert record.notes
    assert tiff(whole).get("n_frames") == 4


def test_a_preallocated_or_unfinished_tiff_is_not_complete() -> None:
    whole = bytearray(tiff_file(pages(2)))
    struct.pack_into("<I", whole, 4, 0)
    assert tiff(bytes(whole)).get("complete") is False
    assert tiff(tiff_file([{279: (4, 0)}])).get("complete") is False
    assert code_of(tiff, bytes(5000)) == Code.BAD_HEADER


LIES: list[tuple[bytes, Code]] = [
    (b"", Code.EMPTY_FILE),
    (b"ABCD" * 100, Code.BAD_HEADER),
    (tiff_file(pages(3), last=8), Code.BAD_HEADER),  # into the pixels: 0 or too many entries
    (tiff_file(pages(1, {256: (4, 0)})), Code.BAD_HEADER),
    (tiff_file(pages(1, {256: (4, 2**31)})), Code.TOO_LARGE),
    (tiff_file(pages(1, {256: (4, (1, 2))})), Code.BAD_HEADER),
    (tiff_file(pages(1, {256: (4, None)})), Code.BAD_HEADER),
    (tiff_file(pages(1, {278: (4, 0)})), Code.BAD_HEADER),
    (tiff_file(pages(1, {278: (4, 1)})), Code.BAD_HEADER),  # three strips, one offset
    (tiff_file(pages(1, {273: (4, None)})), Code.BAD_HEADER),
    (tiff_file(pages(1, {322: (4, 16)})), Code.UNSUPPORTED),
    (tiff_file(pages(1), compression=7), Code.UNSUPPORTED),
    (tiff_file([{}, {256: (4, 3)}]), Code.BAD_HEADER),
    (tiff_file([{}, {258: (3, 16)}]), Code.BAD_HEADER),
    (tiff_file(pages(4097)), Code.TOO_LARGE),
]


@pytest.mark.parametrize(("content", "code"), LIES, ids=range(len(LIES)))
def test_hostile_and_broken_tiffs_are_refused(content: bytes, code: Code) -> None:
    assert code_of(tiff, content) == code


def test_a_chain_that_loops_is_refused() -> None:
    whole = bytearray(tiff_file(pages(3)))
    (first,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, first)
    struct.pack_into("<I", whole, first + 2 + 12 * count, first)
    assert code_of(tiff, bytes(whole)) == Code.BAD_HEADER


@pytest.mark.parametrize("count", [0xFFFF, 513])
def test_a_directory_of_too_many_entries_is_refused(count: int) -> None:
    whole = bytearray(tiff_file(pages(1)) + bytes(2**20))
    (first,) = struct.unpack_from("<I", whole, 4)
    struct.pack_into("<H", whole, first, count)
    assert code_of(tiff, bytes(whole)) == Code.BAD_HEADER


def test_offsets_beyond_the_file_and_of_64_bits_are_not_followed() -> None:
    for value in (2**63, 2**64 - 1, 10**12):
        record = tiff(tiff_file([{273: (16, value)}], big=True))
        assert record.get("complete") is False
        assert tiff(tiff_file(pages(2), big=True, last=value)).get("complete") is False


def test_many_directories_with_the_same_long_lists_are_refused_in_time() -> None:
    # 2,000 directories of 200 bytes all point to one list of 30,000 strips: 500 MB if believed.
    strips = 30_000
    body = bytearray(tiff_file([{}], nx=1, ny=strips))
    offsets = len(body)
    body += struct.pack("<I", 8) * strips + struct.pack("<I", 1) * strips
    link = 4
    for _ in range(2000):
        struct.pack_into("<I", body, link, len(body))
        entries = [(256, 4, 1, 1), (257, 4, 1, strips), (258, 3, 1, 8), (278, 4, 1, 1)]
        entries += [(273, 4, strips, offsets), (279, 4, strips, offsets + 4 * strips)]
        body += struct.pack("<H", len(entries))
        for entry in sorted(entries):
            body += struct.pack("<HHII", *entry)
        link = len(body)
        body += bytes(4)
    assert len(body) < 2**20
    assert code_of(tiff, bytes(body)) == Code.TOO_LARGE


def test_long_texts_are_refused() -> None:
    text = b"x" * (directories.MAX_TAG_BYTES + 1)
    assert code_of(tiff, tiff_file(pages(1, {270: (2, text)}))) == Code.TOO_LARGE


# ---- EER


def test_every_field_of_an_eer() -> None:
    record = eer(eer_file())
    assert (record.format, record.kind) == ("eer", "movie")
    for key, wanted in {
        "n_frames": 3,
        "n_frames_declared": 3,
        "movie_size_px": (4, 3),
        "exposure_time_s": 0.5,
        "total_dose_e_per_px": 4.0,
        "dose_rate_e_per_px_s": 8.0,
        "detector": "EF-Falcon",
        "detector_model": "Falcon 4i",
        "acquisition_id": "acq_1",
        "acquisition_time": "2024-09-01T06:01:10.123456+02:00",
        "compression": "eer, 7-bit run length",
        "complete": True,
        # The pixel is the sensor's: nothing about the specimen follows.
        "pixel_size_A": None,
        "total_dose_e_per_A2": None,
        "dose_per_frame_e_per_A2": None,
        "voltage_kV": None,
    }.items():
        assert record.get(key) == wanted, key
    assert record.flags == []


def test_a_pixel_too_small_for_a_sensor_is_the_specimens() -> None:
    items = {**EER_ITEMS}
    for key in ("sensorPixelSize.width", "sensorPixelSize.height"):
        items[key] = ("2e-10", "m")
    record = eer(eer_file(4, items))
    assert record.get("pixel_size_A") == pytest.approx(2.0)
    assert record.get("total_dose_e_per_A2") == pytest.approx(1.0)
    assert record.get("dose_per_frame_e_per_A2") == pytest.approx(0.25)
    assert record.fields["total_dose_e_per_A2"].source == "computed"
    assert "frames_mismatch" in record.flags


@pytest.mark.parametrize("compression", [65000, 65001, 65002])
def test_all_codes_and_summed_images(compression: int) -> None:
    record = eer(eer_file(3, sums=1, compression=compression))
    assert record.get("n_frames") == 3
    assert any("summed" in note for note in record.notes)


def test_units_decide() -> None:
    items = {**EER_ITEMS, "exposureTime": ("500", "ms"), "totalDose": ("3", "furlong")}
    record = eer(eer_file(3, items))
    assert record.get("exposure_time_s") == pytest.approx(0.5)
    assert record.get("total_dose_e_per_px") is None
    assert record.unknown["totalDose"] == "3 furlong"
    assert any("furlong" in note for note in record.notes)


@pytest.mark.parametrize("dose", ["e/pixel", "e-/px", "electrons / pixel", "E/Pixel", ""])
@pytest.mark.parametrize(("time", "pixel"), [("s", "nm"), ("seconds", "nm"), ("Sec", "NM")])
def test_units_are_spelled_in_many_ways(dose: str, time: str, pixel: str) -> None:
    items = {**EER_ITEMS, "exposureTime": ("0.5", time), "totalDose": ("3", dose)}
    items["meanDoseRate"] = ("6", f"{dose}/{time}" if dose else "")
    items["sensorPixelSize.width"] = items["sensorPixelSize.height"] = ("0.1", pixel)
    record = eer(eer_file(3, items))
    assert record.get("exposure_time_s") == 0.5
    assert record.get("total_dose_e_per_px") == 3.0
    assert record.get("dose_rate_e_per_px_s") == 6.0
    assert record.get("pixel_size_A") == pytest.approx(1.0)


def test_what_the_document_does_not_say_is_unknown() -> None:
    for content in (eer_file(3, {}), eer_file(3, document=b"")):
        record = eer(content)
        assert record.get("n_frames") == 3
        assert record.get("exposure_time_s") is None and record.get("detector") is None


def test_an_eer_cut_anywhere_is_not_complete_and_says_nothing_else() -> None:
    whole = eer_file(4)
    for length in range(1, len(whole)):
        record = eer(whole[:length])
        assert {key: field.value for key, field in record.fields.items()} == {"complete": False}


def test_an_eer_by_another_name_is_still_one() -> None:
    record = tiff(eer_file(3))
    assert (record.format, record.get("n_frames")) == ("eer", 3)


BOMB = b'<!DOCTYPE a [<!ENTITY x "y">]><metadata>&x;</metadata>'
TWICE = b'<metadata><item name="totalDose">1</item><item name="totalDose">2</item></metadata>'
BROKEN_EERS: list[tuple[bytes, Code]] = [
    (b"", Code.EMPTY_FILE),
    (tiff_file(pages(3)), Code.UNSUPPORTED),
    (b"\1\2\3\4" * 500 + b"ThermoFisherECComprOK000", Code.UNSUPPORTED),
    (b"\1\2\3\4" * 500, Code.BAD_HEADER),
    (eer_file(document=BOMB), Code.XML_DTD),
    (eer_file(document=TWICE), Code.XML_BROKEN),
    (eer_file(document=b"<metadata><item"), Code.XML_BROKEN),
    (eer_file(document=b"no xml"), Code.XML_BROKEN),
    (eer_file(items={"exposureTime": ("NaN", "s")}), Code.OUT_OF_RANGE),
    (eer_file(items={"totalDose": ("-1", "e/pixel")}), Code.OUT_OF_RANGE),
    (eer_file(items={"numberOfFrames": ("1e9", "")}), Code.OUT_OF_RANGE),
    (eer_file(items={"sensorPixelSize.width": ("1e-30", "m")}), Code.OUT_OF_RANGE),
]


@pytest.mark.parametrize(("content", "code"), BROKEN_EERS, ids=range(len(BROKEN_EERS)))
def test_broken_eers_are_refused(content: bytes, code: Code) -> None:
    assert code_of(eer, content) == code


def test_more_frames_than_a_tiff_movie_may_have() -> None:
    assert eer(eer_file(5000)).get("n_frames") == 5000
