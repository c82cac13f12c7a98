"""Headers of MRC files: the real sample, both extended headers, bit masks, modes, broken files."""

import json
import math
import struct
from typing import Any

import pytest
from mrcfile.dtypes import get_ext_header_dtype

from mdcatch.parsers import fei
from mdcatch.parsers.mrcheader import parse_mrc
from mdcatch.parsers.record import Record
from mdcatch.parsers.window import Window
from services.kit.errors import Code, Refused
from tests.header_files import fei_record, mrc_file
from tests.shared import shared

SAMPLE = "data/metadata/mrc/epu1.2_k2_fei1_sum.mrc"
VALUES: dict[str, Any] = {
    "Timestamp": 43018.35943056,
    "Microscope type": "TITAN52336320",
    "D-Number": "3632",
    "Application": "Fei EPU",
    "Application version": "1.2.0.16",
    "HT": 300_000.0,
    "Dose": 47.5e20,
    "Alpha tilt": 12.5,
    "Beta tilt": -1.0,
    "X-Stage": 8.1e-4,
    "Y-Stage": -8.4e-4,
    "Z-Stage": 9e-5,
    "Pixel size X": 0.85e-10,
    "Pixel size Y": 0.85e-10,
    "Defocus": -0.9e-6,
    "Applied defocus": -0.8e-6,
    "Probe mode": 1,
    "EFTEM On": True,
    "Magnification": 165_000.0,
    "Spot index": 6,
    "Illuminated area": 1.1e-6,
    "Slit inserted": True,
    "Slit width": 20.0,
    "Shift offset X": 0.1,
    "Shift offset Y": -0.2,
    "Shift X": 0.02,
    "Shift Y": 0.03,
    "Integration time": 10.0,
    "Binning Width": 1,
    "Camera name": "EF-CCD",
    "Direct detector electron counting": True,
    "Phase Plate": False,
}
FEI2_VALUES = {**VALUES, "Detector commercial name": "Falcon 4i", "Objective aperture name": "70"}
WANTED = {
    "software": "Fei EPU",
    "software_version": "1.2.0.16",
    "microscope_id": "3632",
    "microscope_model": "TITAN52336320",
    "voltage_kV": 300.0,
    "total_dose_e_per_A2": 47.5,
    "tilt_angle_deg": 12.5,
    "tilt_beta_deg": -1.0,
    "stage_um": (810.0, -840.0, 90.0),
    "image_pixel_size_A": 0.85,
    "lens_defocus_um": -0.9,
    "applied_defocus_um": -0.8,
    "probe_mode": "NanoProbe",
    "energy_filter_on": True,
    "magnification": 165_000,
    "spot_index": 6,
    "beam_diameter_um": 1.1,
    "slit_inserted": True,
    "slit_width_eV": 20.0,
    "image_shift": (0.1, -0.2),
    "beam_shift": (0.02, 0.03),
    "exposure_time_s": 10.0,
    "binning": 1,
    "detector": "EF-CCD",
    "counting": True,
    "phase_plate": False,
    "acquisition_time": "2017-10-10T08:37:34",
}


def parse(content: bytes) -> Record:
    return parse_mrc(Window.of_bytes(content), "a.mrc")


