"""What is refused at load, what is only told, in both modes: schemes.md sections 2, 3 and 19."""

import time
from itertools import pairwise

import pytest
from msgspec import structs

from schemer import check, starfile
from schemer.scheme import (
    BoolVariable,
    Edge,
    FloatVariable,
    JobRow,
    Operator,
    Scheme,
    StringVariable,
)
from tests.shared import shared


def base(**operators: Operator) -> Scheme:
    """Return WAIT -> X -> work -> WAIT, X being the operators in a row."""
    names = ["WAIT", *operators, "work", "WAIT"]
    return Scheme(
        name="Schemes/me/",
        current_node="WAIT",
        floats={"wait_sec": FloatVariable(10, 10), "x": FloatVariable(1, 1)},
        bools={"b": BoolVariable(True, True)},
        strings={"s": StringVariable("text", "text"), "t": StringVariable("a b", "a b")},
        operators={"WAIT": Operator("wait", input1="wait_sec"), **operators},
        jobs={"work": JobRow("work", "new")},
        edges=tuple(Edge(a, b) for a, b in pairwise(names)),
        source="Schemes/me/scheme.star",
    )


def errors(scheme, *, strict=False):
    return [str(error) for error in check.errors(scheme, strict=strict)]


def told(scheme, words):
    return any(words in line for line in check.warnings(scheme))


def test_a_sound_scheme_has_nothing_to_tell():
    scheme = base(X=Operator("bool=gt", "b", "x", "wait_sec"))
    assert errors(scheme) == errors(scheme, strict=True) == check.warnings(scheme) == []


# type, output, input1, input2, refused in safe mode, refused in strict mode
ARGUMENTS = [
    ("bool=set", "gone", "b", "undefined", True, True),
    ("bool=set", "b", "gone", "undefined", True, True),
    ("bool=and", "b", "b", "gone", True, True),
    ("bool=not", "gone", "b", "undefined", True, False),
    ("bool=not", "b", "gone", "undefined", True, False),
    ("bool=gt", "b", "gone", "x", True, False),
    ("bool=gt", "gone", "x", "x", True, True),
    ("bool=gt", "b", "x", "gone", True, True),
    ("bool=gt", "b", "x", "10", False, False),
    ("bool=gt", "b", "x", "-1.5e3", False, False),
    ("bool=gt", "b", "x", "1_000", True, True),
    ("bool=gt", "b", "x", "nan", True, True),
    ("bool=gt", "b", "10", "x", True, False),
    ("bool=file_exists", "b", "gone", "undefined", True, True),
    ("bool=read_star", "b", "s", "gone", False, False),
    ("float=set", "x", "s", "undefined", True, True),
    ("float=plus", "x", "x", "s", True, True),
    ("float=plus", "x", "x", "3", False, False),
    ("float=count_images", "x", "s", "gone", False, False),
    ("float=star_table_sort_idx", "x", "s", "gone", True, True),
    ("string=join", "s", "s", "x", True, True),
    ("string=join", "s", "s", "s", False, False),
    ("string=nth_word", "s", "s", "2", False, False),
    ("touch_file", "undefined", "gone", "undefined", True, True),
    ("copy_file", "undefined", "s", "gone", True, True),
    ("delete_file", "undefined", "s", "gone", False, False),
    ("email", "gone", "gone", "gone", False, False),
    ("wait", "gone", "gone", "undefined", True, False),
    ("wait", "gone", "wait_sec", "undefined", False, False),
    ("exit_maxtime", "undefined", "gone", "undefined", True, True),
    ("exit", "gone", "gone", "gone", False, False),
    ("float=star_table_max_idx", "gone", "gone", "gone", True, False),
    ("bool=xor", "b", "b", "b", True, True),
]


@pytest.mark.parametrize(("type_", "output", "first", "second", "safe", "strict"), ARGUMENTS)
def test_arguments(type_, output, first, second, safe, strict):
    scheme = base(X=Operator(type_, output, first, second))
    assert bool(errors(scheme)) == safe
    assert bool(errors(scheme, strict=True)) == strict
    for line in errors(scheme) + errors(scheme, strict=True):
        assert line.startswith("Schemes/me/scheme.star: scheme_operators, row 'X': value ")
        assert "; " in line  # the remedy


def test_what_is_never_reached_is_told_and_refused_only_by_relion():
    scheme = base()
    scheme = structs.replace(
        scheme,
        operators={**scheme.operators, "OLD": Operator("bool=set", "b", "gone")},
        jobs={**scheme.jobs, "spare": JobRow("spare", "new")},
        edges=(*scheme.edges, Edge("OLD", "NOWHERE"), Edge("spare", "a", True, "b", "gone")),
    )
    assert errors(scheme) == []
    assert len(errors(scheme, strict=True)) == 1
    lines = check.warnings(scheme)
    assert sum("never reached, and broken" in line for line in lines) == 5
    assert not told(scheme, "operator 'OLD' is never reached")
    idle = structs.replace(scheme, edges=scheme.edges[:2])
    assert told(idle, "job 'spare' is never reached")


@pytest.mark.parametrize(
    ("edge", "words"),
    [
        (Edge("work", "NOWHERE"), ["'work -> NOWHERE'", "'NOWHERE'", "correct the name"]),
        (Edge("work", "WAIT", True, "NOWHERE", "b"), ["'NOWHERE'", "neither"]),
        (Edge("work", "WAIT", True, "WAIT", "gone"), ["'gone'", "add it to scheme_bools"]),
    ],
)
def test_edges_that_are_followed_must_lead_somewhere(edge, words):
    scheme = base()
    scheme = structs.replace(scheme, edges=(*scheme.edges[:-1], edge))
    (line,) = errors(scheme)
    assert all(word in line for word in ["scheme.star: scheme_edges", *words])
    assert errors(scheme, strict=True) == []
    # A later edge of the same node is followed instead.
    assert errors(structs.replace(scheme, edges=(*scheme.edges, Edge("work", "WAIT")))) == []


