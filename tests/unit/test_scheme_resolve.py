"""Scheme paths and `$$variables`: schemes.md sections 4 and 5."""

import pytest

from schemer.errors import SchemeError
from schemer.resolve import fill_options, float_text, resolve, substitute
from schemer.scheme import JobRow
from schemer.state import State

JOBS = {
    "j": JobRow("MotionCorr/job002/", "continue", True),
    "later": JobRow("later", "new"),
    "bare": JobRow("Import/job001", "new"),
}
OTHER = {"ctf": "CtfFind/job003/", "noslash": "CtfFind/job004", "later": "later", "phantom": ""}


class World:
    def file_exists(self, path):
        return path in ("Schemes/prep/scheme.star", "Schemes/bare/scheme.star")

    def job_table(self, scheme):
        return {"prep": OTHER, "bare": {}}.get(scheme)


# value, text and pending in safe mode; text in strict mode; RELION's phantom row
CASES = [
    ("plain/file.star", "plain/file.star", False, "plain/file.star", ""),
    ("Schemes/me/j/a.star", "MotionCorr/job002/a.star", False, "MotionCorr/job002/a.star", ""),
    ("x=Schemes/me/j/a,y", "x=MotionCorr/job002/a,y", False, "x=MotionCorr/job002/a,y", ""),
    (
        "Schemes/me/j/a Schemes/me/j/b",
        "MotionCorr/job002/a MotionCorr/job002/b",
        False,
        "MotionCorr/job002/a MotionCorr/job002/b",
        "",
    ),
    ("Schemes/me/later/a.star", "Schemes/me/later/a.star", True, "latera.star", ""),
    ("Schemes/me/bare/a.star", "Import/job001/a.star", False, "Import/job001a.star", ""),
    ("Schemes/me/j", "Schemes/me/j", False, "Schemes/me/j", ""),
    ("Schemes/me/", "Schemes/me/", False, "Schemes/me/", ""),
    ("Schemes/me/SUCCESS", "Schemes/me/SUCCESS", False, "Schemes/me/SUCCESS", "SUCCESS"),
    ("Schemes/me/train/model.sav", "model.sav", False, "model.sav", "train"),
    ("Schemes/me/j/sub/file", "file", False, "file", "j/sub"),
    ("Schemes/prep/ctf/a.star", "CtfFind/job003/a.star", False, "CtfFind/job003/a.star", ""),
    ("Schemes/prep/noslash/a.star", "CtfFind/job004/a.star", False, "CtfFind/job004/a.star", ""),
    ("Schemes/prep/later/a.star", "Schemes/prep/later/a.star", True, "later/a.star", ""),
    ("Schemes/prep/SUCCESS", "Schemes/prep/SUCCESS", False, "Schemes/prep/SUCCESS", ""),
    ("Schemes/prep/unknown/a.star", "undefined/a.star", False, "undefined/a.star", ""),
    ("Schemes/prep/phantom/a.star", "undefined/a.star", False, "undefined/a.star", ""),
    ("Schemes/", "Schemes/", False, "Schemes/", ""),
]


@pytest.mark.parametrize(("value", "text", "pending", "relion", "phantom"), CASES)
def test_resolve(value, text, pending, relion, phantom):
    assert resolve(value, "Schemes/me/", JOBS, World()) == (text, pending, phantom)
    strict = resolve(value, "Schemes/me/", JOBS, World(), strict=True)
    assert strict == (relion, pending, phantom)


def test_a_phantom_row_of_before_is_no_job():
    jobs = {"train": JobRow("", "")}
    assert resolve("Schemes/me/train/a", "Schemes/me/", jobs, World(), strict=True).text == "a"


@pytest.mark.parametrize("strict", [False, True])
def test_a_scheme_that_does_not_exist_is_an_error(strict):
    for path in ("Schemes/gone/j/a.star", "Schemes/gone/SUCCESS"):
        with pytest.raises(SchemeError, match=r"Schemes/gone/scheme\.star does not exist"):
            resolve(path, "Schemes/me/", JOBS, World(), strict=strict)
    with pytest.raises(SchemeError, match=r"Schemes/bare/scheme\.star has no jobs"):
        resolve("Schemes/bare/j/a.star", "Schemes/me/", JOBS, World(), strict=strict)


