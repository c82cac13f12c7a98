"""EPU's documents: every real sample and every field, the same said in other ways, and bad ones."""

import math
import random
from datetime import datetime

import pytest

from mdcatch.parsers import Record, parse
from mdcatch.parsers.atlas import parse_atlas
from mdcatch.parsers.fractions import parse_fractions
from mdcatch.parsers.limits import MAX_DM_BYTES
from services.kit.errors import Code, Refused
from tests.metadata import Sample, differences, one_of_each, same, samples, shuffled

EPU = samples("epu")
ASSEMBLY = (
    'xmlns:z="http://schemas.microsoft.com/2003/10/Serialization/" '
    'xmlns:i="http://www.w3.org/2001/XMLSchema-instance" '
    'z:Assembly="Applications.Epu.Persistence, Version=3.9.0.1, Culture=neutral"'
)


def label(sample: Sample) -> str:
    return f"{sample.dialect}-{sample.expected['kind']}"


def fields() -> list[tuple[str, str, str]]:
    """Return every dialect, kind and key that has a reference value."""
    found = {(s.dialect, s.expected["kind"], key) for s in EPU for key in s.expected}
    return sorted(one for one in found if one[2] not in ("notes", "kind"))


@pytest.fixture(scope="module")
def records() -> list[tuple[Sample, dict]]:
    return [(sample, parse(sample.content, str(sample.path)).as_json()) for sample in EPU]


@pytest.mark.parametrize(("dialect", "kind", "key"), fields())
def test_field(dialect: str, kind: str, key: str, records: list[tuple[Sample, dict]]):
    for sample, got in records:
        if (sample.dialect, sample.expected["kind"]) == (dialect, kind):
            assert got["kind"] == kind
            assert key in got, "every key of the reference result is there, null or not"
            wanted = sample.expected[key]
            assert same(got[key], wanted, key), f"{sample.path.name}: {got[key]} not {wanted}"


def test_all_samples_are_read():
    if not EPU:
        pytest.skip("reference data not here")
    assert len(EPU) == 71
    assert {s.expected["kind"] for s in EPU} >= {"exposure", "fraction_table", "epu_session"}


@pytest.mark.parametrize("sample", one_of_each("epu"), ids=label)
def test_the_same_said_otherwise_is_the_same_record(sample: Sample):
    content, name = sample.content, str(sample.path)
    record = parse(content, name)
    order = random.Random(7)
    texts = content.replace(b"\r\n", b"\n")
    for other in (
        shuffled(content, order),
        texts.replace(b"\n", b"\r\n"),
        content + b" \r\n\t ",
        content.replace(b"</", b" \r\n</"),  # blanks after every text
        b"\xef\xbb\xbf" + content.lstrip(b"\xef\xbb\xbf"),
    ):
        assert parse(other, name) == record


def test_every_value_has_a_source_and_a_derived_one_says_so():
    for sample in one_of_each("epu"):
        record = parse(sample.content, str(sample.path))
        sources = record.as_json()["sources"]
        assert set(sources) == set(record.fields)
        for key in ("pixel_size_A", "movie_size_px", "dose_per_frame_e_per_A2"):
            if sample.expected["format"] == "epu_xml" and key in sources:
                assert sources[key] == "computed"
        assert sources.get("foil_hole_id", "name") == "name"
        assert sources.get("n_frames_estimate", "frames x rate") == "frames x rate"


# ---- documents made here


def dm(kind: str, inside: str) -> bytes:
    return f"<{kind} {ASSEMBLY}>{inside}</{kind}>".encode()


def squares(*entries: str, kind: str = "TargetLocationsEfficient") -> bytes:
    listed = "".join(f"<KeyValuePairOfX>{entry}</KeyValuePairOfX>" for entry in entries)
    array = f"<m_serializationArray>{listed}</m_serializationArray>"
    return dm(
        "GridSquareXml",
        f"<Id>42</Id><TargetLocations><{kind}>{array}</{kind}></TargetLocations>",
    )


HOLE = (
    "<key>7</key><value><Selected>true</Selected><PixelCenter><x>10.5</x><y>20</y></PixelCenter>"
    "<StagePosition><X>1E-06</X><Y>-2E-06</Y><Z>0</Z></StagePosition></value>"
)


