"""What operators do, with the boundary cases and quirks of schemes.md sections 3, 4, 5 and 19."""

import math
import time

import pytest

from schemer.actions import CopyFile, DeleteFile, MoveFile, SendMail, TouchFile
from schemer.errors import MachineError, SchemeError
from schemer.operators import CLOCKED, OPERATORS, execute
from schemer.scheme import JobRow, Operator, Scheme
from schemer.state import State

NUMBERS = ["3.5", "-1", "7", "-1"]
COLUMNS = {
    ("m.star", "t", "rlnA"): NUMBERS,
    ("m.star", "t", "rlnEmpty"): [],
    ("m.star", "t", "rlnClassNumber"): ["12.", "x", "nan"],
    ("m.star", "t", "rlnMicrographName"): ["a.mrc", "b.mrc"],
    ("m.star", "t", "rlnHasConverged"): ["1", "0", "True", "2"],
    ("m.star", "t", "rlnNewText"): ["1", "some words"],
}
SCHEME_FILE = "Schemes/me/RELION_JOB_EXIT_SUCCESS"


class World:
    """Facts written down in advance."""

    there = ("there", "Import/job001/movies.star", "Schemes/prep/scheme.star")

    def file_exists(self, path):
        return path in self.there

    def count_images(self, path, table):
        return {("p.star", "particles"): 12, ("p.star", "micrographs"): 3}.get((path, table), 0)

    def column(self, path, table, label):
        if (path, table, label) not in COLUMNS:
            raise SchemeError(f"{path} is not there")
        return COLUMNS[path, table, label]

    def glob(self, pattern):
        return {"*.tif": ["a.tif", "b.tif"], "todo*": ["todofile"]}.get(pattern, [])

    def job_table(self, scheme):
        return {"prep": {"ctffind": "CtfFind/job003/", "later": "later"}}.get(scheme)


class Strange(World):
    """A file lies there under the name that RELION forms of a job that has not run."""

    there = (*World.there, "todomovies.star")


def state(**strings):
    return State(
        current_node="X",
        floats={"f": 0.0, "x": 5.0, "y": 2.0},
        bools={"b": False, "yes": True},
        strings={"s": "", "particles": "particles", **strings},
        jobs={"import": JobRow("Import/job001/", "continue", True), "todo": JobRow("todo", "new")},
    )


def scheme(type_, output="undefined", first="undefined", second="undefined"):
    return Scheme(
        name="Schemes/me/", operators={"X": Operator(type_, output, first, second)}, source="s.star"
    )


def outcome(type_, a=None, b=None, *, strict=False, world=None):
    """Execute one operator on values: numbers become float variables, texts string variables."""
    variables = state()
    names = []
    for name, value in (("a", a), ("c", b)):
        kind = {bool: "bools", float: "floats", int: "floats", str: "strings"}.get(type(value))
        if kind:
            getattr(variables, kind)[name] = float(value) if kind == "floats" else value
        names.append(name if kind else "undefined")
    output = {"bool": "b", "float": "f", "string": "s"}.get(type_.partition("=")[0], "undefined")
    return execute(scheme(type_, output, *names), "X", variables, world or World(), strict=strict)


