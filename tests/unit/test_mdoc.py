"""SerialEM's metadata: every real sample, every dialect and rule, and every kind of broken file."""

import json
import math
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from algorithms.simulate.epu import plan_session
from algorithms.simulate.recipe import load_recipe
from algorithms.simulate.serialem import DIALECTS, frame_mdoc
from mdcatch.parsers.mdoc import parse_mdoc
from mdcatch.parsers.mdocgrammar import MAX_BYTES, MAX_SECTIONS
from mdcatch.parsers.mdocshot import base_name
from mdcatch.parsers.mdoctime import acquisition_order, time_of, time_of_stamp
from services.kit.errors import Code, Refused
from tests.shared import shared

SHOT = {
    "TiltAngle": "-0.000999877",
    "StagePosition": "-47.2012 28.4092",
    "StageZ": "-13.1043",
    "Magnification": "165000",
    "ExposureDose": "40",
    "DoseRate": "8.7335",
    "PixelSpacing": "0.82",
    "SpotSize": "7",
    "Defocus": "1.04811e-005",
    "ImageShift": "1.43117 -0.941825",
    "RotationAngle": "174.13",
    "ExposureTime": "3",
    "Binning": "1",
    "CameraIndex": "0",
    "OperatingMode": "1",
    "TargetDefocus": "-2",
    "SubFramePath": r"X:\Users\raw\a_0001.tif",
    "NumSubFrames": "40",
    "FrameDosesAndNumber": "1 40",
    "DateTime": "25-Sep-23  14:13:26",
    "FilterSlitAndLoss": "20 0",
}
TITLE = "T = SerialEM: Titan Krios G4 D3946 at a site   06-Jun-23  12:49:49    "


def block(kind: str, number: int = 0, /, **changes: str | None) -> list[str]:
    values = {**SHOT, **changes}
    return [
        f"[{kind} = {number}]",
        *(f"{key} = {value}" for key, value in values.items() if value is not None),
    ]


def frame_set(**changes: str | None) -> bytes:
    lines = [TITLE, "Voltage = 300", "", *block("FrameSet", **changes), ""]
    return "\r\n".join(lines).encode()


def series(tilts: list[dict[str, str | None]], title: str = "dosym = 8.0") -> bytes:
    lines = ["PixelSpacing = 0.82", "Voltage = 300", "ImageFile = TS.mrc", "ImageSize = 64 48", ""]
    lines += [f"[{TITLE}]", "", f"[T =     Tilt axis angle = 82.9, binning = 1  {title}]", ""]
    for number, changes in enumerate(tilts):
        lines += [*block("ZValue", number, **changes), ""]
    return "\n".join(lines).encode()


