"""The machine with one place: what it does at each kind of node, in both modes."""

import pytest

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


class World:
    """No files at all."""

    def file_exists(self, path):
        return False

    def count_images(self, path, table):
        return 0

    def column(self, path, table, label):
        raise AssertionError

    def glob(self, pattern):
        return []

    def job_table(self, scheme):
        return None


def floats(**values):
    return {name: FloatVariable(float(value), 0.0) for name, value in values.items()}


def scheme(operators, edges, jobs=None, current=None, **more):
    return Scheme(
        name="Schemes/s/",
        current_node=current or edges[0][0],
        operators={name: Operator(*words) for name, words in operators.items()},
        jobs={name: JobRow(name, mode) for name, mode in (jobs or {}).items()},
        edges=tuple(edge if isinstance(edge, Edge) else Edge(*edge) for edge in edges),
        **more,
    )


class Driver:
    """Steps a walk, checks its invariants, keeps the nodes."""

    def __init__(self, one, strict=False):
        self.scheme, self.strict = one, strict
        self.walk = begin(one)
        self.nodes = [self.walk.state.current_node]

    def send(self, stimulus):
        answer = step(self.scheme, self.walk, stimulus, World(), strict=self.strict)
        for move in answer.moves:
            apply(self.walk, move)
            if move[0] == "at":
                self.nodes.append(move[1])
        validate(self.scheme, self.walk)
        return answer.instruction


COUNT = scheme(
    {"ADD": ("float=plus", "n", "n", "one"), "MORE": ("bool=lt", "more", "n", "limit")},
    [("ADD", "MORE"), Edge("MORE", "END", True, "ADD", "more"), ("END", "undefined")],
    {"END": "new"},
    floats=floats(n=0, one=1, limit=3),
    bools={"more": BoolVariable(False, False)},
)


def test_operators_and_forks_lead_to_the_job():
    driver = Driver(COUNT)
    instruction = driver.send(Go(at=0.0))
    while instruction == Proceed():
        instruction = driver.send(Go(at=0.0))
    assert driver.nodes == ["ADD", "MORE", "ADD", "MORE", "ADD", "MORE", "END"]
    assert instruction == MakeJob("END", 1)
    assert driver.send(JobMade("Class2D/job007/", 1.0)) == AwaitInputs(
        "END", "Class2D/job007/", False, 1
    )
    assert not driver.walk.state.jobs["END"].has_started
    assert driver.send(InputsThere(1.0)) == RunJob("END", "Class2D/job007/", False, 1)
    assert driver.walk.state.jobs["END"].has_started
    assert driver.send(JobEnded("Succeeded", 2.0)) == Finish("finished")
    assert driver.walk.state.current_node == "undefined"


LOOP = scheme(
    {"WAIT": ("wait", "elapsed", "wait_sec"), "EXIT_maxtime": ("exit_maxtime", "undefined", "hr")},
    [("WAIT", "EXIT_maxtime"), ("EXIT_maxtime", "job"), ("job", "WAIT")],
    {"job": "continue"},
    floats=floats(wait_sec=25, hr=1, elapsed=-1),
)


def round_trip(driver, at, process="Import/job001/"):
    """From EXIT_maxtime through the job, back to WAIT."""
    assert driver.send(Go(at)) == Proceed()
    instruction = driver.send(Go(at))
    if isinstance(instruction, MakeJob):
        driver.send(JobMade(process, at))
    else:
        assert isinstance(instruction, AwaitInputs) and instruction.continues
    driver.send(InputsThere(at))
    return driver.send(JobEnded("Succeeded", at))


@pytest.mark.parametrize("strict", [False, True])
def test_the_first_wait_does_not_wait_and_the_next_waits_for_the_rest(strict):
    driver = Driver(LOOP, strict)
    assert driver.send(Go(100.0)) == Proceed()
    assert driver.walk.state.floats["elapsed"] == -1
    assert round_trip(driver, 103.0) == Proceed()
    # RELION sleeps in steps of 10 s: 22 s become 30 s.
    assert driver.send(Go(103.0)) == Sleep(133.0 if strict else 125.0, data=not strict)
    assert driver.walk.state.floats["elapsed"] == 3
    assert driver.send(Woke(126.0)) == Proceed()
    assert round_trip(driver, 200.0) == Proceed()
    assert driver.send(Go(200.0)) == Proceed(), "the loop took longer than the wait"
    assert driver.walk.state.floats["elapsed"] == 74


def test_exit_maxtime_ends_at_its_second_visit():
    driver = Driver(LOOP)
    driver.send(Go(0.0))
    round_trip(driver, 1.0)
    driver.send(Go(3601.0))
    assert driver.send(Go(3601.0)) == Finish("maxtime")
    assert driver.walk.state.current_node == "EXIT_maxtime"


