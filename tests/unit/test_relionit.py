"""Option files, the rules of relion_it, and what applying them does to a project."""

import ast
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemer import optionfile, relionit, starfile, store, templates
from schemer.errors import SchemeError
from schemer.jobs import JobFile
from schemer.relionit_rules import (
    DEFAULTS,
    WrongValue,
    calculated,
    coupled,
    doubts,
    mdcatch_boxes,
    mdcatch_helix_boxes,
    number,
    relion_boxes,
    switch,
)
from tests.shared import shared

# Reading option files


def write(folder: Path, text: str, name: str = "options.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["{}", "options = {}", "# a comment\n{}\n"])
def test_a_dictionary_alone_or_with_a_name(tmp_path, form):
    inner = "{'do_prep': 'True', 'prep__x': -1.5, 'a' : 2,\n 'b': None, 'c': True, 'd': 'x' 'y'}"
    found = optionfile.read(write(tmp_path, form.replace("{}", inner)))
    assert found == {
        "do_prep": "True",
        "prep__x": "-1.5",
        "a": "2",
        "b": "None",
        "c": "True",
        "d": "xy",
    }


def test_json_and_toml_with_tables(tmp_path):
    wanted = {"do_proc": "False", "prep__motioncorr__bin_factor": "2", "proc__iniref": "a b.mrc"}
    text = (
        '{"do_proc": false, "prep": {"motioncorr": {"bin_factor": 2}}, "proc__iniref": "a b.mrc"}'
    )
    assert optionfile.read(write(tmp_path, text, "o.json")) == wanted
    text = 'do_proc = false\nproc__iniref = "a b.mrc"\n[prep.motioncorr]\nbin_factor = 2\n'
    assert optionfile.read(write(tmp_path, text, "o.toml")) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "{'a': __import__('os').getcwd()}",
            r"options.py, line 1: key 'a': .* no literal \(Call\)",
        ),
        ("{'a': 1,\n 'b': [1]}", r"line 2: key 'b': the value is no literal \(List\)"),
        ("{'a': f'{1}'}", "no literal"),
        ("{'a': 1 + 1}", "no literal"),
        ("{'a': b'x'}", "is a bytes; write a text, a number"),
        ("{'a': 1j}", "is a complex"),
        ("{1: 2}", "line 1: a key is not a text"),
        ("{**{}}", "a key is not a text"),
        ("import os\n{'a': 1}", "is not one dictionary of options"),
        ("{'a': 1}\n{'b': 1}", "is not one dictionary"),
        ("x = y = 3", "is not one dictionary"),
        ("dict(a=1)", "is not one dictionary"),
        ("", "is not one dictionary"),
        ("{'a': 1", "cannot be read as a Python dictionary: .*line 1"),
        ("(" * 5000, "too many nested parentheses"),
        ("-" * 100_000 + "1", "nested too deeply|recursion"),
        ("1+" * 50_000 + "1", "recursion"),
        ("{'a': " + "9" * 5000 + "}", "4300 digits"),
        ("{'a': 1}\0", "cannot be read as a Python dictionary"),
        ("#" * (optionfile.MAX_BYTES + 1), "larger than 262144 bytes"),
    ],
)
def test_what_is_no_dictionary_of_literals_is_refused(tmp_path, text, words):
    with pytest.raises(SchemeError, match=words):
        optionfile.read(write(tmp_path, text))