def value(type_, a=None, b=None, *, strict=False):
    found = outcome(type_, a, b, strict=strict)
    ((kind, _, result),) = found.sets
    assert kind == type_.partition("=")[0] and found.effect is None
    return result


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("type_", "a", "b", "expected"),
    [
        ("bool=set", True, None, True),
        ("bool=and", True, False, False),
        ("bool=and", True, True, True),
        ("bool=or", True, False, True),
        ("bool=or", False, False, False),
        ("bool=not", True, None, False),
        ("bool=gt", 2, 1, True),
        ("bool=gt", 2, 2, False),
        ("bool=lt", 1, 2, True),
        ("bool=lt", 2, 2, False),
        ("bool=ge", 2, 2, True),
        ("bool=ge", 1, 2, False),
        ("bool=le", 2, 2, True),
        ("bool=le", 3, 2, False),
        ("bool=eq", 1.0, 1.0 + 1e-9, True),
        ("bool=eq", 1.0, 1.0 + 1e-7, False),
        ("bool=eq", math.inf, math.inf, False),
        ("bool=file_exists", "there", None, True),
        ("bool=file_exists", "", None, False),
        ("bool=file_exists", "Schemes/me/import/movies.star", None, True),
        ("bool=file_exists", "Schemes/me/todo/movies.star", None, False),
        ("bool=file_exists", "Schemes/prep/later/movies.star", None, False),
        ("bool=file_exists", "Schemes/prep/RELION_JOB_EXIT_SUCCESS", None, False),
        ("bool=read_star", "m.star,t,rlnHasConverged", None, True),
        ("bool=read_star", "m.star,t,rlnHasConverged", 1, False),
        ("bool=read_star", "m.star,t,rlnHasConverged", 3, True),
        ("float=set", 3.25, None, 3.25),
        ("float=plus", 1, 2.5, 3.5),
        ("float=minus", 1, 2.5, -1.5),
        ("float=mult", 2, 2.5, 5.0),
        ("float=divide", 5, 2, 2.5),
        ("float=divide", 5, 0, math.inf),
        ("float=divide", -5, 0, -math.inf),
        ("float=divide", 5, -0.0, -math.inf),
        ("float=round", 2.5, None, 3.0),
        ("float=round", -2.5, None, -3.0),
        ("float=round", 2.4999, None, 2.0),
        ("float=round", math.inf, None, math.inf),
        ("float=count_images", "p.star", "micrographs", 3.0),
        ("float=count_images", "p.star", None, 12.0),
        ("float=count_images", "p.star", 4, 12.0),  # Input2 is no string variable
        ("float=count_images", "q.star", None, 0.0),
        ("float=count_images", "Schemes/me/todo/p.star", None, 0.0),
        ("float=count_words", "undefined", None, 0.0),
        ("float=count_words", "", None, 0.0),
        ("float=count_words", "x,y,,z", None, 3.0),
        ("float=read_star", "m.star,t,rlnA", None, 3.5),
        ("float=read_star", "m.star,t,rlnA", 1.6, 7.0),
        ("float=read_star", "m.star,t,rlnClassNumber,more", None, 12.0),
        ("float=star_table_max", "m.star,t,rlnA", None, 7.0),
        ("float=star_table_min", "m.star,t,rlnA", None, -1.0),
        ("float=star_table_avg", "m.star,t,rlnA", None, 2.125),
        ("float=star_table_max", "m.star,t,rlnEmpty", None, -9.9e100),
        ("float=star_table_min", "m.star,t,rlnEmpty", None, 9.9e100),
        ("float=star_table_avg", "m.star,t,rlnEmpty", None, 0.0),
        ("float=star_table_sort_idx", "m.star,t,rlnA", 1, 1.0),  # ties: the lower row first
        ("float=star_table_sort_idx", "m.star,t,rlnA", 2, 3.0),
        ("float=star_table_sort_idx", "m.star,t,rlnA", -1, 2.0),
        ("string=set", "Schemes/me/import/movies.star", None, "Import/job001/movies.star"),
        ("string=set", "Schemes/me/import/$$name", None, "Import/job001/$$name"),
        ("string=join", "a/", "b", "a/b"),
        ("string=before_first", "a.b.c", ".", "a"),
        ("string=before_last", "a.b.c", ".", "a.b"),
        ("string=after_first", "a.b.c", ".", "b.c"),
        ("string=after_last", "a.b.c", ".", "c"),
        ("string=after_last", "abc", ".", "abc"),
        ("string=read_star", "m.star,t,rlnMicrographName", 1, "b.mrc"),
        ("string=glob", "*.tif", None, "a.tif,b.tif"),
        ("string=glob", "*.eer", None, "undefined"),
        ("string=nth_word", "x,,y,z", 2, "y"),
        ("string=nth_word", "x,y,z", 1.5, "y"),
        ("string=nth_word", "x,y,z", 4, "undefined"),
        ("string=nth_word", "x,y,z", 0, "undefined"),
        ("string=nth_word", "x,y,z", math.nan, "undefined"),
    ],
)
def test_value_in_both_modes(type_, a, b, expected, strict):
    result = value(type_, a, b, strict=strict)
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize("strict", [False, True])
def test_zero_by_zero_is_not_a_number(strict):
    assert math.isnan(value("float=divide", 0, 0, strict=strict))
    assert math.isnan(value("float=round", math.nan, strict=strict))


