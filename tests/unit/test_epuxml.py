"""EPU's image XML: every real sample, and every kind of broken one."""

import json
import math
import tracemalloc
from datetime import datetime
from pathlib import Path

import pytest

from mdcatch.parsers.epuxml import EpuImage, Kind, classify, parse_image
from mdcatch.parsers.limits import MAX_XML_BYTES, Bounds, integer, number
from services.kit.errors import Code, Refused
from tests.epu_tree import image_xml
from tests.shared import shared

# Names of the reference results -> ours, where they differ.
NAMES = {
    "total_dose_e_per_A2": "dose_e_A2",
    "dose_on_camera_e_per_image_px": "dose_on_camera_e_px",
    "dose_per_frame_e_per_A2": "dose_per_frame_e_A2",
    "tilt_angle_deg": "tilt_alpha_deg",
    "beam_tilt": "beam_tilt_rad",
    "acquisition_time": "acquired_at",
}
# What the XML alone does not say, or what belongs to names.
ELSEWHERE = {"format", "kind", "cs_mm", "notes", "movie_format"}
ELSEWHERE |= {"grid_square_id", "foil_hole_id", "acquisition_area_id", "acquisition_seq_id"}


def samples() -> list[tuple[Path, dict]]:
    found = sorted(shared("data/metadata/epu").rglob("*.expected.json"))
    return [
        (p.with_name(p.name.removesuffix(".expected.json")), json.loads(p.read_text()))
        for p in found
    ]


def same(got: object, wanted: object, key: str) -> bool:
    if got is None or wanted is None or isinstance(wanted, bool):
        return got is wanted
    if key == "acquisition_time":
        return datetime.fromisoformat(str(got)) == datetime.fromisoformat(str(wanted))
    if isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(same, got, wanted, [key] * len(wanted)))
    if isinstance(wanted, float | int):
        tolerance = 0.05 if key == "n_frames_estimate" else 1e-4
        return math.isclose(got, wanted, rel_tol=tolerance, abs_tol=1e-15)
    return got == wanted


def value(record: EpuImage, key: str) -> object:
    if key == "image_size_px":
        return record.image_width_px, record.image_height_px
    return getattr(record, NAMES.get(key, key))


def test_every_real_image_xml_gives_the_reference_values():
    checked = 0
    for path, expected in samples():
        if expected["format"] != "epu_xml":
            continue
        record = parse_image(path.read_bytes())
        is_exposure = expected["kind"] == "exposure"
        for key, wanted in expected.items():
            if key in ELSEWHERE or (wanted is None and not is_exposure):
                continue  # a preview has no movie, so no movie's pixel
            got = value(record, key)
            assert same(got, wanted, key), f"{path.name}: {key} is {got}, not {wanted}"
        checked += 1
    assert checked == 40


def test_every_real_file_is_classified():
    known = {str(kind) for kind in Kind}
    for path, expected in samples():
        kind = expected["kind"] if expected["kind"] in known else "other"
        assert classify(path.name, path.read_bytes()[:2048]) == kind, path.name
        assert classify(path.name, b"<html><body>") == Kind.OTHER


def test_unknown_keys_are_kept_and_known_ones_are_not_repeated():
    extra = (
        "<a:KeyValueOfstringanyType><a:Key>Site[1].Note</a:Key>"
        "<a:Value>kept</a:Value></a:KeyValueOfstringanyType>"
    )
    record = parse_image(image_xml(extra=extra))
    assert record.other == {"Site[1].Note": "kept"}
    assert record.dose_e_A2 == pytest.approx(40.0)


def test_keys_and_values_are_paired_inside_their_element():
    # A key without a value must not shift the values of the keys after it.
    extra = (
        "<a:KeyValueOfstringanyType><a:Key>Empty</a:Key></a:KeyValueOfstringanyType>"
        "<a:KeyValueOfstringanyType><a:Value>7</a:Value></a:KeyValueOfstringanyType>"
    )
    assert parse_image(image_xml(extra=extra)).dose_e_A2 == pytest.approx(40.0)


def test_what_is_not_said_stays_unknown():
    record = parse_image(image_xml(pixel_m=None, voltage_V=None, dose_e_m2=None, frames=None))
    assert record.pixel_size_A is None
    assert record.voltage_kV is None
    assert record.dose_e_A2 is None and record.dose_per_frame_e_A2 is None
    assert record.n_frames is None and record.fractionation is None
    assert record.slit_inserted is None


