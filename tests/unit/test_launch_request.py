"""What is asked for, and what stands against it."""

from pathlib import Path

import msgspec
import pytest

from mdcatch.launch.checks import Surroundings, doubts, errors
from mdcatch.launch.files import Files
from mdcatch.launch.newest import Newest
from mdcatch.launch.programs import missing, needed, schemer_of
from mdcatch.launch.request import OpenRequest, from_arguments, site_defaults, to_arguments
from services.kit.errors import Misuse
from services.kit.sitetables import Cluster, Defaults, Programs, Site
from tests.launching import known, request

HERE = Surroundings()


def wrong(asked, told=None, around=HERE, level="error"):
    """Return field -> sentence of the doubts of one level."""
    found = doubts(asked, known(asked) if told is None else told, around)
    return {doubt.field: doubt.text for doubt in found if doubt.level == level}


# ---- the request itself


def test_arguments_come_back_and_leave_out_what_is_usual():
    asked = request(pipeline="relion", particle_diameter_A=180.0, settings={"prep__wait_sec": "5"})
    arguments = to_arguments(asked)
    assert set(arguments) == {"raw", "project", "pipeline", "particle_diameter_A", "settings"}
    assert from_arguments(arguments) == asked
    assert from_arguments(msgspec.json.decode(msgspec.json.encode(arguments))) == asked


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("raw", "relative/folder"),
        ("raw", "/"),
        ("raw", "/data/../etc"),
        ("raw", "/data/x/"),
        ("raw", "/data/\n"),
        ("project", ""),
        ("pipeline", "cryosparc"),
        ("picker", "eye"),
        ("particle_diameter_A", 9.9),
        ("particle_diameter_A", 10_000.0),
        ("particle_diameter_A", float("nan")),
        ("symmetry", "C0"),
        ("symmetry", "C1; rm"),
        ("symmetry", "H1"),
        ("gpus", "0;1"),
        ("gain_rotation", 4),
        ("gain_flip", 3),
        ("pixel_size_A", 0.0),
        ("dose_e_A2", -1.0),
        ("executor", "command:/bin/sh"),
        ("relion", "3.1"),
        ("unknown", 1),
    ],
)
def test_a_field_that_does_not_fit_is_named(field, value):
    with pytest.raises(Misuse, match=rf"session\.open: .*{field}"):
        request(**{field: value})


@pytest.mark.parametrize("symmetry", ["C1", "C12", "D2", "D7", "T", "O", "I", "I1", "I4"])
def test_point_groups(symmetry):
    assert request(symmetry=symmetry).symmetry == symmetry


def test_text_is_taken_for_numbers_where_that_is_asked_for():
    given = {"raw": "/r", "project": "/p", "workers": "4", "voltage_kV": "200", "start": "false"}
    found = from_arguments(given, strict=False)
    assert (found.workers, found.voltage_kV, found.start) == (4, 200.0, False)
    with pytest.raises(Misuse, match="workers"):
        from_arguments(given)


def test_operator_values_have_the_parsers_names():
    asked = request(pixel_size_A=0.5, dose_e_A2=40.0, voltage_kV=200.0, spherical_aberration_mm=1.4)
    assert asked.operator == {
        "pixel_size_A": 0.5,
        "total_dose_e_per_A2": 40.0,
        "voltage_kV": 200.0,
        "cs_mm": 1.4,
    }
    assert request().operator == {}


def test_the_site_fills_in_what_is_not_given():
    site = Site(
        defaults=Defaults(
            pipeline="relion",
            picker="topaz",
            particle_diameter_A=120.0,
            symmetry="D2",
            settings={"prep__motioncorr__patch_x": "3"},
        ),
        cluster=Cluster(workers=3),
    )
    asked = request(**site_defaults(site) | {"symmetry": "C1"})
    assert (asked.pipeline, asked.picker, asked.symmetry) == ("relion", "topaz", "C1")
    assert (asked.particle_diameter_A, asked.workers) == (120.0, 3)
    assert asked.settings == {"prep__motioncorr__patch_x": "3"}
    assert request(**site_defaults(Site())) == request()


