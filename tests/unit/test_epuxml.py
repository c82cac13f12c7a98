"""EPU's image XML: what it says, what follows, what contradicts it, and every kind of broken one.

The values of the real samples are tested in test_epu_documents.py.
"""

import tracemalloc

import pytest

from mdcatch.parsers.epuxml import Kind, classify, parse_epu_image
from mdcatch.parsers.limits import MAX_XML_BYTES, Bounds, integer, number
from mdcatch.parsers.record import Record
from services.kit.errors import Code, Refused
from tests.epu_tree import image_xml, stem
from tests.metadata import samples

NAME = f"Images-Disc1/GridSquare_42/Data/{stem(1001, 2001)}.xml"


def read(**changes: object) -> Record:
    return parse_epu_image(image_xml(**changes), NAME)  # pyright: ignore[reportArgumentType]


def pair(key: str, value: str) -> str:
    return (
        f"<a:KeyValueOfstringanyType><a:Key>{key}</a:Key>"
        f"<a:Value>{value}</a:Value></a:KeyValueOfstringanyType>"
    )


def test_every_real_file_is_classified():
    for path, expected, _ in samples("epu"):
        assert classify(str(path), path.read_bytes()[:2048]) == expected["kind"], path.name
        assert classify(path.name, b"<html><body>") == Kind.OTHER


def test_unknown_keys_are_kept_and_known_ones_are_not_repeated():
    record = read(extra=pair("Site[1].Note", "kept"))
    assert record.unknown == {"Site[1].Note": "kept"}
    assert record.get("total_dose_e_per_A2") == pytest.approx(40.0)


def test_keys_and_values_are_paired_inside_their_element():
    # A key without a value must not shift the values of the keys after it.
    extra = (
        "<a:KeyValueOfstringanyType><a:Key>Empty</a:Key></a:KeyValueOfstringanyType>"
        "<a:KeyValueOfstringanyType><a:Value>7</a:Value></a:KeyValueOfstringanyType>"
    )
    assert read(extra=extra).get("total_dose_e_per_A2") == pytest.approx(40.0)


def test_what_is_not_said_stays_unknown():
    record = read(pixel_m=None, voltage_V=None, dose_e_m2=None, frames=None)
    missing = {"pixel_size_A", "image_pixel_size_A", "voltage_kV", "total_dose_e_per_A2"}
    missing |= {"dose_per_frame_e_per_A2", "n_frames", "fractionation", "slit_inserted"}
    missing |= {"cs_mm", "n_frames_estimate", "movie_format", "gain_reference", "stage_um"}
    answer = record.as_json()
    assert all(answer[key] is None for key in missing)
    assert not missing & set(answer["sources"])


def test_super_resolution_halves_the_movie_pixel_and_doubles_its_size():
    record = read(pixel_m="1.0559E-10", width=2880, height=2046, factor=2)
    assert record.get("pixel_size_A") == pytest.approx(0.52795)
    assert record.get("image_pixel_size_A") == pytest.approx(1.0559)
    assert record.get("movie_size_px") == (5760, 4092)


def test_place_and_kind_come_from_the_name():
    record = read()
    assert record.kind == "exposure"
    assert (record.get("grid_square_id"), record.get("foil_hole_id")) == ("42", "1001")
    assert (record.get("acquisition_area_id"), record.get("acquisition_seq_id")) == ("2001", "2003")
    windows = parse_epu_image(image_xml(), "Z:\\v\\GridSquare_7\\Data\\FoilHole_1_Data_2_6_x.xml")
    assert [windows.get(k) for k in ("grid_square_id", "foil_hole_id")] == ["7", "1"]
    preview = parse_epu_image(image_xml(), "GridSquare_42/FoilHoles/FoilHole_9_20261120_101500.xml")
    assert (preview.kind, preview.get("foil_hole_id")) == ("foil_hole_image", "9")
    assert "pixel_size_A" not in preview.fields and "movie_size_px" not in preview.fields
    overview = parse_epu_image(image_xml(), "Images-Disc1/GridSquare_42/GridSquare_20261120_1.xml")
    assert (overview.kind, overview.get("grid_square_id")) == ("grid_square_image", "42")