def test_super_resolution_halves_the_movie_pixel_and_doubles_its_size():
    record = parse_image(image_xml(pixel_m="1.0559E-10", width=2880, height=2046, factor=2))
    assert record.pixel_size_A == pytest.approx(0.52795)
    assert record.movie_size_px == (5760, 4092)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"voltage_V": "-300000"}, "voltage_kV"),
        ({"voltage_V": "0"}, "voltage_kV"),
        ({"pixel_m": "1.05"}, "image_pixel_size_A"),  # Angstrom where metres belong
        ({"dose_e_m2": "NaN"}, "dose_e_A2"),
        ({"dose_e_m2": "1e999"}, "dose_e_A2"),
        ({"dose_e_m2": "INF"}, "dose_e_A2"),
        ({"dose_e_m2": "1_000"}, "dose_e_A2"),
        ({"frames": 0}, "n_frames"),
        ({"factor": 9}, "super_resolution_factor"),
        ({"magnification": "abc"}, "magnification"),
    ],
)
def test_numbers_out_of_range_name_field_value_and_bounds(changes: dict, field: str):
    with pytest.raises(Refused) as caught:
        parse_image(image_xml(**changes))
    assert caught.value.code == Code.OUT_OF_RANGE
    text = str(next(iter(changes.values())))
    assert field in caught.value.detail and text in caught.value.detail
    assert " to " in caught.value.detail


BOMB = b'<!DOCTYPE a [<!ENTITY x "' + b"y" * 1000 + b'">]><a>' + b"&x;" * 10_000 + b"</a>"
XXE = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><MicroscopeImage>&x;</MicroscopeImage>'


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.EMPTY_FILE),
        (b" \n", Code.EMPTY_FILE),
        (BOMB, Code.XML_DTD),
        (XXE, Code.XML_DTD),
        (b"<a>" * 65 + b"</a>" * 65, Code.XML_TOO_LARGE),
        (b"<a>" + b"<k/>" * 50_001 + b"</a>", Code.XML_TOO_LARGE),
        (b"<a>" + b"x" * 70_000 + b"</a>", Code.XML_TOO_LARGE),
        (b"<a>" + b" " * MAX_XML_BYTES + b"</a>", Code.XML_TOO_LARGE),
        (b"<MicroscopeImage><a>", Code.TRUNCATED),
        (b"<MicroscopeImage>&lol;</MicroscopeImage>", Code.XML_BROKEN),
        (b"<MicroscopeImage></wrong>", Code.XML_BROKEN),
        ("<MicroscopeImage/>".encode("utf-16"), Code.XML_BROKEN),
        (b"<Acquisition/>", Code.XML_BROKEN),
        (b"\x00" * 5000, Code.XML_BROKEN),
    ],
    ids=lambda case: case.name if isinstance(case, Code) else None,
)
def test_hostile_and_broken_documents_are_refused(data: bytes, code: Code):
    with pytest.raises(Refused) as caught:
        parse_image(data)
    assert caught.value.code == code


def test_a_declared_encoding_cannot_hide_a_doctype():
    hidden = '<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE a><MicroscopeImage/>'
    with pytest.raises(Refused):
        parse_image(hidden.encode())


def test_the_largest_document_needs_little_memory():
    wide = b"<a>" + b"<k/>" * (MAX_XML_BYTES // 4 - 10) + b"</a>"
    tracemalloc.start()
    with pytest.raises(Refused):
        parse_image(wide)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


def test_a_key_given_twice_with_two_values_is_refused():
    extra = (
        "<a:KeyValueOfstringanyType><a:Key>Dose</a:Key>"
        "<a:Value>1.0E+21</a:Value></a:KeyValueOfstringanyType>"
    )
    with pytest.raises(Refused, match="Dose"):
        parse_image(image_xml(extra=extra))


def test_numbers_are_plain_ascii_within_bounds():
    bounds = Bounds(0.0, 10.0, "s")
    assert number("t", "1.5E+00", bounds) == 1.5
    assert number("t", ".5", bounds) == 0.5
    assert integer("n", "3", bounds) == 3
    for text in ("", "1_0", "\u0661", "0x1", "1e", "--1", "11", "-1", "infinity"):
        with pytest.raises(Refused):
            number("t", text, bounds)
    with pytest.raises(Refused):
        integer("n", "1.5", bounds)