def test_a_file_of_a_scheme_without_jobs_needs_no_job_table():
    path = "Schemes/bare/RELION_JOB_EXIT_SUCCESS"
    assert resolve(path, "Schemes/me/", JOBS, World()).text == path
    with pytest.raises(SchemeError, match="has no jobs"):
        resolve(path, "Schemes/me/", JOBS, World(), strict=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [(50, "50"), (0.885, "0.885"), (1234567, "1.23457e+06"), (-12.3456789, "-12.3457")],
)
def test_float_text_is_relions(value, text):
    assert float_text(value) == text


VARIABLES = State(
    current_node="",
    floats={"n": 50.0},
    bools={"yes": True, "no": False},
    strings={"name": "a b", "deep": "x $$name", "self": "$$self"},
    jobs=JOBS,
)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("--do_at_most $$n", "any", "--do_at_most 50"),
        ("$$n", "slider", "50"),
        ("$$yes", "boolean", "Yes"),
        ("$$no", "boolean", "No"),
        ("a $$n   b  c", "any", "a 50 b c"),
        ("$$deep", "any", "x a b"),
        ("$$n $$n", "any", "50 50"),
        ("no money: $", "any", "no money: $"),
    ],
)
def test_substitute(value, kind, text):
    assert substitute(value, "option", kind, VARIABLES) == text


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ("$$gone", "any", "no variable 'gone'"),
        ("$$n/b", "any", "no variable 'n/b'"),
        ("$$yes", "any", "another type"),
        ("$$n", "boolean", "another type"),
        ("$$name", "slider", "another type"),
        ("$$name", "boolean", "another type"),
        ("$$self", "any", "refers to itself"),
    ],
)
def test_substitution_that_cannot_be(value, kind, words):
    with pytest.raises(SchemeError, match=words) as caught:
        substitute(value, "fn_in", kind, VARIABLES)
    assert "'fn_in'" in str(caught.value)


def test_options_are_substituted_first_and_resolved_afterwards():
    state = State(current_node="", strings={"mics": "Schemes/me/j/mics.star"}, jobs=JOBS)
    options = {"fn_mic": "$$mics", "nr_mpi": "1"}
    filled = fill_options(options, {"nr_mpi": "slider"}, "Schemes/me/", state, World())
    assert filled == ({"fn_mic": "MotionCorr/job002/mics.star", "nr_mpi": "1"}, (), ())


def test_options_name_the_jobs_that_have_not_run_and_the_rows_that_relion_adds():
    state = State(
        current_node="", strings={"model": "Schemes/me/train/m.sav", "two": "$$model"}, jobs=JOBS
    )
    options = {
        "a": "$$two",
        "b": "Schemes/me/later/a.star",
        "c": "Schemes/prep/later/b.star",
        "d": "Schemes/me/later/c Schemes/me/later/d",
    }
    filled = fill_options(options, {}, "Schemes/me/", state, World())
    assert filled.options["a"] == "m.sav" and filled.options["b"] == options["b"]
    assert filled.phantoms == ()
    assert filled.pending == ("Schemes/me/later/", "Schemes/prep/later/")
    strict = fill_options(options, {}, "Schemes/me/", state, World(), strict=True)
    assert strict.options == {
        "a": "m.sav",
        "b": "latera.star",
        "c": "later/b.star",
        "d": "laterc laterd",
    }
    assert strict.phantoms == ("train",) and strict.pending == filled.pending


def test_a_circle_of_variables_is_an_error():
    state = State(current_node="", strings={"a": "x $$b", "b": "$$a y"}, jobs={})
    with pytest.raises(SchemeError, match=r"'fn_in'.*never stops growing"):
        fill_options({"fn_in": "$$a"}, {}, "Schemes/me/", state, World())