def refused(content: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        parse_mdoc(content, "a.mdoc")
    assert caught.value.detail.startswith("a.mdoc: ")
    return caught.value


def same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(got, dict) and all(same(got.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(same, got, wanted))
    if wanted is None or isinstance(wanted, bool):
        return got is wanted
    if isinstance(wanted, float | int):
        return got is not None and math.isclose(got, wanted, rel_tol=1e-4, abs_tol=1e-12)
    return got == wanted


def samples() -> list[tuple[Path, dict[str, Any]]]:
    found = sorted(shared("data/metadata").rglob("*.mdoc.expected.json"))
    return [
        (p.with_name(p.name.removesuffix(".expected.json")), json.loads(p.read_text()))
        for p in found
    ]


def values_of(record: Any) -> dict[str, Any]:
    answer = record.as_json()
    return {key: answer[key] for key in answer if key not in ("notes", "unknown")}


# ---- real files


def test_every_real_file_gives_the_reference_values() -> None:
    found = samples()
    assert len(found) == 21
    for path, expected in found:
        answer = parse_mdoc(path.read_bytes(), path.name).as_json()
        for key, wanted in expected.items():
            if key != "notes":
                assert same(answer.get(key), wanted), f"{path.name}: {key}: {answer.get(key)}"


def test_key_order_line_ends_and_blanks_change_nothing() -> None:
    rng = random.Random(4)
    for path, _ in samples():
        content = path.read_bytes()
        whole = values_of(parse_mdoc(content))
        text = content.decode().replace("\r\n", "\n")
        head, *blocks = re.split(r"(?m)^(?=\[(?:ZValue|FrameSet|MontSection) =)", text)
        shuffled = [head]
        for one in blocks:
            first, *lines = one.rstrip("\n").split("\n")
            rng.shuffle(lines)
            shuffled.append("\n".join([first, *lines, "", ""]))
        for variant in (
            "".join(shuffled),
            text.replace("\n", "\r\n"),
            text.replace("\n", "\r"),
            text.replace("\n", "  \t \n"),
            text.replace("\n", "\n\n"),
            text + "\n \n",
            "\ufeff" + text,
        ):
            assert values_of(parse_mdoc(variant.encode())) == whole, path.name


# ---- dialects


@pytest.mark.parametrize("dialect", DIALECTS)
def test_simulated_dialects_give_what_was_simulated(dialect: str) -> None:
    recipe = load_recipe("tiny")
    exposure = plan_session(recipe, 5)[0]
    text = frame_mdoc(recipe, exposure, 17_000.0, gain="CountRef_x.mrc", dialect=dialect)
    record = parse_mdoc(text.encode(), "x.tif.mdoc")
    assert record.kind == "frame_set"
    assert record.get("pixel_size_A") == pytest.approx(recipe.pixel_size_A)
    assert record.get("total_dose_e_per_A2") == pytest.approx(
        recipe.dose_per_frame_e_A2 * recipe.n_frames
    )
    assert record.get("target_defocus_um") == pytest.approx(-1.7)
    assert record.get("acquisition_time") == f"{exposure.acquired_at:%Y-%m-%dT%H:%M:%S}"
    assert record.get("microscope_id") == recipe.microscope_id
    gain = None if dialect == "direct-electron" else "CountRef_x.mrc"
    assert record.get("gain_reference") == gain
    rate = 10.0 if dialect == "direct-electron" else None
    assert record.get("frame_rate_hz") == rate


def test_keys_with_blanks_and_brackets_are_kept_untouched() -> None:
    content = frame_set(**{"PreexposureTime(s)": "0.5", "Mode [counting] - x": "On = off"})
    unknown = parse_mdoc(content).unknown
    assert unknown["PreexposureTime(s)"] == "0.5"
    assert unknown["Mode [counting] - x"] == "On = off"


def test_titles_can_span_lines_and_name_version_and_instrument() -> None:
    text = (
        series([{}])
        .decode()
        .replace("12:49:49    ]", "12:49:49\n    ]")
        .replace("dosym = 8.0]", "dosym = 8.0\n]")
    )
    record = parse_mdoc(text.encode())
    assert record.kind == "tilt_series"
    assert record.get("microscope_id") == "3946"
    assert record.get("tilt_axis_angle_deg") == pytest.approx(82.9)
    version = b"Version = SerialEM Version 4.1.6 64-bit,  built Feb 28 2024  05:19:29\n"
    assert parse_mdoc(version + text.encode()).get("software_version") == "4.1.6"


def test_pace_sorted_series_have_loose_lines_and_no_prior_dose() -> None:
    extra = {"SpecimenShift": "0.1 -3.2", "EucentricOffset": "0.4", "CtfFind": "-2.9 1 2 3"}
    tilts = [
        {"DateTime": f"23-Nov-2024 00:{minute}:58", "TiltAngle": angle, **extra}
        for angle, minute in (("-3", "20"), ("0", "18"), ("3", "19"))
    ]
    text = series(tilts, "dosym = 0.0").decode().replace("\n", " \n").replace("]", "\n    ]\n\n")
    record = parse_mdoc(text.encode())
    assert (record.kind, record.get("n_sections")) == ("tilt_series", 3)
    assert record.sections[1]["acquisition_time"] == "2024-11-23T00:18:58"
    assert [s["prior_dose_estimate_e_per_A2"] for s in record.sections] == [80.0, 0.0, 40.0]
    assert record.sections[0]["unknown"] == extra


def test_the_instrument_number_is_not_needed() -> None:
    record = parse_mdoc(frame_set().replace(b"D3946 ", b""))
    assert record.get("microscope_id") is None
    assert record.get("software") == "SerialEM"
    assert parse_mdoc(frame_set().replace(TITLE.encode(), b"")).get("software") is None


def test_many_frame_sets_in_one_file() -> None:
    blocks = [
        *block("FrameSet", SubFramePath=r"\\host\share\\a.tif"),
        *block("FrameSet", SubFramePath="../frames/b.tif"),
    ]
    record = parse_mdoc("\n".join([TITLE, "Voltage = 300", *blocks, ""]).encode())
    assert (record.kind, record.get("n_sections")) == ("frame_set", 2)
    assert [section["movie_file"] for section in record.sections] == ["a.tif", "b.tif"]


def test_one_movie_with_a_whole_series_counts_the_listed_doses() -> None:
    lines = [TITLE, "Voltage = 300"]
    lines += block(
        "FrameSet", ExposureDose="291", NumSubFrames="243", FrameDosesAndNumber="0.64 243"
    )
    for number in range(3):
        lines += [f"[ZValue = {number}]", f"TiltAngle = {number * 3}", "ExposureDose = 7.66"]
        lines += [f"FrameTSStartEndFrames = {12 * number} {12 * number + 11}"]
    record = parse_mdoc("\n".join([*lines, ""]).encode())
    assert (record.kind, record.get("n_sections")) == ("frame_set_with_tilts", 3)
    assert record.get("total_dose_e_per_A2") == 291
    assert record.get("dose_per_frame_e_per_A2") == pytest.approx(0.64)
    assert "dose_conflict" in record.flags
    assert [section["frame_range"] for section in record.sections] == [[0, 11], [12, 23], [24, 35]]
    cut = "\n".join(lines[:-1]) + "\n"
    assert refused(cut.encode()).code == Code.TRUNCATED


def test_kinds_of_series_and_maps() -> None:
    assert parse_mdoc(series([{}], "bidir = -10.0")).kind == "tilt_series"
    assert parse_mdoc(series([{}, {}], "spot = 5")).kind == "tilt_series"
    assert parse_mdoc(series([{}], "spot = 5")).kind == "image"
    pieces = [{"PieceCoordinates": f"0 {n} 0", "SubFramePath": None} for n in (0, 3400)]
    montage = parse_mdoc(series(pieces, "spot = 5"))
    assert (montage.kind, montage.get("n_montage_sections")) == ("montage", 0)
    assert [list(piece) for piece in montage.get("pieces")] == [[0, 0, 0], [0, 3400, 0]]
    # A series of montages has movies: seen with `Montage = 1` above it.
    assert parse_mdoc(b"Montage = 1\n" + series([{}, {}])).kind == "tilt_series"
    assert parse_mdoc(b"Montage = 1\n" + series([{}, {}], "spot = 5")).kind == "montage"
    images = "\n".join([f"[{TITLE}]", *block("Image"), *block("Image", 1), ""])
    assert parse_mdoc(images.encode()).kind == "images"


def test_tomography_writes_the_year_first_and_a_wrong_axis() -> None:
    text = series([{"DateTime": "22-Feb-04  23:02:05", "CameraLength": "NaN", "ChannelName": ""}])
    text = text.replace(f"[{TITLE}]".encode(), b"[T = Tomography: TITAN5 22-Feb-04  23:02:05]")
    text = text.replace(b"Tilt axis angle = 82.9,", b"TiltAxisAngle = -174.23 ")
    record = parse_mdoc(text)
    assert record.get("software") == "Tomography"
    assert record.sections[0]["acquisition_time"] == "2022-02-04T23:02:05"
    assert record.get("tilt_axis_angle_deg") == pytest.approx(-174.23)
    assert "tilt_axis_doubtful" in record.flags


# ---- rules for single fields


@pytest.mark.parametrize(
    ("text", "day_last", "wanted"),
    [
        ("06-Jun-23  23:51:26", False, "2023-06-06T23:51:26"),
        ("06-Jun-2023  23:51:26", False, "2023-06-06T23:51:26"),
        ("23-Nov-2024 00:19:58 ", False, "2024-11-23T00:19:58"),
        ("22-Feb-04  23:02:05", False, "2004-02-22T23:02:05"),
        ("22-Feb-04  23:02:05", True, "2022-02-04T23:02:05"),
        ("2022-Feb-04  23:02:05", False, "2022-02-04T23:02:05"),
        ("31-Feb-22  23:02:05", False, None),
        ("06-Juin-23  23:51:26", False, None),
        ("06-Jun-023  23:51:26", False, None),
        ("06-Jun-23  25:51:26", False, None),
        ("", False, None),
    ],
)
def test_dates(text: str, day_last: bool, wanted: str | None) -> None:
    assert time_of(text, day_last=day_last) == wanted


def test_an_empty_date_is_told_by_the_time_stamp() -> None:
    record = parse_mdoc(frame_set(DateTime="", TimeStamp="120935740"))
    assert record.get("acquisition_time") is None
    assert any("2023-10-31T17:15:40" in note for note in record.notes)
    assert time_of_stamp("99999999999") is None
    assert time_of_stamp("") is None


def test_order_of_acquisition_by_date_stamp_name_or_file() -> None:
    none = [None] * 3
    names = [f"P_1_{n}_EER.eer" for n in ("20231021_000416", "20231020_234209", "20231020_234233")]
    dates = ["2023-06-06T23:51:26", "2023-06-06T23:50:26", "2023-06-06T23:52:26"]
    assert acquisition_order(dates, none, none) == [1, 0, 2]
    assert acquisition_order([None, *dates[1:]], ["9", "100", "20"], none) == [0, 2, 1]
    assert acquisition_order(none, none, names) == [1, 2, 0]
    assert acquisition_order(none, ["1", None, "0"], none) == [0, 1, 2]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (r"X:\a\b\2024-04-14_17.57.51_TS_001_-51.0.tif", "2024-04-14_17.57.51_TS_001_-51.0.tif"),
        (r"\\host\share\\a.eer", "a.eer"),
        (r"frames\a\b_-0.0.eer", "b_-0.0.eer"),
        ("../frames/x.tif", "x.tif"),
        ("data/frames//x.eer", "x.eer"),
        ("bare.mrc", "bare.mrc"),
        (r"\\host\share\..\..\etc\passwd", "passwd"),
        ("/proc/self/environ", "environ"),
        (r"X:\folder" + "\\", None),
        ("..", None),
        (r"a\..", None),
        ("", None),
    ],
)
def test_only_the_base_name_of_a_path_counts(path: str, name: str | None) -> None:
    assert base_name(path) == name
    assert parse_mdoc(frame_set(SubFramePath=path)).get("movie_file") == name