def test_a_file_is_not_executed(tmp_path):
    mark = tmp_path / "mark"
    for text in (
        f"{{'a': open({str(mark)!r}, 'w')}}",
        f"open({str(mark)!r}, 'w')",
        f"x = {{'a': [open({str(mark)!r}, 'w') for _ in '1']}}",
    ):
        with pytest.raises(SchemeError):
            optionfile.read(write(tmp_path, text))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("o.json", "[1]", "holds no table of options"),
        ("o.json", '{"a": [1]}', "key 'a': value .* is a list"),
        ("o.json", '{"a": 1', "cannot be read as JSON"),
        ("o.json", "[" * 50_000, "cannot be read as JSON: maximum recursion"),
        ("o.toml", "a = 1979-05-27", "is a date"),
        ("o.toml", "a = ", "cannot be read as TOML"),
        ("o.toml", "a = " + "[" * 50_000, "cannot be read as TOML: maximum recursion"),
    ],
)
def test_json_and_toml_that_are_refused(tmp_path, name, text, words):
    with pytest.raises(SchemeError, match=words):
        optionfile.read(write(tmp_path, text, name))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SchemeError, match="cannot be read: No such file"):
        optionfile.read(tmp_path / "gone.py")
    (tmp_path / "latin.py").write_bytes(b"{'a': '\xe9'}")
    with pytest.raises(SchemeError, match="not UTF-8 text"):
        optionfile.read(tmp_path / "latin.py")


@given(st.dictionaries(st.text(), st.text(st.characters(codec="utf-8"))))
def test_a_written_file_reads_back_and_is_what_python_reads(tmp_path_factory, options):
    options = {key: value for key, value in options.items() if key.isprintable()}
    path = tmp_path_factory.mktemp("options") / "o.py"
    optionfile.write(path, options)
    assert optionfile.read(path) == options
    assert ast.literal_eval(path.read_text(encoding="utf-8")) == options


@given(st.binary())
def test_any_bytes_give_options_or_a_clear_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("options")
    for name in ("o.py", "o.json", "o.toml"):
        (folder / name).write_bytes(data)
        try:
            found = optionfile.read(folder / name)
        except SchemeError as error:
            assert name in str(error)
        else:
            assert all(isinstance(value, str) for value in found.values())


# "Calculate for me"


@pytest.mark.parametrize(
    ("diameter", "angpix", "binning", "mask", "box", "small", "small_pixel"),
    [
        ("180", "0.885", "1", "198", "306", "96", 2.82),
        ("200", "0.5", "2", "220", "300", "96", 3.125),
        ("150", "1.06", "1", "165", "214", "64", 3.54),
    ],
)
def test_the_worked_values(diameter, angpix, binning, mask, box, small, small_pixel):
    found = calculated(
        {
            "do_auto_boxsize": "True",
            "proc__autopick__log_diam_max": diameter,
            "prep__importmovies__angpix": angpix,
            "prep__motioncorr__bin_factor": binning,
        }
    )
    assert found == {
        "proc__class2d__particle_diameter": mask,
        "proc__extract__extract_size": box,
        "proc__extract__rescale": small,
    }
    pixel = float(angpix) * float(binning) * int(box) / int(small)
    assert pixel == pytest.approx(small_pixel, abs=0.005)


def test_a_small_box_is_not_scaled_and_a_huge_one_is_refused():
    assert relion_boxes(100.0, 4.0)[1:3] == (38, 38)  # 48 px would exceed the box
    assert relion_boxes(60.0, 1.0)[1:3] == (90, 48)
    with pytest.raises(WrongValue, match="needs a down-sampled box of more than 1024 px"):
        relion_boxes(6000.0, 1.0)


@given(st.floats(20, 2500), st.floats(0.3, 5.0))
def test_boxes_hold_the_particle_and_are_fine_enough(diameter, pixel):
    boxes = relion_boxes(diameter, pixel)
    assert boxes.box_px % 2 == 0 and boxes.scaled_px <= boxes.box_px
    assert 1.5 * diameter - 1e-3 <= boxes.box_px * pixel < 1.5 * diameter + 2.001 * pixel
    fine = boxes.box_px * pixel / boxes.scaled_px < 3.75
    assert fine or boxes.scaled_px == boxes.box_px