def test_a_small_negative_number_rounds_to_plain_zero():
    assert math.copysign(1, value("float=round", -0.3)) == 1


def test_what_equals_relion_brings_no_warning_or_row():
    for strict in (False, True):
        assert outcome("bool=gt", 2, 1, strict=strict).warnings == ()
        path = outcome("string=set", "Schemes/me/import/a", strict=strict)
        assert (path.warnings, path.phantoms) == ((), ())
    assert outcome("bool=file_exists", "Schemes/me/todo/movies.star").warnings == ()


# Where the modes differ


@pytest.mark.parametrize(
    ("type_", "strict", "safe"),
    [
        ("float=plus", 5.0, 15.0),
        ("float=mult", 0.0, 50.0),
        ("bool=gt", True, False),
        ("float=divide", math.inf, 0.5),
    ],
)
def test_a_literal_is_zero_in_relion(type_, strict, safe):
    output = "b" if type_[0] == "b" else "f"
    one = scheme(type_, output, "x", "10")
    assert execute(one, "X", state(), World(), strict=True).sets[0][2] == strict
    found = execute(one, "X", state(), World())
    assert found.sets[0][2] == safe
    assert "the number 10 in Input2 is used; RELION takes it as 0" in found.warnings


def test_a_literal_rank():
    words = scheme("string=nth_word", "s", "text", "2")
    strings = state(text="x,y")
    assert execute(words, "X", strings, World(), strict=True).sets == (
        ("string", "s", "undefined"),
    )
    assert execute(words, "X", strings, World()).sets == (("string", "s", "y"),)
    rank = scheme("float=star_table_sort_idx", "f", "text", "1")
    strings = state(text="m.star,t,rlnA")
    assert execute(rank, "X", strings, World()).sets == (("float", "f", 1.0),)
    with pytest.raises(SchemeError, match="rank 0"):
        execute(rank, "X", strings, World(), strict=True)


def test_words_count_from_the_end_only_here():
    assert value("string=nth_word", "x,y,z", -1, strict=True) == "undefined"
    found = outcome("string=nth_word", "x,y,z", -1)
    assert found.sets[0][2] == "z" and "RELION would give" in found.warnings[0]


def test_a_scheme_path_in_input2():
    path = "Schemes/me/import/m.star"
    # RELION stores the resolved copy in Input1.
    assert value("string=join", "x:", path, strict=True) == f"Import/job001/m.star{path}"
    found = outcome("string=join", "x:", path)
    assert found.sets[0][2] == "x:Import/job001/m.star"
    assert "in the place of Input1" in found.warnings[0]
    assert outcome("copy_file", "src", path, strict=True).effect == CopyFile(
        "Import/job001/m.star", path
    )
    assert outcome("move_file", "src", path).effect == MoveFile("src", "Import/job001/m.star")
    # Whatever the operator does with Input2.
    assert value("string=set", "text", path, strict=True) == "Import/job001/m.star"
    assert value("string=set", "text", path) == "text"
    assert value("float=count_images", "p.star", path, strict=True) == 0.0


def test_variables_that_are_not_there_come_into_being():
    not_ = scheme("bool=not", "fresh", "gone")
    assert execute(not_, "X", state(), World(), strict=True).sets == (
        ("bool", "gone", False),
        ("bool", "fresh", True),
    )
    compare = scheme("bool=ge", "b", "gone", "x")
    assert execute(compare, "X", state(), World(), strict=True).sets == (
        ("float", "gone", 0.0),
        ("bool", "b", False),
    )
    found = execute(compare, "X", state(), World())
    assert found.sets == (("bool", "b", False),)
    assert "no float variable 'gone', it is taken as 0" in found.warnings[0]
    with pytest.raises(SchemeError, match="no bool variable 'fresh'"):
        execute(not_, "X", state(), World())


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("type_", "output", "first", "second", "words"),
    [
        ("bool=and", "b", "yes", "gone", "no bool variable 'gone'"),
        ("bool=gt", "gone", "x", "y", "no bool variable 'gone'"),
        ("float=plus", "f", "gone", "x", "no float variable 'gone'"),
        ("float=plus", "f", "x", "particles", "no float variable 'particles'"),
        ("string=join", "s", "particles", "x", "no string variable 'x'"),
        ("touch_file", "undefined", "x", "undefined", "no string variable 'x'"),
    ],
)
def test_a_variable_that_relion_checks_must_be_there(type_, output, first, second, words, strict):
    with pytest.raises(SchemeError, match=words):
        execute(scheme(type_, output, first, second), "X", state(), World(), strict=strict)