@pytest.mark.parametrize(
    ("changes", "total", "frame", "conflict"),
    [
        ({}, 40.0, 1.0, False),
        ({"FrameDosesAndNumber": "0.9 40"}, 40.0, 1.0, False),
        ({"FrameDosesAndNumber": "0.8 40"}, 40.0, 1.0, True),
        ({"FrameDosesAndNumber": "0 40"}, 40.0, 1.0, False),
        ({"FrameDosesAndNumber": None}, 40.0, 1.0, False),
        ({"ExposureDose": "0"}, 40.0, 1.0, False),
        ({"ExposureDose": None, "FrameDosesAndNumber": "2 10  1 30"}, 50.0, 1.25, False),
        ({"ExposureDose": "0", "FrameDosesAndNumber": "0 40"}, None, None, False),
        ({"ExposureDose": "0.000", "FrameDosesAndNumber": None}, None, None, False),
        ({"NumSubFrames": None}, 40.0, 1.0, False),
        ({"NumSubFrames": "0", "FrameDosesAndNumber": None}, 40.0, None, False),
    ],
)
def test_dose_rules(
    changes: dict[str, str | None], total: float | None, frame: float | None, conflict: bool
) -> None:
    record = parse_mdoc(frame_set(**changes))
    assert record.get("total_dose_e_per_A2") == pytest.approx(total)
    assert record.get("dose_per_frame_e_per_A2") == pytest.approx(frame)
    assert record.get("dose_conflict") is conflict
    assert ("dose_conflict" in record.flags) is conflict