def test_a_lacey_grid_lists_its_holes_under_another_name():
    for kind in ("TargetLocationsEfficient", "TargetLocations"):
        record = parse(squares(HOLE, kind=kind), "GridSquare_42.dm")
        assert (record.get("n_target_locations"), record.get("n_selected")) == (1, 1)
        assert record.sections == [
            {
                "foil_hole_id": "7",
                "selected": True,
                "center_px": (10.5, 20.0),
                "size_px": None,
                "stage_um": pytest.approx((1.0, -2.0, 0.0)),
            }
        ]
        assert record.flags == []


def test_nan_is_a_number_that_is_not_set():
    hole = HOLE.replace("<Z>0</Z>", "<Z>NaN</Z>")
    record = parse(squares(hole), "GridSquare_42.dm")
    assert record.sections[0]["stage_um"] is None
    assert record.sections[0]["center_px"] == (10.5, 20.0)
    session = "<Name>NaN</Name><ClusteringRadius>NaN</ClusteringRadius><TiltAngle>NaN</TiltAngle>"
    record = parse(dm("EpuSessionXml", session), "EpuSession.dm")
    assert record.fields.keys() == {"software_version", "session_name"}


def test_of_two_lists_the_one_with_holes_counts():
    entry = f"<m_serializationArray><KV>{HOLE}</KV></m_serializationArray>"
    inside = f"<TargetLocationsEfficient/><TargetLocations>{entry}</TargetLocations>"
    record = parse(dm("GridSquareXml", f"<TargetLocations>{inside}</TargetLocations>"), "a.dm")
    assert record.get("n_target_locations") == 1


def test_a_square_whose_holes_were_not_searched_has_no_count():
    record = parse(dm("GridSquareXml", "<Id>42</Id>"), "GridSquare_42.dm")
    assert record.as_json()["n_target_locations"] is None
    assert parse(squares(), "GridSquare_42.dm").get("n_target_locations") == 0


def test_a_number_in_the_name_that_is_not_the_one_inside_is_flagged():
    record = parse(squares(), "GridSquare_43.dm")
    assert record.flags == ["id_conflict"] and "43" in record.notes[0]


def test_a_reference_stands_for_what_it_refers_to():
    inside = '<Name z:Id="6">grid7</Name><AutoloaderDescription z:Ref="6" i:nil="true"/>'
    session = dm("EpuSessionXml", f'{inside}<AutoloaderSlot z:Ref="6" i:nil="true"/>')
    record = parse(session, "EpuSession.dm")
    assert record.get("session_name") == record.get("autoloader_slot") == "grid7"
    with pytest.raises(Refused, match="refers to nothing"):
        parse(session.replace(b'z:Id="6"', b'z:Id="5"'), "EpuSession.dm")
    loop = b'<Name z:Id="6" z:Ref="6"/>'
    assert parse(dm("EpuSessionXml", loop.decode()), "EpuSession.dm").fields.keys() == {
        "software_version"
    }


def test_references_cannot_make_a_small_document_a_huge_one():
    tiles = "<TileXml><Nodes z:Ref='5' i:nil='true'/></TileXml>" * 5000
    nodes = "<KV><key>1</key><value/></KV>" * 5000
    atlas = dm(
        "AtlasSessionXml",
        f"<Nodes z:Id='5'><KeyValuePairs>{nodes}</KeyValuePairs></Nodes>"
        f"<Atlas><TilesEfficient><_items>{tiles}</_items></TilesEfficient></Atlas>",
    )
    with pytest.raises(Refused, match="references") as caught:
        parse(atlas, "Atlas.dm")
    assert caught.value.code == Code.XML_TOO_LARGE