def refused(content: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        parse(content)
    assert "a.mrc" in caught.value.detail or caught.value.code == Code.OUT_OF_RANGE
    return caught.value


def sum_file(kind: str = "FEI1", values: dict[str, Any] | None = None, **changes: Any) -> bytes:
    order = changes.get("order", "<")
    values = VALUES if values is None else values
    extended = fei_record(kind, values, order=order) + bytes(changes.pop("padding", 0))
    return mrc_file(extended=extended, kind=kind.encode(), **changes)


def test_the_real_sum_gives_the_reference_values() -> None:
    path = shared(SAMPLE)
    expected = json.loads(path.with_name(path.name + ".expected.json").read_text())
    with path.open("rb") as file:
        answer = parse_mrc(Window.of_file(file), path.name).as_json()
    for key, wanted in expected.items():
        if key == "notes":
            continue
        if isinstance(wanted, float | list):
            assert answer[key] == pytest.approx(wanted, rel=1e-4), key
        else:
            assert answer[key] == wanted, key
    assert answer["complete"] is False  # the sample is cut behind its headers


@pytest.mark.parametrize("kind", ["FEI1", "FEI2"])
def test_the_layout_is_that_of_an_independent_reader(kind: str) -> None:
    layout = get_ext_header_dtype(kind.encode(), "<")
    assert layout is not None and layout.names is not None and layout.fields is not None
    places = fei.PLACES[kind]
    assert layout.itemsize == fei.TYPES[kind]
    assert [layout.fields[name][1] for name in layout.names] == [place.offset for place in places]
    ours = [place.name for place in places if not place.name.startswith("Reserved")]
    assert ours == [name for name in layout.names if " reserved " not in name]
    for mask in {place.mask for place in places} - {-1}:
        owned = [p for p in places if p.mask == mask and not p.name.startswith("Bitmask")]
        assert max(place.bit for place in owned) < 32


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["FEI1", "FEI2"])
@pytest.mark.parametrize("padding", [0, 1000, 3 * 888])
def test_every_field_of_both_types(kind: str, order: str, padding: int) -> None:
    values = FEI2_VALUES if kind == "FEI2" else VALUES
    record = parse(sum_file(kind, values, order=order, padding=padding))
    assert (record.format, record.kind) == (f"mrc_{kind.lower()}", "integrated_image")
    for key, wanted in WANTED.items():
        assert record.get(key) == pytest.approx(wanted), key
    model = "Falcon 4i" if kind == "FEI2" else None
    assert record.get("detector_model") == model
    assert record.get("metadata_block_bytes") == fei.TYPES[kind]
    assert record.get("complete") is True
    assert record.fields["voltage_kV"].source == "header"


@pytest.mark.parametrize("name", [name for name in VALUES if name != "Pixel size Y"])
def test_a_cleared_bit_is_unknown_not_zero(name: str) -> None:
    extended = fei_record("FEI1", VALUES, unset=[name])
    record = parse(mrc_file(extended=extended, kind=b"FEI1", cell=(0.0, 0.0)))
    lost = {key for key in WANTED if record.get(key) is None}
    assert len(lost) == 1, lost


def test_frames_are_the_sections_and_the_dose_of_a_movie_is_not_guessed() -> None:
    record = parse(sum_file(nz=5))
    assert (record.kind, record.get("n_frames")) == ("movie", 5)
    assert record.get("pixel_size_A") == record.get("image_pixel_size_A")
    assert record.get("pixel_size_A") == pytest.approx(0.85)
    assert record.get("movie_size_px") == record.get("image_size_px") == (8, 6)
    assert record.get("total_dose_e_per_A2") is None
    assert float(record.unknown["Dose"]) == 47.5e20


@pytest.mark.parametrize("mode", [0, 1, 2, 6, 12, 101])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nx", [8, 7])
def test_complete_is_told_by_the_length(mode: int, order: str, nx: int) -> None:
    whole = parse(mrc_file(mode=mode, order=order, nx=nx, nz=3))
    assert whole.get("complete") is True
    assert (whole.get("mode"), whole.get("n_frames")) == (mode, 3)
    assert whole.get("movie_size_px") == (nx, 6)
    assert whole.get("pixel_size_A") == pytest.approx(1.5)
    assert not any("behind" in note for note in whole.notes)
    longer = parse(mrc_file(mode=mode, order=order, nx=nx, nz=3) + bytes(5))
    assert longer.get("complete") is True
    assert "5 bytes stand behind the last section" in longer.notes
    cut = parse(mrc_file(mode=mode, order=order, nx=nx, nz=3, missing=1))
    assert cut.get("complete") is False
    assert cut.get("n_frames") == 3


@pytest.mark.parametrize("cell", [(0.0, 0.0), (-1.0, 1.0), (math.nan, 1.0), (math.inf, 1.0)])
def test_no_pixel_where_the_cell_makes_no_sense(cell: tuple[float, float]) -> None:
    record = parse(mrc_file(cell=cell))
    assert record.get("header_voxel_A") is None
    assert record.get("image_pixel_size_A") is None


