"""Schemes as data: loading, checking, writing."""

import pytest
from msgspec import structs

from algorithms.formats import star
from schemer import check, starfile
from schemer.errors import SchemeError
from schemer.scheme import Edge, Operator
from schemer.state import apply, initial, set_move
from tests.shared import shared

SMALL = """
data_scheme_general
_rlnSchemeName Schemes/small
_rlnSchemeCurrentNodeName undefined

data_scheme_floats
loop_
_rlnSchemeFloatVariableName
_rlnSchemeFloatVariableValue
_rlnSchemeFloatVariableResetValue
wait_sec 60.0 180.
x 1 2

data_scheme_bools
loop_
_rlnSchemeBooleanVariableName
_rlnSchemeBooleanVariableValue
_rlnSchemeBooleanVariableResetValue
big 0 1

data_scheme_operators
loop_
_rlnSchemeOperatorName
_rlnSchemeOperatorType
_rlnSchemeOperatorOutput
_rlnSchemeOperatorInput1
_rlnSchemeOperatorInput2
WAIT wait undefined wait_sec undefined
CHECK bool=gt big x 10

data_scheme_jobs
loop_
_rlnSchemeJobNameOriginal
_rlnSchemeJobName
_rlnSchemeJobMode
_rlnSchemeJobHasStarted
work work continue 0

data_mine
_note "kept as it is"

data_scheme_edges
loop_
_rlnSchemeEdgeInputNodeName
_rlnSchemeEdgeOutputNodeName
_rlnSchemeEdgeIsFork
_rlnSchemeEdgeOutputNodeNameIfTrue
_rlnSchemeEdgeBooleanVariable
WAIT CHECK 0 undefined undefined
CHECK WAIT 1 work big
work WAIT 0 undefined undefined
"""


def small(old: str = "", new: str = ""):
    assert old in SMALL
    return starfile.from_tables(star.loads(SMALL.replace(old, new, 1) if old else SMALL), "s.star")


def test_values_and_reset_values_are_kept_apart():
    scheme = small()
    assert scheme.name == "Schemes/small/"
    assert scheme.current_node == scheme.start == scheme.home == "WAIT"
    assert initial(scheme).floats == {"wait_sec": 60.0, "x": 1.0}
    assert initial(scheme, reset=True).floats == {"wait_sec": 180.0, "x": 2.0}
    assert initial(scheme).bools == {"big": False}
    assert initial(scheme, reset=True).bools == {"big": True}


def test_dump_writes_the_state_and_keeps_unknown_blocks():
    scheme = small()
    state = initial(scheme)
    apply(state, set_move("float", "x", 12.5))
    apply(state, ("job", "work", "External/job004/"))
    text = starfile.dump(scheme, state)
    again = starfile.from_tables(star.loads(text), "s.star")
    assert again.floats["x"].value == 12.5 and again.floats["x"].reset == 2.0
    assert again.jobs["work"].current_name == "External/job004/"
    assert again.jobs["work"].has_started
    assert star.loads(text)["mine"].columns == {"note": ["kept as it is"]}
    assert next(iter(star.loads(text))) == "scheme_general"


def test_dump_sorts_names_and_keeps_edges_in_order():
    scheme = small()
    tables = star.loads(starfile.dump(scheme))
    operators = tables["scheme_operators"].strings("rlnSchemeOperatorName")
    assert operators == sorted(operators) == ["CHECK", "WAIT"]
    sources = tables["scheme_edges"].strings("rlnSchemeEdgeInputNodeName")
    assert sources == ["WAIT", "CHECK", "work"]


def test_the_last_of_two_edges_wins_and_is_reported():
    scheme = small()
    scheme = structs.replace(scheme, edges=(*scheme.edges, Edge("WAIT", "work")))
    assert scheme.next_node("WAIT", {"big": False}) == "work"
    assert any("2 edges leave 'WAIT'" in line for line in check.warnings(scheme))