def test_a_session_says_what_it_says_and_keeps_what_has_no_field():
    preset = (
        "<KV><key>Acquisition</key><value><Acquisition><camera><Name>BM-Falcon</Name>"
        "<ExposureTime>2.5</ExposureTime><Binning><x>1</x></Binning><CameraSpecificInput>"
        "<KeyValuePairs><KV><key>FractionationSettings</key><value><DoseFractions>"
        "<_size>40</_size></DoseFractions></value></KV></KeyValuePairs></CameraSpecificInput>"
        "</camera></Acquisition><Optics><SpotIndex>5</SpotIndex></Optics></value></KV>"
        "<KV><key>Atlas</key><value><Acquisition><camera><Binning><x>0</x></Binning></camera>"
        "</Acquisition></value></KV>"
    )
    record = parse(
        dm(
            "EpuSessionXml",
            "<Name>s</Name><TiltAngle>-30</TiltAngle><TiltedAcquisitionEnabled>true"
            "</TiltedAcquisitionEnabled><New>1</New><StartDateTime>yesterday</StartDateTime>"
            '<Samples><_items><SampleXml i:nil="true"/><SampleXml><MicroscopeSettings>'
            f"<KeyValuePairs>{preset}</KeyValuePairs></MicroscopeSettings></SampleXml></_items>"
            "</Samples>",
        ),
        "EpuSession.dm",
    )
    assert record.get("software_version") == "3.9.0.1"
    assert (record.get("tilt_angle_deg"), record.get("tilted_acquisition")) == (-30.0, True)
    assert record.unknown == {"New": "1"}
    assert record.get("start_time") is None and record.flags == ["time_unreadable"]
    acquisition = record.get("presets")["Acquisition"]
    assert acquisition["n_frames"] == 40 and acquisition["detector"] == "BM-Falcon"
    assert record.get("presets")["Atlas"]["binning"] == 0
    assert record.get("presets")["Atlas"]["exposure_time_s"] is None


def test_a_preset_given_twice_is_right_nowhere():
    one = "<KV><key>Hole</key><value><Optics><SpotIndex>5</SpotIndex></Optics></value></KV>"
    for other, is_refused in ((one, False), (one.replace("5", "6"), True)):
        inside = f"<MicroscopeSettings><KeyValuePairs>{one}{other}</KeyValuePairs>"
        content = dm(
            "EpuSessionXml",
            f"<Samples><_items><SampleXml>{inside}</MicroscopeSettings></SampleXml></_items>"
            "</Samples>",
        )
        if is_refused:
            with pytest.raises(Refused, match="preset 'Hole' is given twice"):
                parse(content, "EpuSession.dm")
        else:
            assert parse(content, "EpuSession.dm").get("presets")["Hole"]["spot_index"] == 5


@pytest.mark.parametrize(
    ("text", "degrees"), [("0", 0.0), ("-0.5235987755982988", -30.0), ("-30", -30.0), ("55", 55.0)]
)
def test_the_tilt_of_a_session_is_radians_or_else_degrees(text: str, degrees: float):
    record = parse(dm("EpuSessionXml", f"<TiltAngle>{text}</TiltAngle>"), "EpuSession.dm")
    assert record.get("tilt_angle_deg") == pytest.approx(degrees)
    assert len(record.notes) == (text.startswith("-0."))


def test_the_shots_of_the_template_are_listed():
    for sample in one_of_each("epu"):
        if sample.expected["kind"] != "epu_session":
            continue
        shots = parse(sample.content, str(sample.path)).sections
        first = {"3.4.0.5704": (7, "19508519", 5), "3.7.0.6930": (4, "4601896", 8)}
        count, area, defoci = first[sample.expected["software_version"]]
        assert (len(shots), shots[0]["acquisition_area_id"]) == (count, area)
        exposure = sample.expected["presets"]["Acquisition"]["exposure_time_s"]
        for shot in shots:  # all but the first refer to the defoci of the first
            assert len(shot["defocus_um"]) == defoci and all(-4 < d < 0 for d in shot["defocus_um"])
            assert shot["exposure_time_s"] == exposure and len(shot["shift_px"]) == 2


def fraction_table(recorded: int = 2, checksums: tuple[str, ...] = ("Valid", "Valid")) -> bytes:
    listed = "".join(
        f"<Fraction><NumberOfFrames>{10 + n}</NumberOfFrames><ExposureTime>0.5</ExposureTime>"
        f"<Checksum>{word}</Checksum></Fraction>"
        for n, word in enumerate(checksums)
    )
    return (
        f"<Acquisition><Info><RecordedNumberOfFractions>{recorded}</RecordedNumberOfFractions>"
        "<ElectronCounting>Off</ElectronCounting><ImageSize>4096</ImageSize></Info>"
        f"<Fractions>{listed}</Fractions></Acquisition>"
    ).encode()