def test_an_edge_to_undefined_ends_the_scheme():
    scheme = base()
    ends = structs.replace(scheme, edges=(Edge("WAIT", "work"), Edge("work", "undefined")))
    assert errors(ends) == [] and check.warnings(ends) == []


def test_the_start_must_be_somewhere():
    scheme = base()
    assert "add an edge" in errors(structs.replace(scheme, edges=()))[0]
    lost = structs.replace(scheme, edges=(Edge("undefined", "WAIT"), *scheme.edges))
    assert any("begins nowhere" in line for line in errors(lost))
    astray = structs.replace(scheme, current_node="NOWHERE")
    assert "'NOWHERE'" in errors(astray)[0] and "set it to 'WAIT'" in errors(astray)[0]
    twice = structs.replace(scheme, jobs={**scheme.jobs, "WAIT": JobRow("WAIT", "new")})
    assert "is also an operator" in errors(twice)[-1]


def test_a_loop_that_nothing_ends_is_told():
    loop = {
        "A": Operator("float=plus", "x", "x", "x"),
        "B": Operator("bool=not", "b", "b"),
    }
    scheme = base(**loop)
    assert not told(scheme, "for ever")
    edges = (Edge("WAIT", "A"), Edge("A", "B"), Edge("B", "A", True, "A", "b"))
    trapped = structs.replace(scheme, edges=edges)
    assert told(trapped, "from 'A', 'B' the Scheme goes round for ever")
    for way_out in ("WAIT", "work", "undefined"):
        edges = (Edge("WAIT", "A"), Edge("A", "B"), Edge("B", "A", True, way_out, "b"))
        assert not told(structs.replace(scheme, edges=edges), "for ever")
    many = {f"N{number:02d}": Operator("bool=not", "b", "b") for number in range(20)}
    scheme = base(**many)
    edges = (*scheme.edges[:-2], Edge("N19", "N00"))
    assert told(structs.replace(scheme, edges=edges), "'N07' and 12 more the Scheme goes round")


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        (Operator("bool=gt", "b", "x", "10"), "RELION takes it as 0"),
        (Operator("string=nth_word", "s", "s", "minus"), "word -2 counts from the end"),
        (Operator("string=join", "s", "s", "path"), "in the place of Input1"),
        (Operator("copy_file", input1="t", input2="s"), "'a b' is one name here"),
        (Operator("delete_file", input1="t"), "'a b' is one name here"),
        (Operator("email", input1="x"), "without the string variable email"),
        (Operator("float=count_images", "x", "s", "mics"), "so the table particles is counted"),
        (Operator("float=read_star", "x", "name"), "use string=read_star"),
        (Operator("string=read_star", "s", "flag"), "use bool=read_star"),
    ],
)
def test_operators_that_differ_from_relions(operator, words):
    scheme = base(X=operator)
    more = {
        "path": "Schemes/me/work/a.star",
        "name": "a.star,t,rlnMicrographName",
        "flag": "a.star,t,rlnHasConverged",
    }
    scheme = structs.replace(
        scheme,
        strings=scheme.strings | {name: StringVariable(text, text) for name, text in more.items()},
        floats=scheme.floats | {"minus": FloatVariable(-2, -2)},
    )
    (line,) = check.warnings(scheme)
    assert line.startswith("operator 'X': ") and words in line
    assert errors(scheme) == []


def test_names_paths_and_notes_are_told():
    scheme = base(X=Operator("bool=set", "b", "b"))
    odd = structs.replace(
        scheme,
        strings={
            "x": StringVariable("Schemes/me/train/a.sav", ""),
            "y": StringVariable("", "Schemes/me/trial/b.sav"),
            "z": StringVariable("Schemes/me/work/c.sav", "Schemes/me/SUCCESS"),
        },
        edges=(*scheme.edges, Edge("work", "WAIT")),
        notes=("scheme_bools, row 'b': the word True is read as 1",),
    )
    assert told(odd, "the name 'x' is used 2 times")
    assert told(odd, "'x' names the job 'train'") and told(odd, "'y' names the job 'trial'")
    assert not told(odd, "'z' names")
    assert told(odd, "2 edges leave 'work'")
    assert told(odd, "Schemes/me/scheme.star: scheme_bools, row 'b': the word True")
    first = structs.replace(scheme, edges=scheme.edges[1:], current_node="X")
    assert told(first, "the first edge leaves 'X', not a wait")


@pytest.mark.parametrize(
    "name", ["relion-5.0.1/prep", "relion-5.0.1/proc", "mdcatch-2.5/proc-cryolo"]
)
def test_shipped_schemes_have_no_errors(name):
    scheme = starfile.read(shared(f"data/schemes/{name}"))
    assert errors(scheme) == errors(scheme, strict=True) == []


def test_a_huge_scheme_is_checked_in_a_moment():
    count = 20_000
    wrong = {f"N{number}": Operator("bool=set", "b", "gone") for number in range(count)}
    scheme = base(**wrong)
    edges = tuple(Edge(f"N{number}", f"gone{number}") for number in range(count))
    scheme = structs.replace(scheme, edges=(*scheme.edges, *edges))
    begun = time.perf_counter()
    check.errors(scheme)
    check.warnings(scheme)
    assert time.perf_counter() - begun < 5.0