@pytest.mark.parametrize(
    ("path", "strict", "safe"),
    [
        ("Schemes/me/todo/a.star", "todoa.star", "Schemes/me/todo/a.star"),
        ("Schemes/prep/later/a.star", "later/a.star", "Schemes/prep/later/a.star"),
    ],
)
def test_a_path_to_a_job_that_has_not_run(path, strict, safe):
    assert value("string=set", path, strict=True) == strict
    found = outcome("string=set", path)
    assert found.sets[0][2] == safe
    assert f"RELION would use {strict!r}" in found.warnings[0]


def test_a_job_that_has_not_run_has_no_files():
    path = "Schemes/me/todo/movies.star"
    strange = Strange()
    assert outcome("bool=file_exists", path, strict=True, world=strange).sets[0][2] is True
    found = outcome("bool=file_exists", path, world=strange)
    assert found.sets[0][2] is False
    assert "RELION would find 'todomovies.star'" in found.warnings[0]
    assert value("string=glob", "Schemes/me/todo/*", strict=True) == "todofile"
    found = outcome("string=glob", "Schemes/me/todo/*")
    assert found.sets[0][2] == "undefined" and "RELION would find 'todo*'" in found.warnings[0]
    for reader in ("float=read_star", "float=star_table_max"):
        with pytest.raises(SchemeError, match="names a job that has not run yet"):
            outcome(reader, "Schemes/me/todo/job.star,job,rlnJobType")


def test_files_of_a_job_that_has_not_run_are_not_touched():
    path = "Schemes/me/todo/job.star"  # the Scheme's own file of that name is not meant
    assert outcome("delete_file", path, strict=True).effect == DeleteFile("todojob.star")
    for type_, a, b in (
        ("delete_file", path, None),
        ("copy_file", path, "to"),
        ("copy_file", "from", path),
        ("move_file", path, "to"),
    ):
        found = outcome(type_, a, b)
        assert found.effect is None and "nothing is done" in found.warnings[-1]
    with pytest.raises(SchemeError, match="has not run yet"):
        outcome("touch_file", path)


@pytest.mark.parametrize(
    ("path", "row", "text"),
    [
        ("Schemes/me/train/model.sav", "train", "model.sav"),
        ("Schemes/me/import/sub/file", "import/sub", "file"),
        (SCHEME_FILE, "RELION_JOB_EXIT_SUCCESS", SCHEME_FILE),
    ],
)
def test_phantom_rows(path, row, text):
    found = outcome("string=set", path, strict=True)
    assert found.sets[0][2] == text and found.phantoms == (row,)
    found = outcome("string=set", path)
    assert found.sets[0][2] == text and found.phantoms == ()
    assert f"useless row {row!r}" in found.warnings[0]


def test_the_present_value_of_the_output_adds_a_row_too():
    one = scheme("string=set", "out", "particles")
    strings = state(out="Schemes/me/gone/x")
    found = execute(one, "X", strings, World(), strict=True)
    assert found.sets == (("string", "out", "particles"),) and found.phantoms == ("gone",)
    assert execute(one, "X", strings, World()).warnings == ()


def test_read_star_follows_the_label_in_relion():
    name = "m.star,t,rlnMicrographName"
    assert outcome("float=read_star", name, strict=True).sets == (("string", "f", "a.mrc"),)
    with pytest.raises(SchemeError, match=r"rlnMicrographName is a string label.*string=read_star"):
        outcome("float=read_star", name)
    flag = "m.star,t,rlnHasConverged"
    assert outcome("string=read_star", flag, strict=True).sets == (("bool", "s", True),)
    with pytest.raises(SchemeError, match="use bool=read_star"):
        outcome("string=read_star", flag)
    number = "m.star,t,rlnA"
    assert outcome("bool=read_star", number, strict=True).sets == (("float", "b", 3.5),)
    with pytest.raises(SchemeError, match="use float=read_star"):
        outcome("bool=read_star", number)


