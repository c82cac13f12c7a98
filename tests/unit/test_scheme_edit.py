"""Changes of a Scheme and of job options, as pure functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from algorithms.formats import star
from schemer import edit, starfile, templates
from schemer.errors import SchemeError
from schemer.jobs import JobFile
from schemer.scheme import (
    UNDEFINED,
    BoolVariable,
    Edge,
    FloatVariable,
    JobRow,
    Operator,
    Scheme,
    StringVariable,
)
from schemer.settings import Definition, keys, place, set_key
from tests.shared import shared

SMALL = Scheme(
    name="Schemes/small/",
    current_node="CHECK",
    floats={"wait_sec": FloatVariable(60.0, 180.0), "n": FloatVariable(7.0, 1.0)},
    bools={"big": BoolVariable(True, False)},
    strings={"mics": StringVariable("Schemes/small/work/a.star", "Schemes/small/work/b.star")},
    operators={
        "WAIT": Operator("wait", input1="wait_sec"),
        "CHECK": Operator("bool=gt", "big", "n", "wait_sec"),
    },
    jobs={
        "work": JobRow("MotionCorr/job002/", "continue", True),
        "other": JobRow("other", "new"),
    },
    edges=(Edge("WAIT", "CHECK"), Edge("CHECK", "WAIT", True, "work", "big")),
    phantoms={"train": JobRow("", "", True)},
    source="s.star",
)
JOB = JobFile("relion.motioncorr", {"bin_factor": "2", "patch_x": "7", "of_version_4": "kept"})


# Variables


def test_setting_keeps_the_reset_value_unless_one_is_given():
    after = edit.set_variable(SMALL, "wait_sec", "30")
    assert after.floats["wait_sec"] == FloatVariable(30.0, 180.0)
    assert edit.set_variable(SMALL, "wait_sec", "30", "0").floats["wait_sec"].reset == 0.0
    assert edit.set_variable(SMALL, "mics", "", "").strings["mics"] == StringVariable("", "")
    assert SMALL.floats["wait_sec"].value == 60.0


@pytest.mark.parametrize("word", ["true", "True", "1"])
def test_words_for_true(word):
    changed = edit.set_variable(edit.set_variable(SMALL, "big", "0"), "big", word)
    assert changed.bools["big"].value is True and edit.truth("x", word) is True


@pytest.mark.parametrize("word", ["false", "False", "0"])
def test_words_for_false(word):
    assert edit.set_variable(SMALL, "big", word).bools["big"].value is False
    assert edit.truth("x", word) is False


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("big", "Yes", "'big': value 'Yes' is not a truth value; write True or False"),
        ("big", "TRUE", "is not a truth value"),
        ("big", "2", "is not a truth value"),
        ("wait_sec", "12abc", "scheme_floats, row 'wait_sec': value '12abc' is not a number"),
        ("wait_sec", "", "is not a number"),
        ("wait_sec", "nan", "is not a number"),
        ("wait_sec", "1_000", "is not a number"),
        ("wait_sec", "1e999", "is not a number"),
        ("mics", "two\nlines", "write it on one line"),
        ("mics", "a\udce9", "no text"),
        ("mics", "both ' and \" quotes", "one kind of quotes"),
        ("wait_sek", "1", r"s.star: there is no variable 'wait_sek'; did you mean wait_sec\?"),
    ],
)
def test_a_value_that_does_not_fit_names_place_and_remedy(name, value, words):
    with pytest.raises(SchemeError, match=words):
        edit.set_variable(SMALL, name, value)


def test_a_bad_reset_value_is_the_one_that_is_named():
    with pytest.raises(SchemeError, match="'soon' is not a number"):
        edit.set_variable(SMALL, "n", "1", "soon")


@pytest.mark.parametrize(("text", "value"), [("18.", 18.0), (".5", 0.5), ("-2.5e-3", -0.0025)])
def test_forms_of_numbers(text, value):
    assert edit.set_variable(SMALL, "n", text).floats["n"].value == value


@given(st.text())
def test_what_a_string_variable_takes_comes_back_from_the_file(text):
    try:
        changed = edit.set_variable(SMALL, "mics", text, text)
    except SchemeError:
        return
    again = starfile.from_tables(star.loads(starfile.dump(changed)), "s.star").strings["mics"]
    assert again.value.split() == text.split()  # RELION makes one blank of several


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("50", FloatVariable(50.0, 50.0)),
        ("-1e3", FloatVariable(-1000.0, -1000.0)),
        ("1", FloatVariable(1.0, 1.0)),
        ("True", BoolVariable(True, True)),
        ("false", BoolVariable(False, False)),
        ("TRUE", StringVariable("TRUE", "TRUE")),
        ("3D.mrc", StringVariable("3D.mrc", "3D.mrc")),
        ("", StringVariable("", "")),
    ],
)
def test_an_added_variable_has_the_type_of_its_value(value, kind):
    after = edit.add_variable(SMALL, "new", value)
    field = edit.field_of(after, "new")
    assert field is not None and getattr(after, field)["new"] == kind


def test_adding_a_variable_that_is_there_sets_it():
    assert edit.add_variable(SMALL, "n", "3").floats["n"] == FloatVariable(3.0, 1.0)
    assert edit.add_variable(SMALL, "m", "3", "4").floats["m"] == FloatVariable(3.0, 4.0)
    with pytest.raises(SchemeError, match="is not a number"):
        edit.add_variable(SMALL, "n", "text")
    with pytest.raises(SchemeError, match="'x' is not a truth value"):
        edit.add_variable(SMALL, "m", "True", "x")


@pytest.mark.parametrize(
    "name", ["", "a b", "_a", "#a", "a/b", "a$b", UNDEFINED, "..", 'a"b', "-a"]
)
def test_names_that_no_file_can_carry(name):
    for add in (
        lambda: edit.add_variable(SMALL, name, "1"),
        lambda: edit.add_job(SMALL, name, "new"),
        lambda: edit.add_operator(SMALL, name, "exit"),
    ):
        with pytest.raises(SchemeError, match="cannot be a name"):
            add()


def test_names_are_unique_in_a_scheme():
    for add in (
        lambda: edit.add_variable(SMALL, "WAIT", "1"),
        lambda: edit.add_job(SMALL, "big", "new"),
        lambda: edit.add_operator(SMALL, "work", "exit"),
    ):
        with pytest.raises(SchemeError, match="is used already"):
            add()


# Nodes and jobs


def test_current_node_mode_and_flag():
    assert edit.set_current_node(SMALL, "work").current_node == "work"
    assert edit.set_job_mode(SMALL, "work", "new").jobs["work"].mode == "new"
    row = edit.set_has_started(SMALL, "work", False).jobs["work"]
    assert row == JobRow("MotionCorr/job002/", "continue", False)


def test_nodes_that_are_not_there():
    with pytest.raises(SchemeError, match="no node 'wurk'; there are CHECK, WAIT, other, work"):
        edit.set_current_node(SMALL, "wurk")
    with pytest.raises(SchemeError, match="no node 'undefined'"):
        edit.set_current_node(SMALL, UNDEFINED)
    for change in (
        lambda: edit.set_job_mode(SMALL, "WAIT", "new"),
        lambda: edit.set_has_started(SMALL, "WAIT", True),
    ):
        with pytest.raises(SchemeError, match="no job 'WAIT'; there are other, work"):
            change()
    with pytest.raises(SchemeError, match="'overwrite' is no mode; write new or continue"):
        edit.set_job_mode(SMALL, "work", "overwrite")
    with pytest.raises(SchemeError, match="value 'maybe' is not a truth value"):
        edit.truth("has_started", "maybe")


def test_reset():
    after = edit.reset(SMALL)
    assert after.current_node == "WAIT"
    assert after.floats["wait_sec"] == FloatVariable(180.0, 180.0)
    assert after.bools["big"] == BoolVariable(False, False)
    assert after.strings["mics"].value == "Schemes/small/work/b.star"
    assert after.jobs == {"work": JobRow("work", "continue"), "other": JobRow("other", "new")}
    assert after.phantoms == {} and after.edges == SMALL.edges
    assert edit.reset(after) == after


def test_reset_of_a_recorded_run_is_the_scheme_as_shipped():
    final = starfile.read(shared("data/schemes/traces/T3-proc-2d-only/scheme.final.star"))
    shipped = starfile.read(shared("data/schemes/relion-5.0.1/proc"))
    after = edit.reset(final)
    for field in ("current_node", "floats", "bools", "strings", "operators", "jobs", "edges"):
        assert getattr(after, field) == getattr(shipped, field)
    assert final.phantoms and not after.phantoms


def test_building_a_scheme_from_nothing():
    scheme = edit.empty("mine")
    scheme = edit.add_variable(scheme, "wait_sec", "60")
    scheme = edit.add_variable(scheme, "there", "False")
    scheme = edit.add_variable(scheme, "file", "x.star")
    scheme = edit.add_operator(scheme, "WAIT", "wait", "wait_sec")
    scheme = edit.add_operator(scheme, "HAS", "bool=file_exists", "file", output="there")
    scheme = edit.add_operator(scheme, "END", "exit")
    scheme = edit.add_job(scheme, "work", "new")
    scheme = edit.add_edge(scheme, "WAIT", "HAS")
    scheme = edit.add_fork(scheme, "HAS", "there", "work", "WAIT")
    scheme = edit.add_edge(scheme, "work", "END")
    assert scheme.next_node("HAS", {"there": True}) == "work"
    assert scheme.next_node("HAS", {"there": False}) == "WAIT"
    again = starfile.from_tables(star.loads(starfile.dump(scheme)), "x")
    assert (again.name, again.current_node) == ("Schemes/mine/", "WAIT")
    for field in ("floats", "bools", "strings", "operators", "jobs", "edges"):
        assert getattr(again, field) == getattr(scheme, field)


@pytest.mark.parametrize(
    ("type", "arguments", "words"),
    [
        ("bool=gee", {}, "'bool=gee' is not an operator type"),
        ("bool=gt", {"input1": "n", "input2": "big", "output": "big"}, "'big' is not a float"),
        ("float=set", {"input1": "nn", "output": "n"}, "'nn' is not a float variable"),
        ("bool=file_exists", {"input1": "mics", "output": "n"}, "'n' is not a bool variable"),
    ],
)
def test_an_operator_is_checked_when_it_is_added(type, arguments, words):
    with pytest.raises(SchemeError, match=words):
        edit.add_operator(SMALL, "NEW", type, **arguments)


def test_an_operator_may_compare_with_a_number():
    added = edit.add_operator(SMALL, "NEW", "bool=gt", "n", "10", "big")
    assert added.operators["NEW"] == Operator("bool=gt", "big", "n", "10")


def test_edges_have_nodes_at_both_ends_and_leave_a_node_once():
    assert edit.add_edge(SMALL, "work", "WAIT").next_node("work", {}) == "WAIT"
    with pytest.raises(SchemeError, match="an edge leaves 'WAIT' already"):
        edit.add_edge(SMALL, "WAIT", "work")
    for source, target in (("work", "gone"), ("gone", "WAIT")):
        with pytest.raises(SchemeError, match="no node 'gone'"):
            edit.add_edge(SMALL, source, target)
    with pytest.raises(SchemeError, match="no node 'gone'"):
        edit.add_fork(SMALL, "work", "big", "gone", "WAIT")
    with pytest.raises(SchemeError, match="no boolean variable 'n'; there are big"):
        edit.add_fork(SMALL, "work", "n", "WAIT", "WAIT")


def test_a_copy_has_its_own_paths():
    after = edit.copy(SMALL, "large")
    assert after.name == "Schemes/large/"
    assert after.strings["mics"] == StringVariable(
        "Schemes/large/work/a.star", "Schemes/large/work/b.star"
    )
    assert (after.jobs, after.current_node, after.edges) == (SMALL.jobs, "CHECK", SMALL.edges)
    job = JobFile("relion.extract", {"star_mics": "Schemes/small/work/a.star", "other_args": ""})
    copied = edit.copy_job(job, SMALL.name, after.name)
    assert copied.options == {"star_mics": "Schemes/large/work/a.star", "other_args": ""}
    with pytest.raises(SchemeError, match="cannot be the name of a Scheme"):
        edit.copy(SMALL, "a/b")


# Job options


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("do_save_noDW", "True", "Yes"),
        ("do_save_noDW", "false", "No"),
        ("do_save_noDW", "yes", "Yes"),
        ("do_save_noDW", "$$flag", "$$flag"),
        ("bin_factor", "1.5", "1.5"),
        ("bin_factor", "-9999.", "-9999."),
        ("bin_factor", "", ""),
        ("gain_rot", "90 degrees (1)", "90 degrees (1)"),
        ("other_args", "--do_at_most $$n", "--do_at_most $$n"),
        ("fn_gain_ref", "", ""),
        ("other_args", "True", "Yes"),  # as --editJob does with any kind
    ],
)
def test_an_option_is_written_as_relion_does(option, value, text):
    assert edit.set_job_option(JOB, option, value).options[option] == text


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        (
            "do_save_noDW",
            "maybe",
            "j.star: option 'do_save_noDW': value 'maybe' .* write Yes or No",
        ),
        ("bin_factor", "two", "'two' is not a number"),
        ("gain_rot", "90", "is none of the choices; write one of No rotation .0., 90 degrees"),
        ("other_args", "a\nb", "one line"),
        ("binfactor", "2", "j.star: relion.motioncorr has no option .* did you mean bin_factor"),
    ],
)
def test_an_option_that_does_not_fit(option, value, words):
    with pytest.raises(SchemeError, match=words):
        edit.set_job_option(JOB, option, value, "j.star")


def test_a_job_file_gets_all_options_of_its_type_and_keeps_the_others():
    after = edit.set_job_option(JOB, "bin_factor", "1")
    assert set(after.options) == {*JOB.type.options, "of_version_4"}
    assert after.options["patch_x"] == "7" and after.options["patch_y"] == "1"
    assert (after.label, after.is_continue) == (JOB.label, JOB.is_continue)
    assert JOB.options["bin_factor"] == "2"


@pytest.mark.parametrize("version", ["relion-4.0", "relion-5.0.1"])
def test_an_edited_job_of_relion_reads_back_as_it_was_but_for_the_option(tmp_path, version):
    path = shared(f"data/schemes/{version}/proc/autopick/job.star")
    before = JobFile.load(path)
    (tmp_path / "job.star").write_text(edit.set_job_option(before, "use_gpu", "False").dumps())
    after = JobFile.load(tmp_path / "job.star")
    assert {name: after.options[name] for name in before.options} == before.options | {
        "use_gpu": "No"
    }


# Settings by key


def definition() -> Definition:
    return Definition(SMALL, {"work": JOB, "other": structs.replace(JOB, options={})})


def test_keys_name_variables_and_options():
    one = definition()
    assert place(one, "small__wait_sec") == ("", "wait_sec")
    assert place(one, "small__work__bin_factor") == ("work", "bin_factor")
    for key in ("wait_sec", "small", "small__", "large__wait_sec", "small__work__nothing"):
        assert place(one, key) is None
    assert all(place(one, key) is not None for key in keys(one))


def test_a_key_sets_value_and_reset_value():
    after = set_key(set_key(definition(), "small__wait_sec", "5"), "small__big", "No")
    assert after.scheme.floats["wait_sec"] == FloatVariable(5.0, 5.0)
    assert after.scheme.bools["big"] == BoolVariable(False, False)
    after = set_key(after, "small__other__bin_factor", "3")
    assert after.jobs["other"].options["bin_factor"] == "3" and after.jobs["work"] == JOB
    with pytest.raises(SchemeError, match="did you mean small__wait_sec"):
        set_key(after, "small__wait_sek", "5")


@pytest.mark.parametrize("name", templates.NAMES)
def test_every_key_of_the_shipped_schemes_can_be_set_to_what_it_is(name):
    one = templates.shipped(name)
    for key in keys(one):
        job, what = place(one, key) or ("", "")
        if job:
            value = one.jobs[job].options[what]
        else:
            field = edit.field_of(one.scheme, what)
            assert field is not None
            value = str(getattr(one.scheme, field)[what].value)
        assert set_key(one, key, value) == one