# ---- doubts


def test_a_good_request_has_no_errors():
    for pipeline in ("native", "relion", "scipion"):
        assert wrong(request(pipeline=pipeline, particle_diameter_A=180.0)) == {}
    assert wrong(request()) == {}  # the native pipeline has a diameter of its own


@pytest.mark.parametrize("pipeline", ["relion", "scipion"])
def test_the_boxes_need_a_diameter(pipeline):
    assert (
        "give the particle's diameter" in wrong(request(pipeline=pipeline))["particle_diameter_A"]
    )
    helix = request(pipeline=pipeline, helical=True, picker="cryolo", picker_model="/m.h5")
    assert "the filament's width" in wrong(helix)["particle_diameter_A"]


def test_filaments_need_relion_cryolo_and_a_trained_model():
    given = {"helical": True, "particle_diameter_A": 180.0}
    assert "choose relion" in wrong(request(**given))["helical"]
    assert (
        "choose relion" in wrong(request(pipeline="scipion", picker="cryolo", **given))["helical"]
    )
    relion = {**given, "pipeline": "relion"}
    assert "give both" in wrong(request(**relion))["helical"]
    assert "give both" in wrong(request(picker="cryolo", **relion))["helical"]
    fine = request(picker="cryolo", picker_model="/m.h5", **relion)
    assert wrong(fine) == {}
    assert "twist and rise" in wrong(request(**to_arguments(fine) | {"symmetry": "C2"}))["symmetry"]


def test_pickers_and_their_models():
    diameter = {"particle_diameter_A": 180.0}
    native = wrong(request(picker="topaz", **diameter))["picker"]
    assert "Topaz" in native and "relion or scipion" in native
    relion = {**diameter, "pipeline": "relion"}
    assert "general model" in wrong(request(picker="cryolo", **relion))["picker_model"]
    assert wrong(request(picker="topaz", **relion)) == {}
    for picker, model, word in (
        ("topaz", "/m.h5", ".sav"),
        ("cryolo", "/m.sav", ".h5"),
        ("log", "/m.h5", "no model"),
        ("cryolo", "/my models/m.h5", "no blanks"),
    ):
        found = wrong(request(picker=picker, picker_model=model, **relion))
        assert word in found["picker_model"]


def test_what_is_not_there_is_named():
    asked = request(
        raw="/raw",
        movies="/movies",
        gain="/g.mrc",
        defects="/d.txt",
        mtf="/m.star",
        picker_model="/m.h5",
        schemes="/s",
        pipeline="relion",
        picker="cryolo",
        particle_diameter_A=180.0,
    )
    fields = ("raw", "movies", "gain", "defects", "mtf", "picker_model", "schemes")
    around = Surroundings(absent=frozenset(getattr(asked, field) for field in fields))
    assert set(fields) <= set(wrong(asked, around=around))


def test_the_project_lies_outside_the_session():
    for project in ("/raw", "/raw/project"):
        assert "keep them apart" in wrong(request(project=project))["project"]
    assert wrong(request(project="/raw_project")) == {}
    around = Surroundings(project="/projects is not a folder")
    assert wrong(request(), around=around) == {"project": "/projects is not a folder"}


def test_programs_that_are_missing_stop_a_start():
    asked = {"pipeline": "relion", "particle_diameter_A": 180.0}
    around = Surroundings(missing={"relion_schemer": "install it"})
    assert "relion_schemer is not installed" in wrong(request(**asked), around=around)["pipeline"]
    later = request(start=False, **asked)
    assert wrong(later, around=around) == {}
    assert "relion_schemer" in wrong(later, around=around, level="warning")["pipeline"]
    scipion = request(pipeline="scipion", particle_diameter_A=180.0)
    around = Surroundings(missing={"scipion3": "take it elsewhere"})
    assert wrong(scipion, around=around) == {}