@pytest.mark.parametrize(
    ("changes", "key", "wanted"),
    [
        ({"Binning": "0.5"}, "super_resolution", True),
        ({"Binning": "1"}, "super_resolution", False),
        ({"Binning": "4", "OperatingMode": None}, "super_resolution", False),
        ({"Binning": None}, "super_resolution", None),
        ({"OperatingMode": "0"}, "counting", False),
        ({"OperatingMode": "2"}, "counting", True),
        ({"OperatingMode": None}, "counting", None),
        ({"FilterSlitAndLoss": "0 0"}, "slit_inserted", False),
        ({"FilterSlitAndLoss": "20 0"}, "slit_inserted", True),
        ({"FilterSlitAndLoss": "20 0"}, "energy_loss_eV", 0.0),
        ({"FilterSlitAndLoss": None}, "slit_inserted", None),
        ({"PhasePlateInserted": "True"}, "phase_plate", True),
        ({}, "phase_plate", None),
        ({"ProbeMode": "0"}, "probe_mode", "NanoProbe"),
        ({"Cs": "2.7"}, "cs_mm", 2.7),
        ({"Cs": "0"}, "cs_mm", None),
        ({"GainReference": r"X:\g\CountRef_a.dm4"}, "gain_reference", "CountRef_a.dm4"),
        ({"DefectFile": "defects_a.txt"}, "defects_file", "defects_a.txt"),
        ({"MultishotHoleAndPosition": "-2 1 3"}, "hole_and_position", (-2, 1, 3)),
        ({"MultishotHoleAndPosition": "2 b"}, "hole_and_position", None),
        ({"DateTime": "11-Aug-0019  14:13:22"}, "acquisition_time", None),
        ({"MultishotHoleAndPosition": "2 1"}, "hole_and_position", (2, 1)),
        ({"NavigatorLabel": "47-b"}, "navigator_label", "47-b"),
        ({"RotationAndFlip": "3"}, "rotation_flip", 3),
        ({"FramesPerSecond": "40"}, "frame_rate_hz", 40.0),
        ({"StageZ": None}, "stage_um", (-47.2012, 28.4092)),
        # What can be done without is left out when it makes no sense ...
        ({"SpotSize": "-3"}, "spot_index", None),
        ({"Defocus": "NaN"}, "lens_defocus_um", None),
        ({"ImageShift": "1 2 3"}, "image_shift", None),
        ({"DoseRate": "1e999"}, "dose_rate_e_per_px_s", None),
    ],
)
def test_rules_for_single_keys(changes: dict[str, str | None], key: str, wanted: object) -> None:
    record = parse_mdoc(frame_set(**changes))
    assert record.get(key) == wanted or record.get(key) == pytest.approx(wanted)
    assert record.get("total_dose_e_per_A2") == 40.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TiltAngle", "NaN"),
        ("TiltAngle", "abc"),
        ("TiltAngle", "181"),
        ("PixelSpacing", "NaN"),
        ("PixelSpacing", "0"),
        ("PixelSpacing", "1e999"),
        ("ExposureDose", "NaN"),
        ("ExposureDose", "-4"),
        ("PriorRecordDose", "inf"),
        ("FrameDosesAndNumber", "NaN 40"),
        ("FrameDosesAndNumber", "1 40 2"),
        ("FrameDosesAndNumber", "1 4.5"),
        ("NumSubFrames", "-1"),
        ("NumSubFrames", "99999999999999999999"),
        ("NumSubFrames", "1_0"),
        ("Binning", "1000"),
        ("Voltage", "-300"),
        ("ExposureTime", "-1"),
        ("SubFramePath", "a\x07b.tif"),
    ],
)
def test_dose_pixel_tilt_and_the_like_out_of_bounds_are_refused(key: str, value: str) -> None:
    error = refused(frame_set(**{key: value}))
    assert error.code == Code.OUT_OF_RANGE


