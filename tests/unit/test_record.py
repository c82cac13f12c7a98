"""A record keeps only what is of its kind and in its bounds, with its source."""

import json
import math

import msgspec
import pytest

from mdcatch.parsers import Field, Record
from mdcatch.parsers.fields import FIELDS
from mdcatch.parsers.keys import KEYS
from mdcatch.parsers.record import checked, parsed
from services.kit.errors import Code, Refused
from tests.metadata import samples


def record() -> Record:
    return Record(format="epu_xml", kind="exposure")


def test_a_value_is_kept_with_its_source():
    one = record()
    one.put("voltage_kV", 300.0, "xml")
    one.read("total_dose_e_per_A2", "4.0E+21", "xml", 1e-20)
    one.put("cs_mm", None, "site")
    assert one.get("voltage_kV") == 300.0 and one.fields["voltage_kV"].source == "xml"
    assert one.get("total_dose_e_per_A2") == pytest.approx(40.0)
    assert one.get("cs_mm") is None and "cs_mm" not in one.fields
    one.read("voltage_kV", None, "xml")
    assert one.fields["voltage_kV"] == Field(300.0, "xml")


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("voltage_kV", 300, 300),
        ("n_frames", 40.0, 40),
        ("beam_shift", [0.1, -0.2], (0.1, -0.2)),
        ("movie_size_px", [64.0, 48], (64, 48)),
        ("stage_um", (1.0, 2.0), (1.0, 2.0)),
        ("counting", False, False),
        ("detector", "", ""),
        ("detector", "Falcon µ", "Falcon µ"),
        ("acquisition_time", "2020-02-06T17:06:46.7628367+01:00", None),
        ("frame_doses", [[0.5, 3]], ((0.5, 3),)),
        ("presets", {"Atlas": {"binning": [1, 2]}}, {"Atlas": {"binning": (1, 2)}}),
    ],
)
def test_what_is_kept(key: str, value: object, kept: object):
    got = checked(key, value)
    assert got == (value if kept is None else kept)
    assert type(got) is type(value if kept is None else kept)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("voltage_kV", 0.0),
        ("voltage_kV", math.nan),
        ("voltage_kV", math.inf),
        ("voltage_kV", "300"),
        ("voltage_kV", True),
        ("voltage_kV", 10**400),
        ("n_frames", 1.5),
        ("n_frames", 0),
        ("beam_shift", (0.1,)),
        ("beam_shift", (0.1, math.nan)),
        ("beam_shift", "ab"),
        ("movie_size_px", (64, 48.5)),
        ("counting", 1),
        ("detector", 7),
        ("detector", "two\nlines"),
        ("detector", "nul\0"),
        ("detector", "x" * 1025),
        ("acquisition_time", "yesterday"),
        ("acquisition_time", "2020-02-06 17:06:46"),
        ("acquisition_time", "2020-13-06T17:06:46"),
        ("acquisition_time", "0001-01-01T00:00:00"),
        ("acquisition_time", "1601-01-01T00:00:00"),
        ("acquisition_time", 1.0),
    ],
)
def test_what_is_refused_names_field_value_and_bounds(key: str, value: object):
    one = record()
    with pytest.raises(Refused) as caught:
        one.put(key, value, "xml")
    assert caught.value.code == Code.OUT_OF_RANGE
    assert caught.value.detail.startswith(f"{key} is ") and "must be" in caught.value.detail
    assert len(caught.value.detail) < 300 and not one.fields


def test_numbers_in_texts():
    assert parsed("n_frames", "40") == 40 and isinstance(parsed("n_frames", "40.0"), int)
    assert parsed("applied_defocus_um", "-1.5E-06", 1e6) == pytest.approx(-1.5)
    for key, text in (("n_frames", "40.5"), ("n_frames", "forty"), ("exposure_time_s", "-1")):
        with pytest.raises(Refused, match=key):
            parsed(key, text)


def test_json_is_flat_and_has_null_for_what_is_unknown():
    one = record()
    one.put("voltage_kV", 300.0, "xml")
    one.put("raw_frames_total", 7, "computed")
    one.flag("dose_conflict", "5 here, 6 there")
    one.flag("dose_conflict", "7 elsewhere")
    one.unknown["New"] = "1"
    got = json.loads(msgspec.json.encode(one.as_json()))
    assert got["voltage_kV"] == 300.0 and got["raw_frames_total"] == 7
    assert got["cs_mm"] is None and "sections" not in got
    assert got["sources"] == {"voltage_kV": "xml", "raw_frames_total": "computed"}
    assert got["flags"] == ["dose_conflict"] and len(got["notes"]) == 2
    assert got["unknown"] == {"New": "1"}
    assert list(got)[:2] == ["format", "kind"]


def test_records_do_not_share_what_they_hold():
    one, other = record(), record()
    one.put("voltage_kV", 300.0, "xml")
    one.notes.append("a")
    assert not other.fields and not other.notes


def test_a_record_survives_being_sent():
    one = record()
    one.put("beam_shift", (0.5, 0.25), "xml")
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Record)
    assert list(sent.get("beam_shift")) == [0.5, 0.25]
    assert sent.fields["beam_shift"].source == "xml"


def test_every_key_is_a_field_and_every_field_has_a_meaning():
    for keys in KEYS.values():
        assert set(keys) <= set(FIELDS) and len(set(keys)) == len(keys)
    for key, spec in FIELDS.items():
        assert spec.meaning and spec.bounds.low < spec.bounds.high, key
        unit = key.rpartition("_")[2]
        if unit in ("kV", "mm", "um", "eV", "px", "deg", "s", "hz"):
            assert spec.unit, key


def test_every_key_of_the_reference_results_is_known():
    for sample in samples():
        one = Record(format=sample.expected["format"], kind=sample.expected["kind"])
        keys = set(sample.expected) - {"notes", "sections", "complete"}
        assert keys <= set(one.as_json()), sample.path.name