def test_a_name_that_is_not_epus_leaves_the_kind_to_the_content():
    assert parse_epu_image(image_xml(), "renamed.xml").kind == "exposure"
    other = parse_epu_image(image_xml(frames=None), "renamed.xml")
    assert other.kind == "other" and "pixel_size_A" not in other.fields
    table = parse_epu_image(image_xml(), f"{stem()}_Fractions.xml")
    assert table.kind == "exposure" and table.flags == ["kind_conflict"]


def test_fractions_that_are_listed_are_counted_with_their_lengths():
    listed = "".join(
        f"<a:anyType><b:EndFrameNumber>{end}</b:EndFrameNumber>"
        f"<b:StartFrameNumber>{start}</b:StartFrameNumber></a:anyType>"
        for start, end in ((1, 68), (69, 136), (137, 218))
    )
    content = image_xml().replace(
        b"<b:NumberOffractions>4</b:NumberOffractions>",
        f"<b:DoseFractions>{listed}</b:DoseFractions>".encode(),
    )
    record = parse_epu_image(content, NAME)
    assert record.get("n_frames") == 3
    assert record.get("raw_frames_per_fraction") == (68, 68, 82)
    assert record.flags == []
    gap = parse_epu_image(content.replace(b">69<", b">70<"), NAME)
    assert gap.flags == ["frames_mismatch"] and gap.get("n_frames") == 3
    backwards = content.replace(b">218<", b">100<")
    with pytest.raises(Refused, match="raw_frames_per_fraction"):
        parse_epu_image(backwards, NAME)


def eer(**keys: str) -> Record:
    extra = "".join(pair(key.replace("__", "."), value) for key, value in keys.items())
    content = image_xml(extra=extra.replace("Camera.", "Detectors[EF-CCD]."))
    return parse_epu_image(
        content.replace(b"b:EquidistantFractionation", b"b:EerFractionation").replace(
            b"<b:NumberOffractions>4</b:NumberOffractions>", b""
        ),
        NAME,
    )


def test_eer_frames_are_an_estimate_and_never_rounded_down():
    # 2.5 s x 317.5999 Hz = 793.99975
    record = eer(Camera__FrameRate="317.5999")
    assert record.get("n_frames") is None and record.get("n_frames_estimate") == 794
    assert record.fields["n_frames_estimate"].source == "frames x rate"
    assert record.get("dose_per_frame_e_per_A2") == pytest.approx(40.0 / 794)
    assert record.get("movie_format") == "eer" and "take the real number" in record.notes[0]
    assert eer(Camera__FrameRate="0").get("n_frames_estimate") is None


def test_frames_are_estimated_for_eer_alone():
    single = read(frames=None, extra=pair("Detectors[EF-CCD].FrameRate", "300"))
    assert single.get("n_frames_estimate") is None
    assert single.get("dose_per_frame_e_per_A2") is None
    assert any("no FractionationSettings" in note for note in single.notes)


def test_the_number_of_fractions_may_be_spelled_right():
    content = image_xml().replace(b"NumberOffractions", b"NumberOfFractions")
    assert parse_epu_image(content, NAME).get("n_frames") == 4


def without_factor(camera: str, counting: str = "true", factor: int = 0) -> Record:
    content = image_xml(factor=factor).replace(b"<Name>EF-CCD", f"<Name>{camera}".encode())
    return parse_epu_image(content.replace(b">true<", f">{counting}<".encode()), NAME)


