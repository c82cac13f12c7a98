"""Scheme paths and `$$variables`: schemes.md sections 4 and 5."""

import pytest

from schemer.errors import SchemeError
from schemer.resolve import fill_options, float_text, resolve, substitute
from schemer.scheme import JobRow
from schemer.state import State

JOBS = {"j": JobRow("MotionCorr/job002/", "continue", True), "later": JobRow("later", "new")}
OTHER = {"ctf": "CtfFind/job003/", "noslash": "CtfFind/job004", "later": "later"}


class World:
    def job_table(self, scheme):
        return OTHER if scheme == "prep" else None


@pytest.mark.parametrize(
    ("value", "text", "pending"),
    [
        ("plain/file.star", "plain/file.star", False),
        ("Schemes/me/j/a.star", "MotionCorr/job002/a.star", False),
        ("x=Schemes/me/j/a.star,y", "x=MotionCorr/job002/a.star,y", False),
        ("Schemes/me/j/a Schemes/me/j/b", "MotionCorr/job002/a MotionCorr/job002/b", False),
        ("Schemes/me/later/a.star", "Schemes/me/later/a.star", True),
        ("Schemes/me/RELION_JOB_EXIT_SUCCESS", "Schemes/me/RELION_JOB_EXIT_SUCCESS", False),
        ("Schemes/me/train/model.sav", "model.sav", False),
        ("Schemes/me/j/sub/file", "file", False),
        ("Schemes/prep/ctf/a.star", "CtfFind/job003/a.star", False),
        ("Schemes/prep/noslash/a.star", "CtfFind/job004/a.star", False),
        ("Schemes/prep/later/a.star", "Schemes/prep/later/a.star", True),
        ("Schemes/prep/RELION_JOB_EXIT_SUCCESS", "Schemes/prep/RELION_JOB_EXIT_SUCCESS", False),
        ("Schemes/prep/unknown/a.star", "undefined/a.star", False),
        ("Schemes/", "Schemes/", False),
    ],
)
def test_resolve(value, text, pending):
    assert resolve(value, "Schemes/me/", JOBS, World()) == (text, pending)


def test_a_scheme_that_does_not_exist_is_an_error():
    with pytest.raises(SchemeError, match=r"Schemes/gone/scheme\.star does not exist"):
        resolve("Schemes/gone/j/a.star", "Schemes/me/", JOBS, World())


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
    assert filled == {"fn_mic": "MotionCorr/job002/mics.star", "nr_mpi": "1"}
