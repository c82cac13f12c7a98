"""The runner with a real cluster: attempts are counted before, and judged after, they run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from services.kit import runner as runners
from services.kit import session as sessions
from services.kit.errors import Code, Fatal
from services.kit.host import Failed, Finished, Host
from services.kit.journal import Attempt, Journal
from services.kit.logs import Log
from services.kit.main import cluster_address
from services.kit.paths import Layout
from services.kit.runner import MAX_FAILURES, Outcome, Runner
from services.kit.work import Task
from tests import tasks
from tests.toy import Emitter, Numbers, Seen


class Cluster:
    """The cluster process of a project, as `coldstream up` starts it."""

    def __init__(self, project: Path):
        self.layout = Layout(project)
        self.layout.make()
        session = sessions.Session(name="toy", raw="/raw", workers=1)
        sessions.save(self.layout, session)
        command = [sys.executable, "-m", "services.kit.cluster_main", "--project", str(project)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.address = cluster_address(self.layout, session)

    def worker(self) -> psutil.Process:
        """Return the worker process."""
        (found,) = [
            child
            for child in psutil.Process(self.process.pid).children()
            if "resource_tracker" not in " ".join(child.cmdline())
        ]
        return found

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(3)  # what the supervisor gives it
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster") / "P")
    yield made
    made.stop()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "prep.sqlite", "prep", "s1")
    yield made
    made.close()


@pytest.fixture
def runner(cluster: Cluster, journal: Journal) -> Iterator[Runner]:
    made = Runner(cluster.layout.project, cluster.address, journal)
    yield made
    made.close()


def wait_for(runner: Runner, count: int, limit_s: float = 60.0) -> list[Outcome]:
    """Return the next `count` outcomes."""
    found: list[Outcome] = []
    deadline = time.monotonic() + limit_s
    while len(found) < count:
        assert time.monotonic() < deadline, found
        found += runner.outcomes()
        time.sleep(0.005)
    return found


def until(done: Callable[[], object], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_task_delivers_its_result(runner, journal, cluster):
    wanted = [tasks.task("write", f"ok{n}", number=n) for n in range(5)]
    assert runner.slots == 1 and runner.room() == 3
    assert runner.begin(wanted) == [] and runner.room() == -2
    assert runner.running == {task.id: task for task in wanted}
    assert {row.key: row for row in journal.attempts().values()} == {
        task.key: Attempt(task.key, 1, 1, 0, "running") for task in wanted
    }
    outcomes = wait_for(runner, 5)
    assert [o.task.movie for o in outcomes] == [f"ok{n}" for n in range(5)], "most urgent first"
    for outcome, number in zip(outcomes, range(5), strict=True):
        assert outcome.reply is not None and outcome.token == runner.token(outcome.task.key) == 1
        assert outcome.reply.result == msgspec.msgpack.encode(number**2)
        path = cluster.layout.project / f"Job/job001/ok{number}.txt"
        assert path.read_text() == str(number**2)
    assert runner.running == {} and runner.room() == 3
    runner.forget([task.key for task in wanted])
    assert runner.token(wanted[0].key) == 0


def test_tasks_in_line_go_by_urgency_and_then_by_age(runner, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    slow = tasks.task("wait", "o0", path=str(gate))
    runner.begin([slow, tasks.task("write", "o1", number=1), tasks.task("write", "o2", number=2)])
    until(Path(f"{gate}.begun").exists)
    runner.begin([tasks.task("write", "o3", number=3)])
    runner.begin([msgspec.structs.replace(tasks.task("write", "o4", number=4), urgency=1)])
    time.sleep(0.5)  # until the scheduler has them all
    gate.unlink()
    order = [outcome.task.movie for outcome in wait_for(runner, 5)]
    assert [movie for movie in order if movie != "o4"] == ["o0", "o1", "o2", "o3"], (
        "if what comes later went first, the last of each batch would wait for the end of all"
    )
    assert order.index("o4") < order.index("o2")  # o1 may be with the worker already


def test_a_refusal_is_an_answer_and_no_failure(runner, journal):
    task = tasks.task("refuse", "r1")
    runner.begin([task])
    (outcome,) = wait_for(runner, 1)
    assert outcome.reply is not None and outcome.reply.code == Code.TOO_FEW_FRAMES
    assert runner.failures(task.key) == 0


def test_a_task_that_raises_is_counted_until_it_is_poison_also_across_restarts(
    cluster, journal, tmp_path
):
    task = tasks.task("broken", "b1")
    path = journal.path
    for failure in range(1, MAX_FAILURES + 1):
        # A service that restarts between two attempts must not start counting anew.
        runner = Runner(cluster.layout.project, cluster.address, journal)
        assert runner.failures(task.key) == failure - 1
        assert runner.begin([task]) == []
        (outcome,) = wait_for(runner, 1)
        assert outcome.reply is None and "ZeroDivisionError('b1')" in outcome.story
        assert runner.failures(task.key) == failure
        runner.close()
        journal.close()
        journal.__init__(path, "prep", "s1")
        (row,) = journal.attempts().values()
        assert row == Attempt(task.key, failure, failure, failure, outcome.story)
    runner = Runner(cluster.layout.project, cluster.address, journal)
    (poison,) = runner.begin([task])
    assert poison.reply is None and poison.token == MAX_FAILURES
    assert poison.story.startswith("begun 3 times, failed 3 times: ZeroDivisionError")
    assert runner.running == {}
    runner.close()


def test_a_task_that_kills_its_worker_is_counted_and_the_next_worker_goes_on(
    runner, journal, cluster, tmp_path
):
    flag = tmp_path / "deadly"
    flag.touch()
    deadly, harmless = tasks.task("die", "d1", path=str(flag)), tasks.task("write", "d2", number=3)
    runner.begin([deadly, harmless])
    outcomes = {o.task.movie: o for o in wait_for(runner, 2)}
    assert outcomes["d1"].reply is None and outcomes["d1"].story == "a worker died"
    assert outcomes["d2"].story in ("", "a worker died before it began")
    assert (runner.failures(deadly.key), runner.failures(harmless.key)) == (1, 0), "not to blame"
    assert journal.attempts()[deadly.key].failures == 1
    assert list(cluster.layout.tmp.iterdir()) == [], "what the dead left is tidied up"
    runner.begin([deadly])
    (again,) = wait_for(runner, 1)
    assert again.reply is not None and again.token == 2 and not again.reply.adopted


def test_a_worker_that_is_killed_from_outside_costs_one_failure(runner, cluster, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    task = tasks.task("wait", "w1", path=str(gate))
    runner.begin([task])
    until(Path(f"{gate}.begun").exists)
    cluster.worker().kill()
    (outcome,) = wait_for(runner, 1)
    assert outcome.reply is None and runner.failures(task.key) == 1
    gate.unlink()
    runner.begin([task])
    (outcome,) = wait_for(runner, 1)
    assert outcome.reply is not None and outcome.token == 2


def test_a_task_that_is_withdrawn_delivers_nothing_and_leaves_its_count(runner, journal, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    slow, queued = tasks.task("wait", "c1", path=str(gate)), tasks.task("write", "c2", number=2)
    runner.begin([slow, queued])
    until(Path(f"{gate}.begun").exists)
    runner.cancel([slow.id, queued.id])
    assert runner.running == {}
    # The old attempt still computes; the new one has a higher token and is the one that counts.
    runner.begin([slow])
    assert runner.token(slow.key) == 2 and journal.attempts()[slow.key].n == 2
    gate.unlink()
    (outcome,) = wait_for(runner, 1)
    assert outcome.token == 2 and outcome.reply is not None
    until(lambda: not runner.outcomes())
    assert runner.failures(slow.key) == runner.failures(queued.key) == 0


def test_what_always_ends_with_everything_dead_is_poison_in_the_end(runner, journal):
    task = tasks.task("write", "p1", number=1)
    row = Attempt(task.key, runners.MAX_BEGUN, runners.MAX_BEGUN, 0, "running")
    journal.commit([], attempts=[row])
    runner._attempts[task.key] = row
    (poison,) = runner.begin([task])
    assert poison.story == "begun 25 times, failed 0 times: running" and runner.running == {}


_ALONE = """
import sys
from pathlib import Path
from services.kit import runner as runners
from services.kit.errors import Fatal
from services.kit.journal import Journal
connect, folder = runners.Client, Path(sys.argv[1])
runners.Client = lambda address, **options: connect(address, **{**options, "timeout": 0.5})
try:
    runners.Runner(folder, "tcp://127.0.0.1:9", Journal(folder / "prep.sqlite", "prep", "s1"))