def test_global_values_are_checked() -> None:
    error = refused(frame_set().replace(b"Voltage = 300", b"Voltage = NaN"))
    assert (error.code, "voltage_kV" in error.detail) == (Code.OUT_OF_RANGE, True)


# ---- sections


def test_one_bad_tilt_costs_one_tilt() -> None:
    bad = {"TiltAngle": "abc", "SubFramePath": "bad.tif"}
    record = parse_mdoc(series([{}, bad, {}]))
    good, wrong, _ = record.sections
    assert good["tilt_angle_deg"] == pytest.approx(-0.000999877)
    assert (wrong["movie_file"], wrong["refused"]["code"]) == ("bad.tif", "OUT_OF_RANGE")
    assert "ZValue = 1" in wrong["refused"]["detail"]
    assert "sections_refused" in record.flags
    assert record.get("n_sections") == 3
    assert refused(series([bad, bad])).code == Code.OUT_OF_RANGE


def test_a_bad_range_of_frames_costs_one_tilt() -> None:
    ranges = [{"FrameTSStartEndFrames": "0 11"}, {"FrameTSStartEndFrames": "12 x"}]
    good, wrong = parse_mdoc(series(ranges)).sections
    assert good["frame_range"] == [0, 11]
    assert "refused" in wrong


def test_faults_inside_a_section_stay_there() -> None:
    text = series([{}, {}, {}]).decode()
    for wrong in ("NumSubFrames = 12\n", "no equals sign\n", "= 3\n"):
        broken = text.replace("[ZValue = 1]\n", f"[ZValue = 1]\n{wrong}")
        record = parse_mdoc(broken.encode())
        assert [("refused" in section) for section in record.sections] == [False, True, False]
        assert record.sections[1]["refused"]["code"] == "BAD_HEADER"
    repeated = text.replace("[ZValue = 1]\n", "[ZValue = 1]\nNumSubFrames = 40\n")
    assert parse_mdoc(repeated.encode()).flags == []