def test_nothing_is_opened_without_an_exposure_but_the_native_pipeline():
    asked = request(pipeline="relion", particle_diameter_A=180.0)
    empty = known(asked)._replace(newest=Newest())
    assert "wait for the first one" in wrong(asked, empty)["raw"]
    native = request()
    assert wrong(native, empty) == {}
    assert "begins with the first one" in wrong(native, empty, level="warning")["raw"]


def test_what_the_metadata_do_not_say_has_to_be_given():
    asked = request(pipeline="relion", particle_diameter_A=180.0)
    unknown = {"voltage_kV": None, "pixel_size_A": None, "total_dose_e_per_A2": None}
    found = wrong(asked, known(asked, **unknown))
    assert {"voltage_kV", "pixel_size_A", "dose_e_A2"} <= set(found)
    given = request(
        **to_arguments(asked) | {"voltage_kV": 300.0, "pixel_size_A": 0.53, "dose_e_A2": 50.0}
    )
    assert wrong(given, known(given, **unknown)) == {}
    assert wrong(request(), known(request(), **unknown)) == {}


def test_sizes_that_cannot_be():
    small = request(pipeline="relion", particle_diameter_A=10.0, pixel_size_A=1.3)
    assert "px of 2.6 A: too small" in wrong(small)["particle_diameter_A"]
    large = request(pipeline="relion", particle_diameter_A=3000.0)
    assert "larger than the micrograph (4092 px)" in wrong(large)["particle_diameter_A"]


def test_gains_that_relion_would_misread():
    asked = request(pipeline="relion", particle_diameter_A=180.0)
    told = known(asked, files=Files(gain=Path("/raw/CountRef_1.dm4")))
    assert "does not read DM4" in wrong(asked, told)["gain"]
    told = known(asked, movie="a_EER.eer", files=Files(gain=Path("/raw/gain.mrc")))
    assert "prefer its .gain twin" in wrong(asked, told, level="warning")["gain"]
    told = known(asked, files=Files(warnings=("no gain reference was found",)))
    assert "no gain" in wrong(asked, told, level="warning")["gain"]


def test_errors_are_the_sentences_that_stop():
    asked = request(pipeline="relion", symmetry="C1")
    found = errors(doubts(asked, known(asked), Surroundings(missing={"x": "y"})))
    assert len(found) == 2 and "diameter" in found[0] and "x is not installed" in found[1]


def test_the_executor_native_cannot_do_everything():
    asked = {"pipeline": "relion", "runner": "schemer", "particle_diameter_A": 180.0}
    assert (
        "native,relion" in wrong(request(executor="native", **asked), level="warning")["executor"]
    )
    assert "executor" in wrong(request(executor="native", picker="topaz", **asked))
    assert wrong(request(executor="native,relion", **asked)) == {}


# ---- programs


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, set()),
        ({"pipeline": "scipion"}, {"scipion3"}),
        ({"pipeline": "relion"}, {"relion_schemer"}),
        ({"pipeline": "relion", "picker": "topaz"}, {"relion_schemer", "topaz"}),
        ({"pipeline": "relion", "picker": "cryolo"}, {"relion_schemer", "cryolo_predict.py"}),
        ({"pipeline": "relion", "runner": "schemer"}, {"relion_refine"}),
        ({"pipeline": "relion", "runner": "schemer", "executor": "native"}, set()),
    ],
)
def test_programs_needed(fields, wanted):
    assert set(needed(request(**fields), Programs())) == wanted


def test_programs_lie_where_the_site_says(tmp_path):
    programs = Programs(relion=str(tmp_path / "relion_refine"))
    assert schemer_of(programs) == str(tmp_path / "relion_schemer")
    asked = request(pipeline="relion")
    assert list(missing(asked, programs)) == [str(tmp_path / "relion_schemer")]
    (tmp_path / "relion_schemer").write_text("")
    (tmp_path / "relion_schemer").chmod(0o755)
    assert missing(asked, programs) == {}


def test_the_fields_are_those_of_the_docs():
    page = Path(__file__).parents[2] / "docs" / "how-to" / "start-a-session.md"
    text = page.read_text()
    missing_there = [
        one.name for one in msgspec.structs.fields(OpenRequest) if one.name not in text
    ]
    assert missing_there == []