@pytest.mark.parametrize(
    ("diameter", "pixel", "mask_px", "box", "small", "log_min"),
    [
        # px = 180 / 0.885 = 203.39: ceil(223.73), 2 ceil(152.54), 270 A / 96 = 2.81 A
        (180.0, 0.885, 224, 306, 96, 149),
        # px = 150 / 1.06 = 141.51: ceil(155.66), 2 ceil(106.13), 225 A / 64 = 3.52 A
        (150.0, 1.06, 156, 214, 64, 124),
        (100.0, 1.0, 110, 150, 48, 83),  # 1.1 x 100 is not 111
    ],
)
def test_mdcatch_boxes(diameter, pixel, mask_px, box, small, log_min):
    boxes = mdcatch_boxes(diameter, pixel)
    assert boxes.mask_A == math.floor(mask_px * pixel + 1e-6)
    assert (boxes.box_px, boxes.scaled_px, boxes.log_min_A) == (box, small, log_min)
    assert boxes.tube_A is None


def test_mdcatch_boxes_of_a_helix():
    boxes = mdcatch_helix_boxes(100.0, 1.25)  # 80 px wide
    assert boxes.tube_A == 120 and boxes.mask_A == 162  # ceil(129.6) = 130 px
    assert (boxes.box_px, boxes.scaled_px, boxes.log_min_A) == (144, 64, None)


def test_other_rules_set_other_keys():
    options = DEFAULTS | {"proc__autopick__log_diam_max": "100", "prep__importmovies__angpix": "1"}
    found = calculated(options, "mdcatch")
    assert found["proc__autopick__log_diam_min"] == "83"
    found = calculated(options, "mdcatch-helix")
    assert found["proc__extract__helical_tube_outer_diameter"] == "120"
    assert calculated(options | {"do_auto_boxsize": "False"}) == {}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("prep__importmovies__angpix", "0", "'0' is not above zero"),
        ("proc__autopick__log_diam_max", "-5", "'-5' is not above zero"),
        ("proc__autopick__log_diam_max", "wide", "'wide' is not a number"),
        ("prep__motioncorr__bin_factor", "inf", "'inf' is not a number"),
        ("do_auto_boxsize", "perhaps", "'perhaps' is not a truth value"),
    ],
)
def test_boxes_need_sensible_values(key, value, words):
    with pytest.raises(WrongValue, match=words) as caught:
        calculated(DEFAULTS | {key: value})
    assert caught.value.key == key


def test_missing_numbers_and_switches():
    assert switch({}, "do_prep") is False and switch({"x": "Yes"}, "x") is True
    with pytest.raises(WrongValue, match="key 'x': value '' is not a number"):
        number({}, "x")


# The fields of the window


def test_the_defaults_are_coupled_already_but_for_what_they_leave_out():
    assert coupled(DEFAULTS) == {
        "proc__autopick__topaz_particle_diameter": "180.0",
        "proc__inimodel3d__gpu_ids": "0,1",
        "proc__refine3d__gpu_ids": "0:1",
    }


def test_gpus():
    given = {"proc__class2d__gpu_ids": "2,3,4"}
    found = coupled(DEFAULTS | given, given)
    assert found["proc__inimodel3d__gpu_ids"] == "2,3,4"
    assert found["proc__autopick__gpu_ids"] == "2"
    assert found["proc__refine3d__gpu_ids"] == "2:3:4"
    given = {"proc__refine3d__gpu_ids": "5"}
    assert "proc__refine3d__gpu_ids" not in coupled(DEFAULTS | given, given)


def test_symmetry_is_that_which_was_given():
    given = {"proc__refine3d__sym_name": "C4"}
    found = coupled(DEFAULTS | given, given)
    assert found["proc__inimodel3d__sym_name"] == "C4" and "proc__refine3d__sym_name" not in found
    given = {"proc__inimodel3d__sym_name": "I", "proc__refine3d__sym_name": "O"}
    assert coupled(DEFAULTS | given, given)["proc__refine3d__sym_name"] == "I"