def test_a_section_given_twice_is_right_nowhere() -> None:
    text = series([{}, {"TiltAngle": "3"}, {"TiltAngle": "6"}]).replace(
        b"ZValue = 2", b"ZValue = 1"
    )
    sections = parse_mdoc(text).sections
    assert ["refused" in section for section in sections] == [False, True, True]


def test_doses_before_a_tilt_are_added_up_where_nobody_did() -> None:
    tilts: list[dict[str, str | None]] = [
        {"DateTime": "06-Jun-23  23:51:26"},
        {"DateTime": "06-Jun-23  23:50:26"},
        {"DateTime": "06-Jun-23  23:52:26"},
    ]
    sections = parse_mdoc(series(tilts)).sections
    assert [s["prior_dose_estimate_e_per_A2"] for s in sections] == [40.0, 0.0, 80.0]
    assert all(section["prior_dose_e_per_A2"] is None for section in sections)
    counted = parse_mdoc(series([{**tilt, "PriorRecordDose": "0"} for tilt in tilts])).sections
    assert "prior_dose_estimate_e_per_A2" not in counted[0]


# ---- incomplete and hostile files


def test_a_file_that_ends_too_early_is_incomplete() -> None:
    whole = frame_set()
    for line in range(whole.count(b"\n")):
        cut = b"\n".join(whole.split(b"\n")[:line]) + b"\n"
        if b"DateTime" not in cut:
            assert refused(cut).code in (Code.TRUNCATED, Code.EMPTY_FILE), line
    assert refused(whole.rstrip()).code == Code.TRUNCATED
    assert refused(whole + bytes(512)).code == Code.TRUNCATED
    assert parse_mdoc(whole + b"\r\n").get("slit_width_eV") == 20