def test_a_fork_follows_its_boolean():
    scheme = small()
    assert scheme.next_node("CHECK", {"big": True}) == "work"
    assert scheme.next_node("CHECK", {"big": False}) == "WAIT"


def test_a_literal_is_used_and_said_to_differ_from_relion():
    assert check.errors(small()) == []
    assert any("RELION takes it as 0" in line for line in check.warnings(small()))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("x 1 2", "x one 2", ["s.star", "scheme_floats", "'x'", "'one'", "write a number"]),
        ("big 0 1", "big maybe 1", ["scheme_bools", "'big'", "'maybe'", "write 0 or 1"]),
        (
            "work work continue 0",
            "work work often 0",
            ["scheme_jobs", "'often'", "new or continue"],
        ),
        ("x 1 2", "x 1 2\nx 2 3", ["scheme_floats", "'x'", "twice"]),
        ("data_scheme_general", "data_other", ["scheme_general"]),
        ("_rlnSchemeJobMode\n", "_rlnOther\n", ["scheme_jobs", "_rlnSchemeJobMode"]),
    ],
)
def test_values_that_cannot_be_read_are_named(old, new, words):
    with pytest.raises(SchemeError) as caught:
        small(old, new)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("CHECK bool=gt big x 10", "CHECK bool=larger big x 10", ["'CHECK'", "'bool=larger'"]),
        ("CHECK bool=gt big x 10", "CHECK bool=gt big y 10", ["'CHECK'", "'y'", "scheme_floats"]),
        ("CHECK bool=gt big x 10", "CHECK bool=gt x x 10", ["'x'", "bool variable", "output"]),
        ("WAIT CHECK 0", "WAIT CHUCK 0", ["scheme_edges", "'CHUCK'", "neither"]),
        ("work big", "work small", ["scheme_edges", "'small'", "boolean variable"]),
        ("Name undefined", "Name NOWHERE", ["scheme_general", "'NOWHERE'", "'WAIT'"]),
    ],
)
def test_names_that_do_not_fit_are_errors_with_a_remedy(old, new, words):
    found = [str(error) for error in check.errors(small(old, new))]
    assert len(found) >= 1
    for word in ["s.star", *words]:
        assert word in found[0]


def test_a_broken_operator_that_is_never_reached_is_only_a_warning():
    scheme = small()
    operators = scheme.operators | {"OLD": Operator("bool=not", "gone", "also_gone")}
    scheme = structs.replace(scheme, operators=operators)
    assert check.errors(scheme) == []
    assert any("never reached, and broken" in line for line in check.warnings(scheme))


def test_true_and_false_words_are_accepted():
    scheme = small("big 0 1", "big True False")
    assert scheme.bools["big"].value is True and scheme.bools["big"].reset is False


def test_a_phantom_job_row_of_relion_is_left_out():
    scheme = small("work work continue 0", 'work work continue 0\ntrain_topaz "" "" 1')
    assert set(scheme.jobs) == {"work"}


def test_load_names_a_missing_scheme(tmp_path):
    with pytest.raises(SchemeError, match="no such Scheme"):
        starfile.load(tmp_path / "nothing")


@pytest.mark.parametrize("folder", ["relion-5.0.1", "relion-4.0", "mdcatch-2.5", "traces"])
def test_every_shipped_scheme_survives_a_round_trip(folder):
    files = sorted(shared(f"data/schemes/{folder}").rglob("scheme*.star"))
    assert files
    for file in files:
        scheme = starfile.load(file)
        text = starfile.dump(scheme)
        again = starfile.from_tables(star.loads(text), str(file))
        assert again == scheme
        assert starfile.dump(again, initial(again)) == text


def test_what_relion_saved_we_save_with_the_same_values():
    file = shared("data/schemes/traces/T1-prep-one-pass/scheme.final.star")
    theirs, ours = star.load(file), star.loads(starfile.dump(starfile.load(file)))
    assert list(theirs) == list(ours)
    for name in theirs:
        assert theirs[name].columns == ours[name].columns
