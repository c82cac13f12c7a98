"""What operators compute, with the boundary cases of schemes.md section 3."""

import math

import pytest

from schemer.errors import SchemeError
from schemer.operators import OPERATORS, compute
from schemer.scheme import JobRow, Operator, Scheme
from schemer.state import State

COLUMNS = {("m.star", "t", "rlnA"): ["3.5", "-1", "7", "-1"], ("m.star", "t", "rlnB"): ["1", "x"]}


class World:
    """Facts written down in advance."""

    def file_exists(self, path):
        return path in ("there", "Import/job001/movies.star")

    def count_images(self, path, table):
        return {("p.star", "particles"): 12, ("p.star", "micrographs"): 3}.get((path, table), 0)

    def column(self, path, table, label):
        if (path, table, label) not in COLUMNS:
            raise SchemeError(f"{path} is not there")
        return COLUMNS[path, table, label]

    def glob(self, pattern):
        return {"*.tif": ["a.tif", "b.tif"]}.get(pattern, [])

    def job_table(self, scheme):
        return {"prep": {"ctffind": "CtfFind/job003/", "later": "later"}}.get(scheme)


def run(type_, a=None, b=None, out=None):
    """Compute one operator on values: numbers become float variables, texts string variables."""
    state = State(
        current_node="X",
        floats={"f": 0.0},
        bools={"b": False},
        strings={"s": "", "particles": "particles"},
        jobs={"import": JobRow("Import/job001/", "continue", True), "todo": JobRow("todo", "new")},
    )
    names = []
    for name, value in (("a", a), ("c", b)):
        kind = {bool: "bools", float: "floats", int: "floats", str: "strings"}.get(type(value))
        if kind:
            getattr(state, kind)[name] = float(value) if kind == "floats" else value
        names.append(name if kind else "undefined")
    output = out or {"bool": "b", "float": "f", "string": "s"}[type_.partition("=")[0]]
    scheme = Scheme(name="Schemes/me/", operators={"X": Operator(type_, output, *names)})
    kind, variable, value = compute(scheme, "X", state, World())
    assert (kind, variable) == (type_.partition("=")[0], output)
    return value


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
        ("bool=file_exists", "there", None, True),
        ("bool=file_exists", "", None, False),
        ("bool=file_exists", "Schemes/me/import/movies.star", None, True),
        ("bool=file_exists", "Schemes/me/todo/movies.star", None, False),
        ("bool=read_star", "m.star,t,rlnB", None, True),
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
        ("float=count_images", "p.star", "micrographs", 3.0),
        ("float=count_images", "p.star", None, 12.0),
        ("float=count_images", "q.star", None, 0.0),
        ("float=count_images", "Schemes/me/todo/p.star", None, 0.0),
        ("float=count_words", "undefined", None, 0.0),
        ("float=count_words", "", None, 0.0),
        ("float=count_words", "x,y,,z", None, 3.0),
        ("float=read_star", "m.star,t,rlnA", None, 3.5),
        ("float=read_star", "m.star,t,rlnA", 2, 7.0),
        ("float=star_table_max", "m.star,t,rlnA", None, 7.0),
        ("float=star_table_min", "m.star,t,rlnA", None, -1.0),
        ("float=star_table_avg", "m.star,t,rlnA", None, 2.125),
        ("float=star_table_sort_idx", "m.star,t,rlnA", 1, 1.0),
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
        ("string=read_star", "m.star,t,rlnB", 1, "x"),
        ("string=glob", "*.tif", None, "a.tif,b.tif"),
        ("string=glob", "*.eer", None, "undefined"),
        ("string=nth_word", "x,,y,z", 2, "y"),
        ("string=nth_word", "x,y,z", -1, "z"),
        ("string=nth_word", "x,y,z", 4, "undefined"),
        ("string=nth_word", "x,y,z", 0, "undefined"),
    ],
)
def test_value(type_, a, b, expected):
    value = run(type_, a, b)
    assert value == expected and type(value) is type(expected)


def test_zero_by_zero_is_not_a_number():
    assert math.isnan(run("float=divide", 0, 0))


def test_a_scheme_path_in_the_second_argument_is_resolved_in_place():
    assert run("string=join", "x:", "Schemes/me/import/m.star") == "x:Import/job001/m.star"


def test_a_literal_is_used_as_a_number():
    scheme = Scheme(name="Schemes/me/", operators={"X": Operator("float=plus", "f", "f", "10")})
    state = State(current_node="X", floats={"f": 2.0})
    assert compute(scheme, "X", state, World())[2] == 12.0


@pytest.mark.parametrize(
    ("type_", "a", "b", "words"),
    [
        ("float=read_star", "m.star,t", None, "file.star,tablename,label"),
        ("float=read_star", "m.star,t,rlnA", 4, "rows count from 0"),
        ("float=read_star", "m.star,t,rlnB", 1, "number is needed"),
        ("bool=read_star", "m.star,t,rlnB", 1, "0 or 1 is needed"),
        ("float=star_table_max", "gone.star,t,rlnA", None, "not there"),
        ("float=star_table_sort_idx", "m.star,t,rlnA", 0, "1 is the smallest"),
        ("bool=file_exists", "Schemes/gone/x/y", None, "does not exist"),
        ("bool=gt", "text", 1, "no float variable"),
    ],
)
def test_errors_name_scheme_and_operator(type_, a, b, words):
    with pytest.raises(SchemeError, match=words) as caught:
        run(type_, a, b)
    assert "Schemes/me/: operator 'X'" in str(caught.value)


def test_operators_that_change_files_are_known_but_not_executed():
    scheme = Scheme(name="Schemes/me/", operators={"X": Operator("touch_file", input1="s")})
    with pytest.raises(SchemeError, match="not executed by this version"):
        compute(scheme, "X", State(current_node="X", strings={"s": "f"}), World())


def test_every_type_of_relion_is_known():
    assert len(OPERATORS) == 11 + 15 + 9 + 8  # bool, float, string, others