def test_diameters_rescaling_and_ctf_results():
    given = {
        "proc__autopick__log_diam_max": "240",
        "proc__class2d__particle_diameter": "264",
        "proc__extract__do_rescale": "False",
        "proc__ctffind_mics": "mine.star",
    }
    found = coupled(DEFAULTS | given, given)
    assert found["proc__autopick__topaz_particle_diameter"] == "240"
    assert found["proc__inimodel3d__particle_diameter"] == "264"
    assert found["proc__refine3d__particle_diameter"] == "264"
    assert found["proc__extract__do_rescale"] == "True"
    assert found["proc__ctffind_mics"] == "Schemes/prep/ctffind/micrographs_ctf.star"
    given |= {"do_prep": "False"}
    assert "proc__ctffind_mics" not in coupled(DEFAULTS | given, given)


def test_log_or_topaz():
    topaz = coupled(DEFAULTS | {"proc__do_log": "False"})
    assert topaz["proc__autopick__use_gpu"] == "True"
    assert topaz["proc__extract__do_fom_threshold"] == "True"
    assert topaz["proc__autopick__nr_mpi"] == "1"
    log = coupled(DEFAULTS | topaz | {"proc__do_log": "True"})
    assert log["proc__autopick__use_gpu"] == log["proc__extract__do_fom_threshold"] == "False"
    assert "proc__autopick__nr_mpi" not in log
    assert coupled({}) == {}


def test_doubts():
    def found(**changes: str) -> list[str]:
        options = DEFAULTS | changes
        return list(doubts(options, lambda path: path == "Movies/gain.mrc"))

    assert found() == []
    assert "outside the project" in found(prep__importmovies__fn_in_raw="/data/*.tiff")[0]
    assert "outside the project" in found(prep__importmovies__fn_in_raw="../*.tiff")[0]
    assert "no *" in found(prep__importmovies__fn_in_raw="Movies/a.tiff")[0]
    assert "'none.mrc' is not there" in found(prep__motioncorr__fn_gain_ref="none.mrc")[0]
    assert found(prep__motioncorr__fn_gain_ref="") == []
    assert "kV is -300" in found(prep__importmovies__kV="-300")[0]
    assert "angpix is 0" in found(prep__importmovies__angpix="0")[0]
    assert "dose_per_frame is 0" in found(prep__motioncorr__dose_per_frame="0")[0]
    assert "shortest diameter" in found(proc__autopick__log_diam_min="200")[0]
    assert found(do_prep="False", prep__importmovies__kV="0") == []


# Applying


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def options_of(project: Path, scheme: str, job: str) -> dict[str, str]:
    return JobFile.load(project / "Schemes" / scheme / job / "job.star").options


def test_defaults_files_and_unknown_keys(tmp_path):
    first = write(
        tmp_path, "{'prep__importmovies__kV': 300, 'prep__do_at_most': 7, 'do_proc': 'False'}"
    )
    second = write(
        tmp_path,
        '{"prep__importmovies__kV": 120, "proc__do_log": "False", "proc__iniref": "ref.mrc",'
        '"proc__autopick__fn_topaz_exec": "topaz", "do_preb": "True", "tomo__x": 1}',
        "second.json",
    )
    plan = relionit.plan(tmp_path, [first, second])
    assert not (tmp_path / "Schemes").exists()
    relionit.apply(tmp_path, plan)
    prep, proc = (starfile.load(tmp_path / "Schemes" / name) for name in ("prep", "proc"))
    assert options_of(tmp_path, "prep", "importmovies")["kV"] == "120"
    assert options_of(tmp_path, "prep", "importmovies")["Cs"] == "1.4"  # a default
    assert options_of(tmp_path, "prep", "importmovies")["is_multiframe"] == "Yes"
    assert options_of(tmp_path, "proc", "autopick")["use_gpu"] == "No"
    assert prep.floats["do_at_most"].value == prep.floats["do_at_most"].reset == 7.0
    assert proc.bools["do_log"].value is proc.bools["do_log"].reset is False
    assert proc.strings["iniref"].reset == "ref.mrc" and proc.strings["topaz_model"].value == ""
    assert plan.copied == ["prep", "proc"]
    assert set(plan.unknown) == {"proc__autopick__fn_topaz_exec", "do_preb", "tomo__x"}
    assert "proc__autopick__fn_topaz_exe" in plan.unknown["proc__autopick__fn_topaz_exec"]
    assert "do_prep" in plan.unknown["do_preb"]
    saved = optionfile.read(tmp_path / relionit.OPTIONS_FILE)
    assert saved == plan.options and saved["tomo__x"] == "1" and saved["do_proc"] == "False"
    assert set(DEFAULTS) <= set(saved)


