"""The machine: RELION's traces with one pass, and the rules for several."""

import math

import msgspec
import pytest
from msgspec import structs

from schemer import templates
from schemer.errors import MachineError
from schemer.machine import (
    Abort,
    DataArrived,
    JobDone,
    JobFailed,
    JobStarted,
    Restart,
    Tick,
    apply,
    at_jobs,
    initial,
    step,
    validate,
    wait_deadline,
)
from schemer.scheme import BoolVariable, Edge, FloatVariable, JobRow, Operator, Scheme
from schemer.starfile import load
from schemer.state import State, copy, set_move
from tests.shared import shared

TRACES = "data/schemes/traces"


class World:
    """The stub jobs of trace T3, as facts: 15 of 20 micrographs are good, half the particles."""

    def file_exists(self, path):
        return path == "CtfFind/job003/micrographs_ctf.star"

    def count_images(self, path, table):
        return {
            ("Select/job004/micrographs.star", "micrographs"): 15,
            ("Select/job008/particles.star", "particles"): 750,
        }.get((path, table), 0)

    def job_table(self, scheme):
        return {"ctffind": "CtfFind/job003/"} if scheme == "prep" else None


class Driver:
    """Steps a machine, checks its invariants, and keeps the moves."""

    def __init__(self, scheme, world=None):
        self.scheme, self.world = scheme, world or World()
        self.state = initial(scheme)
        self.start = copy(self.state)
        self.moves = []

    def send(self, stimulus):
        before = msgspec.json.encode(self.state)
        moves = step(self.scheme, self.state, stimulus, self.world)
        assert msgspec.json.encode(self.state) == before, "step changed the state"
        for move in moves:
            assert all(isinstance(word, str) for word in move)
            apply(self.state, move)
        validate(self.scheme, self.state)
        self.moves += moves
        return moves

    def visited(self):
        return [self.start.current_node] + [move[2] for move in self.moves if move[0] == "goto"]


def run_alone(driver, folders, first_number=1, passes=99):
    """Run pass after pass, each job done at once, until the machine ends."""
    number, now = first_number, 1000.0
    while not driver.state.ended and passes:
        driver.send(Tick(at=now))
        passes -= 1
        while at_jobs(driver.state):
            ((pass_id, node),) = at_jobs(driver.state).items()
            row = driver.state.jobs[node]
            if row.mode == "new" or not row.has_started:
                driver.send(JobStarted(node, f"{folders[node]}/job{number:03d}/"))
                number += 1
            driver.send(JobDone(pass_id, driver.state.passes[pass_id].items, at=now))
        now += 1.0


def as_traced(folder, trace):
    """Return the shipped Scheme with the edits of the traces: no wait, stop at the second visit."""
    scheme = load(shared(f"data/schemes/relion-5.0.1/{folder}"))
    edits = {"maxtime_hr": FloatVariable(-1.0, 48.0), "wait_sec": FloatVariable(0.0, 180.0)}
    nodes = shared(f"{TRACES}/{trace}/nodes.txt").read_text().split()
    return structs.replace(scheme, floats=scheme.floats | edits), nodes


PREP = {"importmovies": "Import", "motioncorr": "MotionCorr", "ctffind": "CtfFind"}
PROC = {
    "select_mics": "Select",
    "autopick": "AutoPick",
    "extract": "Extract",
    "class2d": "Class2D",
    "select_parts": "Select",
}


def assert_ends_like(state, trace):
    """Compare variables, job table and current node with the file RELION left."""
    theirs = load(shared(f"{TRACES}/{trace}/scheme.final.star"))
    for kind in ("floats", "bools", "strings"):
        values = {name: variable.value for name, variable in getattr(theirs, kind).items()}
        # The traces' edit of do_at_most does not matter to the machine.
        values.pop("do_at_most", None)
        assert {k: v for k, v in getattr(state, kind).items() if k != "do_at_most"} == values
    assert state.jobs == theirs.jobs
    assert state.current_node == theirs.current_node


def test_prep_visits_the_nodes_of_relions_trace():
    scheme, nodes = as_traced("prep", "T1-prep-one-pass")
    driver = Driver(scheme)
    run_alone(driver, PREP)
    assert driver.visited() == nodes
    assert driver.state.ended == "maxtime"
    assert_ends_like(driver.state, "T1-prep-one-pass")


def test_proc_visits_the_nodes_of_relions_trace():
    scheme, nodes = as_traced("proc", "T3-proc-2d-only")
    driver = Driver(scheme)
    run_alone(driver, PROC, first_number=4)
    assert driver.visited() == nodes
    assert_ends_like(driver.state, "T3-proc-2d-only")