@pytest.mark.parametrize(
    ("camera", "counting", "factor", "pixel"),
    [
        ("EF-CCD", "true", 0, None),  # half of the image's, if it was super-resolution
        ("BM-Orius", "true", 0, None),
        ("EF-CCD", "false", 0, 1.0),
        ("EF-CCD", "false", 2, 1.0),  # super-resolution exists only in counting
        ("BM-Falcon", "true", 0, 1.0),
        ("EF-Falcon", "true", 0, 1.0),
        ("EF-CCD", "true", 1, 1.0),
        ("EF-CCD", "true", 2, 0.5),
    ],
)
def test_a_pixel_that_depends_on_what_is_not_said_is_unknown(
    camera: str, counting: str, factor: int, pixel: float | None
):
    record = without_factor(camera, counting, factor)
    assert record.get("super_resolution_factor") == (factor or None)
    assert record.get("pixel_size_A") == (pixel and pytest.approx(pixel))
    size = None if pixel is None else (round(64 / pixel), round(48 / pixel))
    assert record.get("movie_size_px") == size
    assert record.flags == ([] if pixel else ["super_resolution_unknown"])
    assert record.get("image_pixel_size_A") == pytest.approx(1.0)
    assert record.get("n_frames") == 4


@pytest.mark.parametrize(
    ("prefix", "symbol", "known"),
    [("1", "m", True), ("0", "m", True), ("1", "1/m", False), ("-9", "m", False), ("1", "", True)],
)
def test_a_pixel_that_is_not_in_metres_is_left_out(prefix: str, symbol: str, known: bool):
    named = "<u:_x003C_{0}_x003E_k__BackingField>{1}</u:_x003C_{0}_x003E_k__BackingField>"
    inside = named.format("PrefixExponent", prefix) + named.format("Symbol", symbol)
    unit = f"</numericValue><unit xmlns:u='urn:u'>{inside}</unit>"
    record = parse_epu_image(image_xml().replace(b"</numericValue>", unit.encode()), NAME)
    assert ("image_pixel_size_A" in record.fields) is known
    assert ("pixel_size_A" in record.fields) is known
    assert record.flags == ([] if known else ["unit_unknown"])
    assert record.get("total_dose_e_per_A2") == pytest.approx(40.0)


def test_the_time_that_stands_for_none_is_none():
    unset = image_xml().replace(b"2026-11-20T10:15:02.1234567+00:00", b"0001-01-01T00:00:00")
    record = parse_epu_image(unset, NAME)
    assert record.get("acquisition_time") is None and record.flags == []
    never = parse_epu_image(image_xml().replace(b"2026-11-20T10", b"1899-11-20T10"), NAME)
    assert never.get("acquisition_time") is None and never.flags == ["time_unreadable"]


def test_a_compressed_movie_is_a_tiff():
    assert read(extra=pair("EnableCompression", "true")).get("movie_format") == "tiff"
    assert read(extra=pair("EnableCompression", "false")).get("movie_format") is None


def test_the_gain_is_a_base_name():
    path = "ImagesForProcessing/EF-Falcon/300kV/20240830_EER_GainReference.gain"
    record = eer(Camera__EerGainReference=path)
    assert record.get("gain_reference") == "20240830_EER_GainReference.gain"
    assert eer(Camera__GainReference="C:\\x\\..\\g.mrc").get("gain_reference") == "g.mrc"


