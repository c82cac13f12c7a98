"""Any order of events keeps the walk's promises; its moves alone rebuild it."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemer import starfile
from schemer.errors import MachineError, SchemeError
from schemer.exchange import (
    AwaitInputs,
    Finish,
    Go,
    InputsThere,
    JobEnded,
    JobMade,
    MakeJob,
    Perform,
    Performed,
    Proceed,
    RunJob,
    Sleep,
    Stop,
    Woke,
)
from schemer.scheme import (
    BoolVariable,
    Edge,
    FloatVariable,
    JobRow,
    Operator,
    Scheme,
    StringVariable,
)
from schemer.walk import apply, begin, resume, step, validate

FLOATS, BOOLS, STRINGS = ("x", "y", "z"), ("p", "q"), ("s", "t", "u")
KINDS = (
    "float=plus float=minus float=set bool=gt bool=eq bool=not bool=and string=join "
    "string=nth_word string=set string=glob string=after_first bool=file_exists "
    "float=count_images float=count_words wait exit_maxtime touch_file delete_file copy_file "
    "email exit"
).split()
small = st.integers(-3, 3).map(float)
words = st.sampled_from(["", "a", "a,b,c", "Schemes/w/J0/file.star", "Schemes/w/none/f", "raw/*"])


class World:
    """Answers by turns, so that looking twice may tell two things."""

    def __init__(self):
        self.looks = 0

    def file_exists(self, path):
        self.looks += 1
        return self.looks % 3 == 0

    def count_images(self, path, table):
        self.looks += 1
        return self.looks % 5

    def column(self, path, table, label):
        raise SchemeError(f"{path} is not there")

    def glob(self, pattern):
        return ["raw/1", "raw/2"]

    def job_table(self, scheme):
        return None


@st.composite
def operators(draw):
    kind = draw(st.sampled_from(KINDS))
    one = {"f": st.sampled_from(FLOATS), "b": st.sampled_from(BOOLS), "s": st.sampled_from(STRINGS)}
    none = st.just("undefined")
    output, first, second = none, one["s"], none
    if kind.startswith(("float=", "bool=", "string=")):
        output = one[kind[0]]
    if kind in ("float=plus", "float=minus", "bool=gt", "bool=eq"):
        first, second = one["f"], one["f"]
    elif kind in ("float=set", "wait", "exit_maxtime"):
        first = one["f"]
    elif kind in ("bool=not", "bool=and"):
        first, second = one["b"], one["b"]
    elif kind == "string=nth_word":
        second = one["f"]
    elif kind in ("string=join", "copy_file", "string=after_first", "float=count_images"):
        second = one["s"]
    return Operator(kind, draw(output), draw(first), draw(second))


@st.composite
def schemes(draw):
    nodes = draw(st.lists(operators(), min_size=1, max_size=6))
    modes = draw(st.lists(st.sampled_from(["new", "continue"]), min_size=1, max_size=3))
    names = [f"O{i}" for i in range(len(nodes))] + [f"J{i}" for i in range(len(modes))]
    target = st.sampled_from([*names, names[0], "undefined"])
    edges = []
    for name in names:
        if draw(st.booleans()):
            boolean = draw(st.sampled_from(BOOLS))
            edges.append(Edge(name, draw(target), True, draw(target), boolean))
        else:
            edges.append(Edge(name, draw(target)))
    return Scheme(
        name="Schemes/w/",
        current_node=draw(st.sampled_from(names)),
        floats={name: FloatVariable(draw(small), draw(small)) for name in FLOATS},
        bools={name: BoolVariable(draw(st.booleans()), False) for name in BOOLS},
        strings={name: StringVariable(draw(words), "") for name in STRINGS},
        operators={f"O{i}": node for i, node in enumerate(nodes)},
        jobs={f"J{i}": JobRow(f"J{i}", mode) for i, mode in enumerate(modes)},
        edges=tuple(edges),
        source="w.star",
    )


def answers(instruction, at, draw):
    """Return the stimulus that answers an instruction, sometimes one that does not fit."""
    if draw(st.integers(0, 15)) == 0:
        return draw(
            st.sampled_from(
                [Stop("aborted", at), Woke(at), JobMade("X/job009/", at), JobEnded("Failed", at)]
            )
        )
    match instruction:
        case Proceed():
            return Go(at)
        case Perform():
            return Performed(at)
        case Sleep():
            return Woke(at, draw(st.sampled_from(["deadline", "data", "abort"])))
        case MakeJob(visit=visit):
            return JobMade(f"External/job{visit:03d}/", at)
        case AwaitInputs():
            return draw(st.sampled_from([InputsThere(at), InputsThere(at), Stop("aborted", at)]))
        case RunJob():
            status = draw(st.sampled_from(["Succeeded"] * 6 + ["Failed", "Aborted"]))
            return JobEnded(status, at)
    raise AssertionError(instruction)


@given(schemes(), st.booleans(), st.data())
@settings(max_examples=150)
def test_any_order_of_events_keeps_the_invariants(scheme, strict, data):
    walk, again, world = begin(scheme), begin(scheme), World()
    instruction, at = Proceed(), 1000.0
    for _ in range(40):
        at += data.draw(st.sampled_from([0.0, 0.3, 5.0, 4000.0]))
        stimulus = answers(instruction, at, data.draw)
        before = msgspec.json.encode(walk)
        try:
            answer = step(scheme, walk, stimulus, world, strict=strict)
        except (MachineError, SchemeError):
            assert msgspec.json.encode(walk) == before, "a refused stimulus changed the walk"
            if isinstance(stimulus, Stop | Go):
                return  # the shell ends here
            continue
        assert msgspec.json.encode(walk) == before, "step changed the walk"
        for move in answer.moves:
            assert all(isinstance(word, str) for word in move)
            apply(walk, move)
            apply(again, move)
        validate(scheme, walk)
        assert walk == again
        instruction = answer.instruction
        if isinstance(instruction, Finish):
            assert walk.state.ended == instruction.reason
            return
        if walk.phase in ("ready", "sleep", "inputs", "job"):
            assert type(resume(walk, scheme, strict=strict)) is type(instruction)


@given(schemes())
def test_what_is_written_is_read_again(scheme):
    text = starfile.dump(scheme)
    back = starfile.from_tables(starfile.star.loads(text), "w.star")
    assert back == scheme
    assert starfile.dump(back) == text