def test_every_default_that_5_0_1_knows_is_applied(tmp_path):
    plan = relionit.plan(tmp_path, [])
    assert set(DEFAULTS) - set(plan.done) == {"proc__autopick__fn_topaz_exec"}
    assert plan.unknown == {}  # a default that is missing is nobody's mistake


def test_the_saved_options_give_the_same_project_again(tmp_path):
    options = write(tmp_path, "{'proc__autopick__log_diam_max': 240}")
    relionit.apply(tmp_path, relionit.plan(tmp_path, [options], rules="relion"))
    before = snapshot(tmp_path)
    again = relionit.plan(tmp_path, [tmp_path / relionit.OPTIONS_FILE], rules="relion")
    assert again.copied == [] and again.calculated == {}
    relionit.apply(tmp_path, again)
    assert snapshot(tmp_path) == before


def test_calculating_reaches_the_jobs(tmp_path):
    options = write(
        tmp_path,
        "{'proc__refine3d__sym_name': 'C3', 'prep__importmovies__angpix': 1.06, "
        "'proc__autopick__log_diam_max': 150}",
    )
    plan = relionit.plan(tmp_path, [options], rules="relion")
    relionit.apply(tmp_path, plan)
    extract = options_of(tmp_path, "proc", "extract")
    assert (extract["extract_size"], extract["rescale"]) == ("214", "64")
    for job in ("class2d", "inimodel3d", "refine3d"):
        assert options_of(tmp_path, "proc", job)["particle_diameter"] == "165"
    assert options_of(tmp_path, "proc", "inimodel3d")["sym_name"] == "C3"
    assert plan.options["proc__extract__extract_size"] == "214"


def test_only_given_leaves_the_rest_as_it_is(tmp_path):
    templates.install(tmp_path, "prep", {"prep__importmovies__Cs": "0.01"})
    options = write(tmp_path, "{'prep__importmovies__kV': 300}")
    plan = relionit.plan(tmp_path, [options], only_given=True)
    relionit.apply(tmp_path, plan)
    assert plan.done == {"prep__importmovies__kV": "300"}
    assert options_of(tmp_path, "prep", "importmovies")["Cs"] == "0.01"
    assert (tmp_path / "Schemes/proc/scheme.star").exists()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("prep__importmovies__kV", "'high'", "options.py: key 'prep__importmovies__kV'.*'high'"),
        ("prep__wait_sec", "'soon'", "key 'prep__wait_sec'.*'soon' is not a number; write one"),
        ("proc__do_log", "'perhaps'", "key 'proc__do_log'.*'perhaps'"),
        ("proc__refine3d__sampling", "'7.5'", "'7.5' is none of the choices"),
        ("proc__iniref", "'a\\nb'", "key 'proc__iniref'.*line end"),
        ("prep__motioncorr__fn_gain_ref", "'\\0'", "key 'prep__motioncorr__fn_gain_ref'"),
        ("do_prep", "'perhaps'", "options.py: key 'do_prep'"),
        ("proc__autopick__log_diam_max", "'x'", "options.py: key 'proc__autopick__log_diam_max'"),
    ],
)
def test_a_value_that_does_not_fit_and_nothing_is_written(tmp_path, key, value, words):
    templates.install(tmp_path, "prep")
    options = write(tmp_path, f"{{'prep__do_at_most': 3, {key!r}: {value}}}")
    before = snapshot(tmp_path)
    with pytest.raises(SchemeError, match=words):
        relionit.plan(tmp_path, [options], rules="relion")
    assert snapshot(tmp_path) == before