def test_fractions_are_summed_and_counted():
    record = parse(fraction_table(), "a_Fractions.xml")
    assert record.get("raw_frames_per_fraction") == (10, 11)
    assert record.get("raw_frames_total") == 21 and record.get("exposure_time_s") == 1.0
    assert record.get("counting") is False and record.get("all_checksums_valid") is True
    assert record.unknown == {"ImageSize": "4096"} and record.flags == []


def test_a_binning_that_is_no_number_costs_only_itself():
    content = fraction_table().replace(b"<ImageSize>", b"<Binning>1x1</Binning><ImageSize>")
    record = parse(content, "a.xml")
    assert record.get("binning") is None and record.get("n_frames") == 2
    assert record.notes[0].startswith("left out: binning")


def test_a_bad_checksum_or_a_missing_fraction_shows():
    assert parse(fraction_table(2, ("Valid", "Bad")), "a.xml").get("all_checksums_valid") is False
    assert parse(fraction_table(3), "a.xml").flags == ["frames_mismatch"]
    none = parse(fraction_table(1, ()), "a.xml")
    assert none.get("all_checksums_valid") is None and none.flags == ["frames_mismatch"]


def test_fractions_are_in_the_order_of_their_numbers():
    def listed(*numbers: int) -> bytes:
        each = "<Fraction><Index>{0}</Index><NumberOfFrames>1{0}</NumberOfFrames></Fraction>"
        inside = "".join(map(each.format, numbers))
        return f"<Acquisition><Info/><Fractions>{inside}</Fractions></Acquisition>".encode()

    assert parse(listed(0, 1, 2), "a").get("raw_frames_per_fraction") == (10, 11, 12)
    assert parse(listed(2, 0, 1), "a").get("raw_frames_per_fraction") == (10, 11, 12)


def test_a_table_without_fractions_yet_has_no_number_of_them():
    record = parse(fraction_table(0, ()), "a.xml")
    assert record.get("n_frames") is None and record.get("all_checksums_valid") is None


def test_of_namesakes_the_one_of_the_documents_namespace_counts():
    own, other = "<Name>own</Name>", '<o:Name xmlns:o="urn:o">other</o:Name>'
    for inside in (own + other, other + own):
        assert parse(dm("EpuSessionXml", inside), "a.dm").get("session_name") == "own"
    assert parse(dm("EpuSessionXml", other), "a.dm").get("session_name") == "other"
    assert parse(dm("EpuSessionXml", own + own), "a.dm").get("session_name") == "own"
    with pytest.raises(Refused, match="Name is given twice"):
        parse(dm("EpuSessionXml", own + own.replace("own", "another")), "a.dm")


def test_namesakes_are_compared_with_all_that_is_in_them():
    def session(*inside: str) -> bytes:
        return dm("EpuSessionXml", "".join(f"<Samples>{one}</Samples>" for one in inside))

    sample = "<_items><SampleXml a='1' b='2'><GridType>Au</GridType></SampleXml></_items>"
    turned = sample.replace("a='1' b='2'", "b='2' a='1'").replace("Au", " Au ")
    assert parse(session(sample, turned), "a.dm").get("grid_type") == "Au"
    for other in (sample.replace("Au", "Cu"), sample.replace("'2'", "'3'"), "", sample * 2):
        with pytest.raises(Refused, match="Samples is given twice"):
            parse(session(sample, other), "a.dm")
    # A namespace that is no whole address: canonical XML does not know it.
    odd = '<SampleXml xmlns:i="i"><Name/><Name i:n="1"/></SampleXml>'
    with pytest.raises(Refused, match="Name is given twice"):
        parse(odd.encode(), "Sample.dm")