@pytest.mark.parametrize(
    ("record", "flags"),
    [
        (lambda: read(extra=pair("DoseOnCamera", "40.0")), []),
        (lambda: read(extra=pair("DoseOnCamera", "41.0")), ["dose_conflict"]),
        (lambda: read(extra=pair("BinaryResult.Detector", "EF-CCD")), []),
        (lambda: read(extra=pair("BinaryResult.Detector", "BM-Ceta")), ["detector_conflict"]),
        (lambda: eer(Camera__ExposureTime="2.52"), []),
        (lambda: eer(Camera__ExposureTime="5"), ["exposure_conflict"]),
        (lambda: eer(Camera__ExposureTime="nonsense"), []),
        (lambda: eer(Camera__ElectronCounted="True"), []),
        (lambda: eer(Camera__ElectronCounted="false"), ["mode_conflict"]),
        (
            lambda: eer(Camera__CommercialName="Falcon 4i", DetectorCommercialName="K3"),
            ["detector_model_conflict"],
        ),
        (
            lambda: eer(Camera__FrameRate="100", Camera__TotalDose="25", Camera__DoseRate="10"),
            [],
        ),
        (
            lambda: eer(Camera__FrameRate="100", Camera__TotalDose="20", Camera__DoseRate="10"),
            ["frames_mismatch"],
        ),
        (lambda: parse_epu_image(image_xml(), NAME.replace("2026", "2025")), ["clock_skew"]),
        (lambda: parse_epu_image(image_xml(), NAME.replace("20261120", "20269999")), []),
        (
            lambda: parse_epu_image(image_xml().replace(b"2026-11-20T", b"2026-13-20T"), NAME),
            ["time_unreadable"],
        ),
    ],
)
def test_what_two_places_say_differently_is_flagged(record, flags: list[str]):
    found = record()
    assert found.flags == flags
    assert [n for n in found.notes if n.split(":")[0] in flags] or not flags


def test_nan_is_unknown_where_nothing_depends_on_it_and_refused_where_it_does():
    stage = b"<stage><Position><X>0</X><Y>NaN</Y><Z>0</Z></Position></stage>"
    optics = b"<BeamDiameter>NaN</BeamDiameter><TemMagnification>"
    content = image_xml().replace(b"<TemMagnification>", optics).replace(b"<gun>", stage + b"<gun>")
    record = parse_epu_image(content, NAME)
    assert not {"stage_um", "beam_diameter_um"} & set(record.fields)
    assert record.flags == ["not_a_number"] and len(record.notes) == 2
    listed = parse_epu_image(image_xml(extra=pair("DoseOnCamera", "NaN")), NAME)
    assert "dose_on_camera_e_per_image_px" not in listed.fields
    assert listed.flags == ["not_a_number"] and listed.get("total_dose_e_per_A2") is not None
    for changes in ({"pixel_m": "NaN"}, {"voltage_V": "NaN"}, {"beam_shift": (float("nan"), 0)}):
        with pytest.raises(Refused):
            read(**changes)


def test_a_field_given_twice_with_two_values_is_refused():
    twice = image_xml().replace(b"<Binning>", b"<ExposureTime>1</ExposureTime><Binning>")
    with pytest.raises(Refused, match="given twice"):
        parse_epu_image(twice, NAME)
    parse_epu_image(twice.replace(b">1</ExposureTime>", b">2.5</ExposureTime>"), NAME)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"voltage_V": "-300000"}, "voltage_kV"),
        ({"voltage_V": "0"}, "voltage_kV"),
        ({"pixel_m": "1.05"}, "image_pixel_size_A"),  # Angstrom where metres belong
        ({"dose_e_m2": "NaN"}, "total_dose_e_per_A2"),
        ({"dose_e_m2": "1e999"}, "total_dose_e_per_A2"),
        ({"dose_e_m2": "INF"}, "total_dose_e_per_A2"),
        ({"dose_e_m2": "1_000"}, "total_dose_e_per_A2"),
        ({"frames": 0}, "n_frames"),
        ({"factor": 9}, "super_resolution_factor"),
        ({"magnification": "abc"}, "magnification"),
        ({"width": 0}, "image_size_px"),
        ({"width": 200_000}, "image_size_px"),
        ({"beam_shift": (1e4, 0.0)}, "beam_shift"),
    ],
)
def test_numbers_out_of_range_name_field_value_and_bounds(changes: dict, field: str):
    with pytest.raises(Refused) as caught:
        parse_epu_image(image_xml(**changes), NAME)
    assert caught.value.code == Code.OUT_OF_RANGE
    value = next(iter(changes.values()))
    text = str(value[0] if isinstance(value, tuple) else value)
    assert field in caught.value.detail and text in caught.value.detail
    assert " to " in caught.value.detail