def test_a_label_of_a_later_version_may_be_text():
    assert value("string=read_star", "m.star,t,rlnNewText", 1) == "some words"


def test_cells_are_read_as_cpp_does_only_by_relion():
    text = "m.star,t,rlnClassNumber"
    assert value("float=read_star", text, 1, strict=True) == 0.0
    with pytest.raises(SchemeError, match="number is needed"):
        outcome("float=read_star", text, 1)
    assert value("float=star_table_max", text, strict=True) == 12.0
    with pytest.raises(SchemeError, match="'x' was read"):
        outcome("float=star_table_max", text)
    flags = "m.star,t,rlnHasConverged"
    assert value("bool=read_star", flags, 2, strict=True) is False
    assert value("bool=read_star", flags, 2) is True


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("type_", "a", "b", "words"),
    [
        ("float=read_star", "m.star,t", None, "file.star,tablename,label"),
        ("float=read_star", "m.star,,rlnA", None, "file.star,tablename,label"),
        ("float=read_star", "m.star,t,rlnA", 4, "rows count from 0"),
        ("float=read_star", "m.star,t,rlnA", -1, "rows count from 0"),
        ("float=read_star", "m.star,t,rlnA", math.inf, "rows count from 0"),
        ("float=star_table_max", "gone.star,t,rlnA", None, "not there"),
        ("float=star_table_avg", "m.star,t,rlnMicrographName", None, "a number is needed"),
        ("float=star_table_sort_idx", "m.star,t,rlnA", 0, "1 is the smallest"),
        ("float=star_table_sort_idx", "m.star,t,rlnA", 5, "rank 5 of 4"),
        ("bool=file_exists", "Schemes/gone/x/y", None, "does not exist"),
    ],
)
def test_errors_name_scheme_and_operator(type_, a, b, words, strict):
    with pytest.raises(SchemeError, match=words) as caught:
        outcome(type_, a, b, strict=strict)
    assert "Schemes/me/: operator 'X'" in str(caught.value)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "type_", ["float=star_table_max_idx", "float=star_table_min_idx", "bool=xor"]
)
def test_types_that_relion_cannot_execute(type_, strict):
    with pytest.raises(SchemeError, match="unrecognised Operator type"):
        execute(scheme(type_), "X", state(), World(), strict=strict)


@pytest.mark.parametrize("type_", CLOCKED)
def test_the_machines_own_operators(type_):
    with pytest.raises(MachineError, match="machine's own"):
        execute(scheme(type_), "X", state(), World())


# Effects


@pytest.mark.parametrize("strict", [False, True])
def test_file_operators_return_effects(strict):
    path = "Schemes/me/import/a b;c.star"
    real = "Import/job001/a b;c.star"
    for type_, a, b, effect in (
        ("touch_file", path, None, TouchFile(real)),
        ("copy_file", path, "to/", CopyFile(real, "to/")),
        ("move_file", path, "to", MoveFile(real, "to")),
        ("delete_file", path, None, DeleteFile(real)),
    ):
        found = outcome(type_, a, b, strict=strict)
        assert found.effect == effect and found.sets == () and found.warnings == ()


@pytest.mark.parametrize("strict", [False, True])
def test_mail_is_composed_only_for_someone(strict):
    one = scheme("email", first="x", second="yes")
    assert execute(one, "X", state(), World(), strict=strict).effect is None
    told = state(email="a@b.org", path="Schemes/me/import/m.star")
    assert execute(one, "X", told, World(), strict=strict).effect == SendMail(
        "a@b.org", "Schemer", ("input1: x = 5", "input2: yes = True")
    )
    one = scheme("email", first="path", second="undefined")
    assert execute(one, "X", told, World(), strict=strict).effect == SendMail(
        "a@b.org", "Schemer", ("input1: path = Import/job001/m.star",)
    )


def test_every_type_of_relion_is_known():
    assert len(OPERATORS) == 11 + 15 + 9 + 8  # bool, float, string, others


def test_an_operator_takes_a_few_microseconds():
    variables = state()
    one = scheme("float=plus", "f", "x", "y")
    begun = time.perf_counter()
    for _ in range(2000):
        execute(one, "X", variables, World())
    assert time.perf_counter() - begun < 2000 * 100e-6  # 2 us here; ten times slower is a bug