def test_namesakes_cannot_make_a_small_document_a_long_work():
    entry = "<KV><key>1</key><value/></KV>"
    nodes = f"<KeyValuePairs>{entry * 2000}</KeyValuePairs>" * 2
    tiles = "<TileXml><Nodes z:Ref='5' i:nil='true'/></TileXml>" * 500
    atlas = f"<Nodes z:Id='5'>{nodes}</Nodes><Atlas><TilesEfficient><_items>{tiles}</_items>"
    with pytest.raises(Refused, match="references"):
        parse(dm("AtlasSessionXml", f"{atlas}</TilesEfficient></Atlas>"), "Atlas.dm")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", Code.EMPTY_FILE),
        (b"<Acquisition><Info/><Info/></Acquisition>", Code.XML_BROKEN),
        (fraction_table().replace(b"<Checksum>", b"<Checksum/><Checksum>"), Code.XML_BROKEN),
        (squares(HOLE)[:-3], Code.TRUNCATED),
        (squares(HOLE).replace(b"7</key>", b"\0</key>"), Code.XML_BROKEN),
        (squares(HOLE).replace(b"1E-06", b"1E+99"), Code.OUT_OF_RANGE),
        (squares(HOLE).replace(b"1E-06", b"nan"), Code.OUT_OF_RANGE),
        (squares(HOLE).replace(b"1E-06", b"1,5"), Code.OUT_OF_RANGE),
        (squares(HOLE).replace(b"10.5", b"1e999"), Code.OUT_OF_RANGE),
        (dm("EpuSessionXml", "<ClusteringRadius>-1</ClusteringRadius>"), Code.OUT_OF_RANGE),
        (dm("EpuSessionXml", f"<Name>{'x' * 2000}</Name>"), Code.OUT_OF_RANGE),
        (dm("EpuSessionXml", f"<Name>{'x' * 70_000}</Name>"), Code.XML_TOO_LARGE),
        (dm("EpuSessionXml", "<a>" * 64 + "</a>" * 64), Code.XML_TOO_LARGE),
        (dm("EpuSessionXml", "<a/>" * 300_001), Code.XML_TOO_LARGE),
        (dm("EpuSessionXml", "<a>" + " " * MAX_DM_BYTES + "</a>"), Code.XML_TOO_LARGE),
        (b"<!DOCTYPE a><EpuSessionXml/>", Code.XML_DTD),
        (b"<EpuSessionXml><!DOCTYPE a></EpuSessionXml>", Code.XML_DTD),
        (b"<html><body/></html>", Code.UNSUPPORTED),
        (fraction_table().replace(b">10<", b">0<"), Code.OUT_OF_RANGE),
        (fraction_table().replace(b">10<", b">1.5<"), Code.OUT_OF_RANGE),
        (fraction_table().replace(b">2</R", b">two</R"), Code.OUT_OF_RANGE),
    ],
    ids=lambda case: case.name if isinstance(case, Code) else None,
)
def test_broken_and_hostile_documents_are_refused(content: bytes, code: Code):
    with pytest.raises(Refused) as caught:
        parse(content, "EpuSession.dm")
    assert caught.value.code == code


def test_a_document_of_another_kind_is_refused_by_its_parser():
    for function in (parse_atlas, parse_fractions):
        with pytest.raises(Refused, match="root element is 'SampleXml'"):
            function(b"<SampleXml/>", "")


def test_samples_give_no_flag_but_for_the_time_that_is_wrong():
    flagged = {}
    for sample in EPU:
        record = parse(sample.content, str(sample.path))
        assert isinstance(record, Record) and not differences(record, sample.expected)
        if record.flags:
            flagged[sample.path.name] = record.flags
    assert set(map(tuple, flagged.values())) <= {("clock_skew",)} and len(flagged) <= 1


def test_times_are_instants():
    for sample in EPU:
        record = parse(sample.content, str(sample.path))
        for key in ("acquisition_time", "start_time"):
            if key in record.fields:
                assert datetime.fromisoformat(record.get(key)).tzinfo is not None


def test_numbers_are_finite():
    for sample in one_of_each("epu"):
        for field in parse(sample.content, str(sample.path)).fields.values():
            values = field.value if isinstance(field.value, tuple) else (field.value,)
            assert all(math.isfinite(v) for v in values if isinstance(v, float))
