"""Any text survives scheme.star; any order of events keeps the machine's promises."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.formats import star
from schemer import check, starfile
from schemer.machine import (
    Abort,
    DataArrived,
    JobDone,
    JobFailed,
    Restart,
    Tick,
    apply,
    at_jobs,
    initial,
    step,
    validate,
)
from schemer.resolve import resolve
from schemer.scheme import (
    BoolVariable,
    Edge,
    FloatVariable,
    JobRow,
    Operator,
    Scheme,
    StringVariable,
)

names = st.text("abcdefghijk_", min_size=1, max_size=6)
texts = st.text(
    st.characters(
        codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\"'"
    ),
    max_size=12,
).filter(lambda text: text == text.strip() and "  " not in text and text == " ".join(text.split()))
numbers = (
    st.floats(-99_999, 99_999)
    .map(lambda x: round(x, 3) + 0.0)
    .filter(lambda x: x == 0 or abs(x) >= 0.001)
)


@st.composite
def schemes(draw):
    jobs = draw(
        st.dictionaries(names, st.sampled_from(["new", "continue"]), min_size=1, max_size=4)
    )
    nodes = ["WAIT", *(f"J{name}" for name in jobs)]
    bools = draw(st.dictionaries(names, st.booleans(), min_size=1, max_size=3))
    edges = [Edge("WAIT", draw(st.sampled_from(nodes)))]
    for node in nodes[1:]:
        target, other = draw(st.sampled_from(nodes)), draw(st.sampled_from(nodes))
        fork = draw(st.booleans())
        boolean = draw(st.sampled_from(sorted(bools)))
        edges.append(Edge(node, target, True, other, boolean) if fork else Edge(node, target))
    return Scheme(
        name=f"Schemes/{draw(names)}/",
        current_node="WAIT",
        floats={
            f"f{name}": FloatVariable(value, -value + 0.0)
            for name, value in draw(st.dictionaries(names, numbers, max_size=4)).items()
        }
        | {"wait_sec": FloatVariable(10.0, 20.0)},
        bools={name: BoolVariable(value, not value) for name, value in bools.items()},
        strings={
            f"s{name}": StringVariable(value, value[::-1].strip())
            for name, value in draw(st.dictionaries(names, texts, max_size=4)).items()
        },
        operators={"WAIT": Operator("wait", input1="wait_sec")},
        jobs={f"J{name}": JobRow(f"J{name}", mode) for name, mode in jobs.items()},
        edges=tuple(edges),
        source="s.star",
    )


@given(schemes())
def test_what_is_written_is_read_again(scheme):
    assert check.errors(scheme) == []
    again = starfile.from_tables(star.loads(starfile.dump(scheme)), "s.star")
    assert again == scheme
    assert starfile.dump(again, initial(scheme)) == starfile.dump(scheme)


class NoWorld:
    """The random Schemes have no operator that asks."""


events = st.lists(
    st.tuples(
        st.sampled_from(["data", "data", "tick", "done", "done", "done", "fail", "abort"]),
        st.integers(0, 3),
        st.floats(0, 30),
    ),
    max_size=40,
)


def _stimulus(state, kind, choice, now, counter):
    inside = sorted(at_jobs(state))
    if kind == "data":
        return DataArrived(tuple(f"m{counter}.{k}" for k in range(choice)), at=now)
    if kind == "tick" or (kind in ("done", "fail") and not inside):
        return Tick(at=now)
    if kind == "abort":
        return Restart(at=now) if state.ended else Abort(at=now) if choice == 0 else Tick(at=now)
    number = inside[choice % len(inside)]
    items = state.passes[number].items
    if kind == "fail":
        return JobFailed(number, "why", at=now)
    return JobDone(number, items[: max(0, len(items) - (choice == 3))], at=now)


@settings(deadline=None)
@given(schemes(), events)
def test_any_order_of_events_keeps_the_invariants_and_replays_exactly(scheme, events):
    state, replayed, now = initial(scheme), initial(scheme), 0.0
    for counter, (kind, choice, pause) in enumerate(events):
        now += pause
        stimulus = _stimulus(state, kind, choice, now, counter)
        moves = step(scheme, state, stimulus, NoWorld())
        expected = _expected_items(state, stimulus, moves)
        for move in moves:
            apply(state, move)
        for move in msgspec.json.decode(msgspec.json.encode(moves), type=list[tuple[str, ...]]):
            apply(replayed, move)
        validate(scheme, state)
        assert replayed == state
        assert sorted(item for one in state.passes.values() for item in one.items) == expected


def _expected_items(state, stimulus, moves):
    """Return the items that must be under way after the moves: none lost, none twice."""
    carried = {number: list(one.items) for number, one in state.passes.items()}
    if isinstance(stimulus, JobDone):
        carried[stimulus.pass_id] = list(stimulus.items)
    if isinstance(stimulus, DataArrived) and moves:
        carried[state.next_pass] = list(stimulus.items)
    for move in moves:
        if move[0] == "end" and "merged" not in move[2]:
            carried.pop(int(move[1]), None)
    return sorted(item for items in carried.values() for item in items)


@given(texts, names)
def test_a_text_without_a_scheme_path_is_left_alone(text, name):
    if "Schemes/" not in text:
        assert resolve(text, f"Schemes/{name}/", {}, NoWorld()).text == text