def test_three_passes_and_an_abort_follow_relions_trace():
    scheme, nodes = as_traced("prep", "T2-prep-three-passes-abort")
    scheme = structs.replace(
        scheme, floats=scheme.floats | {"maxtime_hr": FloatVariable(48.0, 48.0)}
    )
    driver = Driver(scheme)
    run_alone(driver, PREP, passes=3)
    driver.send(Abort(at=2000.0))
    assert driver.visited() == nodes
    assert driver.state.ended == "abort" and driver.state.current_node == "WAIT"
    numbers = [move[2] for move in driver.moves if move[0] == "job"]
    assert numbers == ["Import/job001/", "MotionCorr/job002/", "CtfFind/job003/"]


@pytest.fixture
def prep(tmp_path):
    return Driver(load(templates.install(tmp_path, "prep")))


def line(mode="new", **jobs):
    """Return WAIT -> one job -> WAIT, with a one-hour wait."""
    return Scheme(
        name="Schemes/line/",
        current_node="WAIT",
        floats={"wait_sec": FloatVariable(60.0, 60.0), "since": FloatVariable(0.0, 0.0)},
        operators={"WAIT": Operator("wait", "since", "wait_sec")},
        jobs={"work": JobRow("work", mode), **jobs},
        edges=(Edge("WAIT", "work"), Edge("work", "WAIT")),
    )


def test_data_ends_the_wait_at_once_and_carries_its_items(prep):
    prep.send(DataArrived(("m1", "m2"), at=5.0))
    assert at_jobs(prep.state) == {1: "importmovies"}
    assert prep.state.passes[1].items == ("m1", "m2")
    assert prep.state.wait_ended_at == 5.0


def test_several_passes_are_inside_jobs_at_once(prep):
    prep.send(DataArrived(("a",), at=1.0))
    prep.send(JobDone(1, ("a",), at=1.0))
    prep.send(DataArrived(("b",), at=2.0))
    prep.send(JobDone(2, ("b",), at=2.0))
    prep.send(DataArrived(("c",), at=3.0))
    assert at_jobs(prep.state) == {1: "motioncorr", 2: "motioncorr", 3: "importmovies"}
    prep.send(JobDone(2, ("b",), at=4.0))  # the later one overtakes
    assert at_jobs(prep.state) == {1: "motioncorr", 2: "ctffind", 3: "importmovies"}
    assert prep.state.current_node == "ctffind"


def test_only_survivors_go_on(prep):
    prep.send(DataArrived(("a", "b"), at=1.0))
    prep.send(JobDone(1, ("b",), at=2.0))
    assert prep.state.passes[1].items == ("b",)


def test_a_pass_ends_when_it_is_home(prep):
    prep.send(DataArrived(("a",), at=1.0))
    for _ in range(3):
        prep.send(JobDone(1, ("a",), at=2.0))
    assert prep.state.passes == {}
    assert prep.moves[-1] == ("end", "1", "home")
    assert prep.state.current_node == "WAIT"


def test_a_tick_starts_an_empty_pass_only_past_the_deadline_and_alone():
    driver = Driver(line())
    assert wait_deadline(driver.scheme, driver.state) == -math.inf
    assert driver.send(Tick(at=10.0))  # the first wait of a run does not wait
    assert wait_deadline(driver.scheme, driver.state) is None
    assert driver.send(Tick(at=500.0)) == ()  # a pass is under way
    driver.send(JobDone(1, (), at=30.0))
    assert driver.state.floats["since"] == 20.0  # whole seconds since the wait before ended
    assert wait_deadline(driver.scheme, driver.state) == 70.0
    assert driver.send(Tick(at=69.9)) == ()
    assert driver.send(Tick(at=70.0))
    assert driver.state.passes[2].items == ()


def test_data_moves_the_deadline():
    driver = Driver(line())
    driver.send(Tick(at=0.0))
    driver.send(JobDone(1, (), at=1.0))
    driver.send(DataArrived(("a",), at=40.0))
    driver.send(JobDone(2, ("a",), at=41.0))
    assert wait_deadline(driver.scheme, driver.state) == 100.0


def test_a_zero_wait_does_not_spin():
    scheme = line()
    scheme = structs.replace(scheme, floats=scheme.floats | {"wait_sec": FloatVariable(0.0, 0.0)})
    driver = Driver(scheme)
    driver.send(Tick(at=0.0))
    driver.send(JobDone(1, (), at=0.0))
    assert driver.send(Tick(at=0.5)) == ()
    assert driver.send(Tick(at=1.0))