BOMB = b'<!DOCTYPE a [<!ENTITY x "' + b"y" * 1000 + b'">]><a>' + b"&x;" * 10_000 + b"</a>"
XXE = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><MicroscopeImage>&x;</MicroscopeImage>'


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.EMPTY_FILE),
        (b" \n", Code.EMPTY_FILE),
        (b"\xef\xbb\xbf", Code.EMPTY_FILE),
        (b"\xef\xbb\xbf \r\n", Code.EMPTY_FILE),
        (b"\xff\xfe", Code.EMPTY_FILE),
        (b"\xef\xbb", Code.TRUNCATED),
        (b"\xef\xbb\xbf<", Code.TRUNCATED),
        (b"abc", Code.XML_BROKEN),
        (b"\0", Code.XML_BROKEN),
        (BOMB, Code.XML_DTD),
        (XXE, Code.XML_DTD),
        (b"<a>" * 65 + b"</a>" * 65, Code.XML_TOO_LARGE),
        (b"<a>" + b"<k/>" * 50_001 + b"</a>", Code.XML_TOO_LARGE),
        (b"<a>" + b"x" * 70_000 + b"</a>", Code.XML_TOO_LARGE),
        (b"<a>" + b" " * MAX_XML_BYTES + b"</a>", Code.XML_TOO_LARGE),
        (b"<a " + b" ".join(b'b%d="c"' % n for n in range(50_001)) + b"/>", Code.XML_TOO_LARGE),
        (b"<a>" * 300 + b"</a>" * 300, Code.XML_TOO_LARGE),
        (b"<MicroscopeImage><a>", Code.TRUNCATED),
        (b"<MicroscopeImage>&lol;</MicroscopeImage>", Code.XML_BROKEN),
        (b"<MicroscopeImage></wrong>", Code.XML_BROKEN),
        ("<MicroscopeImage><a>".encode("utf-16"), Code.TRUNCATED),
        (BOMB.decode().encode("utf-16"), Code.XML_DTD),
        (b"\xff\xfe" + b"<\0\x00\xdcM\0", Code.XML_BROKEN),  # half a pair of surrogates
        (b"\xff\xfe" + b"<\0k\0/\0>\0" * 50_001, Code.XML_TOO_LARGE),
        (b"<Acquisition/>", Code.XML_BROKEN),
        (b"\x00" * 5000, Code.XML_BROKEN),
    ],
    ids=lambda case: case.name if isinstance(case, Code) else None,
)
def test_hostile_and_broken_documents_are_refused(data: bytes, code: Code):
    with pytest.raises(Refused) as caught:
        parse_epu_image(data, NAME)
    assert caught.value.code == code


def test_a_declared_encoding_cannot_hide_a_doctype():
    hidden = '<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE a><MicroscopeImage/>'
    with pytest.raises(Refused):
        parse_epu_image(hidden.encode(), NAME)


def test_the_largest_document_needs_little_memory():
    wide = b"<a>" + b"<k/>" * (MAX_XML_BYTES // 4 - 10) + b"</a>"
    tracemalloc.start()
    with pytest.raises(Refused):
        parse_epu_image(wide, NAME)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


def test_a_key_given_twice_with_two_values_is_refused():
    extra = (
        "<a:KeyValueOfstringanyType><a:Key>Dose</a:Key>"
        "<a:Value>1.0E+21</a:Value></a:KeyValueOfstringanyType>"
    )
    with pytest.raises(Refused, match="Dose"):
        parse_epu_image(image_xml(extra=extra), NAME)


def test_a_key_in_both_lists_with_two_values_is_refused_if_it_is_used():
    for key, value in (("SuperResolutionFactor", "2"), ("FractionationSettings", "")):
        with pytest.raises(Refused, match=key):
            read(extra=pair(key, value))
    record = read(extra=pair("ApplyDefinedShutter", "true"))
    assert record.unknown == {"ApplyDefinedShutter": "true"}


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