def test_a_failed_job_ends_the_walk_at_that_job():
    driver = Driver(LOOP)
    driver.send(Go(0.0))
    driver.send(Go(0.0))
    driver.send(Go(0.0))
    driver.send(JobMade("Import/job001/", 0.0))
    driver.send(InputsThere(0.0))
    assert driver.send(JobEnded("Failed", 1.0)) == Finish("job failed")
    assert driver.walk.state.current_node == "job"
    with pytest.raises(MachineError, match="ended"):
        driver.send(Go(2.0))


def test_strict_takes_an_exit_at_the_beginning_as_an_error():
    one = scheme({"EXIT": ("exit",)}, [("EXIT", "EXIT")])
    with pytest.raises(SchemeError, match="begins"):
        Driver(one, strict=True).send(Go(0.0))
    assert Driver(one).send(Go(0.0)) == Finish("exit")


def test_an_effect_is_done_before_the_walk_goes_on():
    one = scheme(
        {"TOUCH": ("touch_file", "undefined", "path")},
        [("TOUCH", "TOUCH")],
        strings={"path": StringVariable("Schemes/s/flag", "")},
    )
    driver = Driver(one)
    assert isinstance(driver.send(Go(0.0)), Perform)
    with pytest.raises(MachineError):
        driver.send(Go(0.0))
    assert driver.send(Performed(0.0)) == Proceed()


IDLE = scheme(
    {"LOOK": ("bool=file_exists", "there", "path"), "AGAIN": ("bool=not", "gone", "there")},
    [("LOOK", "AGAIN"), Edge("AGAIN", "LOOK", True, "undefined", "there")],
    bools={"there": BoolVariable(False, False), "gone": BoolVariable(True, True)},
    strings={"path": StringVariable("x", "x")},
)


def test_a_cycle_that_changes_nothing_comes_round_once_a_second():
    driver = Driver(IDLE)
    now, sleeps = 0.0, 0
    for _ in range(20):
        instruction = driver.send(Go(now))
        if isinstance(instruction, Sleep):
            assert instruction.until == now + 1.0 and instruction.data
            sleeps, now = sleeps + 1, instruction.until
            assert driver.send(Woke(now)) == Proceed()
    assert sleeps >= 5


def test_strict_spins():
    driver = Driver(IDLE, strict=True)
    for _ in range(100):
        assert driver.send(Go(0.0)) == Proceed()


def test_a_counting_cycle_is_not_slowed_down():
    one = scheme(
        {"ADD": ("float=plus", "n", "n", "one")}, [("ADD", "ADD")], floats=floats(n=0, one=1)
    )
    driver = Driver(one)
    for _ in range(1000):
        assert driver.send(Go(0.0)) == Proceed()
    assert driver.walk.state.floats["n"] == 1000


def test_a_zero_wait_without_a_job_comes_round_once_a_second():
    one = scheme({"WAIT": ("wait", "undefined", "s")}, [("WAIT", "WAIT")], floats=floats(s=0))
    driver = Driver(one)
    assert driver.send(Go(10.0)) == Proceed()
    assert driver.send(Go(10.2)) == Sleep(11.0, data=True)
    assert driver.send(Woke(11.0)) == Proceed()
    assert driver.send(Go(13.0)) == Proceed()


def test_unknown_mode_and_unknown_node_are_refused():
    one = scheme({}, [("a", "a")], {"a": "overwrite"})
    one.jobs["a"] = JobRow("X/job001/", "overwrite", True)
    with pytest.raises(SchemeError, match="overwrite"):
        Driver(one, strict=True).send(Go(0.0))
    with pytest.raises(SchemeError, match="nowhere"):
        Driver(scheme({}, [("a", "a")], {"a": "new"}, current="nowhere")).send(Go(0.0))


def test_a_walk_resumes_in_the_middle_of_a_job_and_of_a_sleep():
    driver = Driver(LOOP)
    driver.send(Go(0.0))
    driver.send(Go(0.0))
    driver.send(Go(0.0))
    driver.send(JobMade("Import/job001/", 0.0))
    assert isinstance(resume(driver.walk, LOOP), AwaitInputs)
    driver.send(InputsThere(0.0))
    assert resume(driver.walk, LOOP) == RunJob("job", "Import/job001/", False, 1)
    driver.send(JobEnded("Succeeded", 1.0))
    driver.send(Go(1.0))
    assert resume(driver.walk, LOOP) == Sleep(25.0, data=True)
    assert resume(driver.walk, LOOP, strict=True) == Sleep(25.0, data=False)
    driver.send(Woke(25.0, "abort"))
    driver.send(Stop("aborted", 25.0))
    assert resume(driver.walk, LOOP) == Finish("aborted")


def test_news_in_the_wrong_phase_is_a_bug_of_the_caller():
    driver = Driver(LOOP)
    for stimulus in (Woke(0.0), JobMade("a/", 0.0), InputsThere(0.0), JobEnded("Failed", 0.0)):
        with pytest.raises(MachineError):
            driver.send(stimulus)