def test_a_new_job_takes_one_pass_and_merges_those_in_line():
    driver = Driver(line("new"))
    for number, item in enumerate("abc"):
        driver.send(DataArrived((item,), at=float(number)))
    assert at_jobs(driver.state) == {1: "work"}
    assert [one.queued for one in driver.state.passes.values()] == [False, True, True]
    driver.send(JobDone(1, ("a",), at=9.0))
    assert at_jobs(driver.state) == {2: "work"}
    assert driver.state.passes[2].items == ("b", "c")
    assert ("end", "3", "merged into 2") in driver.moves


def test_a_continue_job_takes_them_all():
    driver = Driver(line("continue"))
    for number, item in enumerate("abc"):
        driver.send(DataArrived((item,), at=float(number)))
    assert at_jobs(driver.state) == {1: "work", 2: "work", 3: "work"}


def test_a_pass_in_line_is_not_done():
    driver = Driver(line("new"))
    driver.send(DataArrived(("a",), at=0.0))
    driver.send(DataArrived(("b",), at=0.0))
    with pytest.raises(MachineError, match="pass 2 is not inside a job"):
        driver.send(JobDone(2, ("b",), at=1.0))


def test_a_failed_pass_ends_and_the_line_moves_up():
    driver = Driver(line("new"))
    driver.send(DataArrived(("a",), at=0.0))
    driver.send(DataArrived(("b",), at=0.0))
    driver.send(JobFailed(1, "out of memory", at=1.0))
    assert ("end", "1", "failed: out of memory") in driver.moves
    assert at_jobs(driver.state) == {2: "work"}
    assert not driver.state.ended


def test_abort_ends_every_pass_and_late_news_is_ignored(prep):
    prep.send(DataArrived(("a",), at=0.0))
    prep.send(DataArrived(("b",), at=0.0))
    prep.send(Abort(at=1.0))
    assert prep.state.passes == {} and prep.state.ended == "abort"
    assert prep.send(JobDone(1, ("a",), at=2.0)) == ()
    assert prep.send(DataArrived(("c",), at=2.0)) == ()
    assert prep.send(Tick(at=1e6)) == ()
    prep.send(Restart(at=3.0))
    assert prep.send(DataArrived(("c",), at=4.0))
    assert at_jobs(prep.state) == {3: "importmovies"}


def test_maxtime_counts_from_its_first_execution_and_lets_passes_finish(prep):
    apply(prep.state, set_move("float", "maxtime_hr", 1.0))
    prep.send(DataArrived(("a",), at=100.0))
    assert prep.state.exit_at == 100.0 + 3600.0
    prep.send(DataArrived(("b",), at=3699.9))
    prep.send(DataArrived(("c",), at=3700.0))
    assert prep.state.ended == "maxtime"
    assert prep.state.current_node == "EXIT_maxtime"
    assert at_jobs(prep.state) == {1: "importmovies", 2: "importmovies"}
    for _ in range(3):
        prep.send(JobDone(1, ("a",), at=4000.0))
    assert list(prep.state.passes) == [2]


def test_a_restart_gets_fresh_clocks_and_starts_at_the_first_node(prep):
    apply(prep.state, set_move("float", "maxtime_hr", 0.0))
    prep.send(DataArrived(("a",), at=0.0))
    prep.send(DataArrived(("b",), at=0.0))
    assert prep.state.ended == "maxtime"
    prep.send(Restart(at=10.0))
    assert (prep.state.ended, prep.state.exit_at, prep.state.wait_ended_at) == ("", None, None)
    assert prep.state.current_node == "WAIT"


def test_an_exit_and_a_dead_end_stop_the_machine():
    scheme = line()
    for target, reason in (("EXIT", "exit"), ("undefined", "finished")):
        scheme = structs.replace(
            scheme,
            operators=scheme.operators | {"EXIT": Operator("exit")},
            edges=(Edge("WAIT", "work"), Edge("work", target)),
        )
        driver = Driver(scheme)
        driver.send(Tick(at=0.0))
        driver.send(JobDone(1, (), at=1.0))
        assert driver.state.ended == reason
        assert driver.state.current_node == target