def test_the_last_section_must_have_what_its_sisters_have() -> None:
    whole = series([{}, {}])
    assert refused(whole.rsplit(b"FilterSlit", 1)[0]).code == Code.TRUNCATED
    assert refused(whole + b"[ZValue = 2]\n").code == Code.TRUNCATED
    assert refused(whole + b"[ZValue = 2").code == Code.TRUNCATED
    # The last line has no end, but says the same as in the section before.
    assert len(parse_mdoc(whole.rstrip()).sections) == 2
    ends_with_a_date = frame_set(FilterSlitAndLoss=None).rstrip()
    assert parse_mdoc(ends_with_a_date).get("acquisition_time") == "2023-09-25T14:13:26"
    assert refused(ends_with_a_date[:-1]).code == Code.TRUNCATED


HOSTILE = [
    (b"", Code.EMPTY_FILE),
    (b" \r\n\t", Code.EMPTY_FILE),
    (bytes(5000), Code.TRUNCATED),
    (b"a = 1\0\n[FrameSet = 0]\n", Code.BAD_HEADER),
    (b"x" * (MAX_BYTES + 1), Code.TOO_LARGE),
    (b"a = " + b"x" * 5000 + b"\n", Code.TOO_LARGE),
    (b"[T = a\n" + b"x\n" * 5000, Code.TOO_LARGE),
    (b"[T = a\n[ZValue = 0]\n", Code.BAD_HEADER),
    (b"[T = a\n", Code.TRUNCATED),
    (b"no mdoc\n", Code.BAD_HEADER),
    (b"= 3\n", Code.BAD_HEADER),
    (b"a = 1\na = 2\n[ZValue = 0]\n", Code.BAD_HEADER),
    (b"Voltage = 300\n", Code.TRUNCATED),
    (b"[Other = 0]\nDateTime = \n", Code.UNSUPPORTED),
    (b"[ZValue = abc]\nDateTime = \n", Code.BAD_HEADER),
    (b"".join(b"[ZValue = %d]\n" % n for n in range(MAX_SECTIONS + 1)), Code.TOO_LARGE),
    (b"".join(b"[a = %d]\n" % n for n in range(1_000_000 // 3)), Code.TOO_LARGE),
    (b"[ZValue = 0]\n" + b"".join(b"k%d = 1\n" % n for n in range(201)), Code.TOO_LARGE),
    (b"\xff\xfe" + "[FrameSet = 0]\n".encode("utf-16-le"), Code.BAD_HEADER),
    (b"<?xml version='1.0'?><a/>\n", Code.BAD_HEADER),
]


@pytest.mark.parametrize(("content", "code"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_and_broken_files_are_refused(content: bytes, code: Code) -> None:
    assert refused(content).code == code


def test_names_in_other_encodings_do_not_matter() -> None:
    for encoding in ("utf-8", "latin-1"):
        content = frame_set().decode().replace("at a site", "Universität").encode(encoding)
        assert parse_mdoc(content).get("microscope_id") == "3946"


def test_blanks_without_end_cost_no_time() -> None:
    blanks = " " * 4000
    for line in (f"[{blanks}]", f"[{blanks}x{blanks[:90]}=", f"a{blanks}=", f"[T = {blanks}"):
        begun = time.perf_counter()
        with pytest.raises(Refused):
            parse_mdoc(f"{line}\n".encode() * 500)
        assert time.perf_counter() - begun < 2


def test_the_largest_series_is_read() -> None:
    record = parse_mdoc(series([{"SubFramePath": f"{n}.tif"} for n in range(MAX_SECTIONS)]))
    assert len(record.sections) == MAX_SECTIONS