except Fatal as error:
    print(error)
"""


def test_no_scheduler_is_fatal(tmp_path):
    # In a process of its own: Dask keeps the loop of a client that never connected.
    command = [sys.executable, "-c", _ALONE, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in result.stdout, result.stderr


# ---- a service that wants tasks


class Squares(Emitter):
    """Wants one task for every number; counts how it ended."""

    def __init__(self, call: Callable[[int], str]):
        super().__init__()
        self.call = call
        self.ends: list[Finished | Failed] = []

    def decide(self, state: Seen, stimulus: object):
        if isinstance(stimulus, Finished | Failed):
            self.ends.append(stimulus)
            return
        yield from super().decide(state, stimulus)

    def want(self, state: Seen, room: int, running) -> list[Task]:
        ended = {end.task.movie for end in self.ends}
        wanted = [tasks.task(self.call(n), f"h{n}", number=n) for n in range(len(state.count))]
        return [t for t in wanted if t.movie not in ended and t.id not in running][:room]


def test_a_host_repeats_what_failed_and_gives_up_what_keeps_failing(cluster, tmp_path):
    layout = Layout(tmp_path / "P")
    service = Squares(lambda number: {1: "broken", 2: "refuse"}.get(number, "write"))
    log = Log("emitter", tmp_path / "log")
    host = Host(service, layout, "s1", log, cluster.address, source=Numbers(4, 4, 0.1))
    poller = host._poller()
    deadline = time.monotonic() + 60.0
    try:
        while len(service.ends) < 4:
            assert time.monotonic() < deadline, service.ends
            host.turn(poller)
        assert host.journal.attempts() == {}, "what is done has no row"
    finally:
        host.close(in_order=False)
        log.close()
    ends = {end.task.movie: end for end in service.ends}
    assert len(service.ends) == len(ends), "each ended once"
    assert isinstance(ends["h1"], Failed) and ends["h1"].attempts == MAX_FAILURES
    assert isinstance(ends["h2"], Finished) and ends["h2"].reply.code == Code.TOO_FEW_FRAMES
    for name in ("h0", "h3"):
        end = ends[name]
        assert isinstance(end, Finished) and end.token == 1 and end.reply.result is not None
    assert (tmp_path / "log").read_text().count("task.repeated") == MAX_FAILURES - 1


def test_the_cluster_being_gone_is_fatal_and_the_next_one_goes_on(journal, tmp_path):
    # Last, and with a cluster of its own.
    own = Cluster(tmp_path / "P")
    runner = Runner(own.layout.project, own.address, journal)
    gate = tmp_path / "gate"
    gate.touch()
    task = tasks.task("wait", "g1", path=str(gate))
    runner.begin([task])
    until(Path(f"{gate}.begun").exists)
    worker = own.worker()
    os.kill(own.process.pid, signal.SIGKILL)
    own.process.wait()
    with pytest.raises(Fatal, match="scheduler is gone"):
        until(lambda: runner.outcomes() and False, 30.0)
    runner.close()
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 10.0)
    assert journal.attempts()[task.key] == Attempt(task.key, 1, 1, 0, "running"), "interrupted"