def test_a_wait_inside_the_graph_holds_a_pass_until_time_or_data():
    scheme = line("continue", more=JobRow("more", "continue"))
    scheme = structs.replace(
        scheme,
        operators=scheme.operators | {"PAUSE": Operator("wait", input1="wait_sec")},
        edges=(Edge("WAIT", "work"), Edge("work", "PAUSE"), Edge("PAUSE", "more"),
               Edge("more", "WAIT")),
    )  # fmt: skip
    driver = Driver(scheme)
    driver.send(DataArrived(("a",), at=0.0))
    driver.send(JobDone(1, ("a",), at=10.0))
    assert driver.state.passes[1].node == "PAUSE" and at_jobs(driver.state) == {}
    assert wait_deadline(scheme, driver.state) == 60.0
    assert driver.send(Tick(at=59.0)) == ()
    driver.send(Tick(at=60.0))
    assert at_jobs(driver.state) == {1: "more"}
    driver.send(DataArrived(("b",), at=61.0))
    driver.send(JobDone(2, ("b",), at=62.0))
    driver.send(DataArrived(("c",), at=63.0))
    assert driver.state.passes[2].items == ("b", "c")
    assert at_jobs(driver.state) == {1: "more", 2: "more"}


def test_a_scheme_that_does_not_start_with_a_wait_runs_once():
    scheme = Scheme(
        name="Schemes/once/",
        current_node="SET",
        floats={"x": FloatVariable(0.0, 0.0)},
        operators={"SET": Operator("float=plus", "x", "x", "2")},
        jobs={"work": JobRow("work", "new")},
        edges=(Edge("SET", "work"), Edge("work", "undefined")),
    )
    driver = Driver(scheme)
    driver.send(DataArrived(("a",), at=0.0))
    assert driver.state.floats["x"] == 2.0 and at_jobs(driver.state) == {1: "work"}
    driver.send(JobFailed(1, "no", at=1.0))
    assert driver.state.ended == "failed"


def test_operators_that_go_round_for_ever_are_found():
    scheme = Scheme(
        name="Schemes/round/",
        bools={"b": BoolVariable(False, False)},
        floats={"w": FloatVariable(1.0, 1.0)},
        operators={"WAIT": Operator("wait", input1="w"), "A": Operator("bool=not", "b", "b")},
        edges=(Edge("WAIT", "A"), Edge("A", "A")),
    )
    with pytest.raises(MachineError, match="without a job or wait"):
        Driver(scheme).send(Tick(at=0.0))


@pytest.mark.parametrize(
    ("stimulus", "words"),
    [
        (JobDone(7, (), at=1.0), "pass 7 is not inside a job"),
        (JobDone(0, (), at=1.0), "pass 0"),
        (JobDone(1, ("z",), at=1.0), r"does not carry \['z'\]"),
        (JobStarted("gone", "X/job001/"), "no job 'gone'"),
        (JobStarted("ctffind", "CtfFind/job001"), "Folder/jobNNN/"),
    ],
)
def test_stimuli_that_cannot_be_are_refused(prep, stimulus, words):
    prep.send(DataArrived(("a",), at=0.0))
    with pytest.raises(MachineError, match=words):
        prep.send(stimulus)


@pytest.mark.parametrize(
    "move",
    [(), ("fly",), ("goto", "9", "X"), ("set", "float", "gone", "1"), ("set", "bool", "b", "maybe"),
     ("job", "gone", "X/"), ("end", "1"), ("pass", "one", "X")],
)  # fmt: skip
def test_moves_that_do_not_fit_are_refused(move):
    with pytest.raises(MachineError):
        apply(State(current_node="X", bools={"b": True}), move)


def test_replayed_moves_rebuild_the_state_without_a_world():
    scheme, _ = as_traced("proc", "T3-proc-2d-only")
    driver = Driver(scheme)
    run_alone(driver, PROC, first_number=4)
    again = driver.start
    for move in msgspec.msgpack.decode(
        msgspec.msgpack.encode(driver.moves), type=list[tuple[str, ...]]
    ):
        apply(again, move)
    assert again == driver.state


def test_the_state_is_plain_data(prep):
    prep.send(DataArrived(("a",), at=0.1))
    for codec in (msgspec.json, msgspec.msgpack):
        assert codec.decode(codec.encode(prep.state), type=State) == prep.state


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.floats.pop("wait_sec"), "floats are not"),
        (lambda s: setattr(s, "current_node", "nowhere"), "'nowhere' is not in"),
        (lambda s: setattr(s, "next_pass", 1), "not below next_pass"),
        (lambda s: apply(s, ("goto", "1", "EXIT_maxtime")), "rests at 'EXIT_maxtime'"),
        (lambda s: apply(s, ("queue", "1")), "stands in line at 'importmovies'"),
    ],
)
def test_validate_finds_damage(prep, damage, words):
    prep.send(DataArrived(("a",), at=0.0))
    damage(prep.state)
    with pytest.raises(MachineError, match=words):
        validate(prep.scheme, prep.state)