def test_old_tomography_headers_are_skipped() -> None:
    record = parse(mrc_file(nz=2, extended=bytes(1024 * 128)))
    assert (record.format, record.get("complete")) == ("mrc", True)
    assert any("old FEI" in note for note in record.notes)


@pytest.mark.parametrize("block", [0, -1, 767, 2000, 2**31 - 1])
def test_a_broken_extended_header_costs_only_itself(block: int) -> None:
    content = bytearray(sum_file())
    struct.pack_into("<i", content, 1024, block)
    record = parse(bytes(content))
    assert "extended_header_broken" in record.flags
    assert record.get("voltage_kV") is None
    assert record.get("image_pixel_size_A") == pytest.approx(1.5)
    short = parse(mrc_file(extended=bytes(100), kind=b"FEI1"))
    assert "extended_header_broken" in short.flags


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HT", -300_000.0),
        ("HT", math.nan),
        ("Dose", 1e99),
        ("Pixel size X", 1.0),
        ("Integration time", math.inf),
        ("Binning Width", -2),
    ],
)
def test_values_that_are_needed_must_make_sense(name: str, value: float) -> None:
    assert refused(sum_file(values={**VALUES, name: value})).code == Code.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("name", "value"),
    [("Defocus", math.nan), ("Spot index", -1), ("Shift X", 1e99), ("Camera name", "\x01\x02")],
)
def test_values_that_are_not_needed_are_left_out(name: str, value: Any) -> None:
    record = parse(sum_file(values={**VALUES, name: value}))
    assert record.get("voltage_kV") == 300
    assert any(note.startswith("left out") for note in record.notes)


@pytest.mark.parametrize("days", [math.nan, math.inf, -5.0, 0.0, 7.0, 80_000.0, 1e300])
def test_a_time_that_makes_no_sense_is_unknown(days: float) -> None:
    assert parse(sum_file(values={**VALUES, "Timestamp": days})).get("acquisition_time") is None


HOSTILE = [
    (b"", Code.EMPTY_FILE),
    (b"MAP ", Code.TRUNCATED),
    (mrc_file()[:1023], Code.TRUNCATED),
    (sum_file()[: 1024 + 767], Code.TRUNCATED),
    (mrc_file(nx=-4), Code.BAD_HEADER),
    (mrc_file(nz=0), Code.BAD_HEADER),
    (mrc_file(mode=5), Code.BAD_HEADER),
    (mrc_file(mode=4), Code.UNSUPPORTED),
    (mrc_file(claimed=-1), Code.BAD_HEADER),
    (mrc_file(claimed=2**31 - 1), Code.TOO_LARGE),
    (mrc_file(nx=1, ny=1, nz=4097), Code.TOO_LARGE),
    (bytes(2048), Code.BAD_HEADER),
]


@pytest.mark.parametrize(("content", "code"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_and_broken_files_are_refused(content: bytes, code: Code) -> None:
    assert refused(content).code == code


def test_huge_sizes_allocate_nothing() -> None:
    content = bytearray(mrc_file())
    struct.pack_into("<3i", content, 0, 32_768, 32_768, 4096)
    assert parse(bytes(content)).get("complete") is False
    struct.pack_into("<3i", content, 0, 2**31 - 1, 2, 2)
    assert refused(bytes(content)).code in (Code.TOO_LARGE, Code.BAD_HEADER)


def test_a_window_never_gives_less_than_asked() -> None:
    window = Window(lambda offset, length: b"ab", 100)
    with pytest.raises(Refused) as caught:
        window.take(0, 3, "a piece")
    assert caught.value.code == Code.TRUNCATED
    with pytest.raises(Refused) as caught:
        window.take(-1, 3, "a piece")
    assert caught.value.code == Code.BAD_HEADER
    assert Window.of_bytes(b"abc").take(1, 2, "a piece") == b"bc"