def test_nothing_is_written_while_one_of_them_runs(tmp_path):
    templates.install(tmp_path, "prep")
    proc = templates.install(tmp_path, "proc")
    plan = relionit.plan(tmp_path, [])
    with store.run_lock(tmp_path, proc, strict=False):
        before = snapshot(tmp_path)
        with pytest.raises(SchemeError, match="is running"):
            relionit.apply(tmp_path, plan)
        assert snapshot(tmp_path) == before
    (tmp_path / ".relion_lock_scheme_proc").mkdir()
    with pytest.raises(SchemeError, match="a relion_schemer runs this Scheme"):
        relionit.apply(tmp_path, plan)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("how", ["option", "environment"])
def test_relions_schemes_are_copied_and_set(tmp_path, monkeypatch, how):
    scripts = shared("data/schemes/relion-5.0.1")
    if how == "environment":
        (tmp_path / "scripts").mkdir()
        (tmp_path / "scripts" / "Schemes").symlink_to(scripts)
        monkeypatch.setenv("RELION_SCRIPT_DIRECTORY", str(tmp_path / "scripts"))
        plan = relionit.plan(tmp_path, [])
    else:
        monkeypatch.delenv("RELION_SCRIPT_DIRECTORY", raising=False)
        plan = relionit.plan(tmp_path, [], schemes=scripts)
    relionit.apply(tmp_path, plan)
    theirs = JobFile.load(scripts / "prep/ctffind/job.star").options
    ours = options_of(tmp_path, "prep", "ctffind")
    changed = {"do_phaseshift", "fn_ctffind_exe"}
    assert {name: ours[name] for name in theirs if name not in changed} == {
        name: value for name, value in theirs.items() if name not in changed
    }
    scheme = starfile.load(tmp_path / "Schemes/proc")
    assert scheme.floats["maxtime_hr"].value == 48.0 and scheme.strings["topaz_model"].value == ""


def test_other_schemes_of_the_project_by_their_name(tmp_path):
    templates.install(tmp_path, "proc")
    scheme = (tmp_path / "Schemes/proc/scheme.star").read_text().replace("/proc/", "/proc-b/")
    for job in (tmp_path / "Schemes/proc").glob("*/job.star"):
        (tmp_path / "Schemes/proc-b" / job.parent.name).mkdir(parents=True)
        (tmp_path / "Schemes/proc-b" / job.parent.name / "job.star").write_text(job.read_text())
    (tmp_path / "Schemes/proc-b/scheme.star").write_text(scheme)
    options = write(tmp_path, "{'proc-b__class2d__nr_classes': 10, '../x__a': 1}")
    plan = relionit.plan(tmp_path, [options], only_given=True)
    relionit.apply(tmp_path, plan)
    assert options_of(tmp_path, "proc-b", "class2d")["nr_classes"] == "10"
    assert options_of(tmp_path, "proc", "class2d")["nr_classes"] == "50"
    assert list(plan.unknown) == ["../x__a"]


def test_changes_are_noted_for_relion_it(tmp_path):
    relionit.record(tmp_path, {"prep__wait_sec": "5"})
    assert not (tmp_path / relionit.OPTIONS_FILE).exists()
    write(tmp_path, json.dumps({"prep__wait_sec": "9", "do_prep": "True"}), relionit.OPTIONS_FILE)
    relionit.record(tmp_path, {"prep__wait_sec": "5"})
    saved = optionfile.read(tmp_path / relionit.OPTIONS_FILE)
    assert saved == {"prep__wait_sec": "5", "do_prep": "True"}
