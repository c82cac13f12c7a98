"""The host with toy services in real processes: every event has its effect once, whatever dies."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.kit import host as hosts
from services.kit import session as sessions
from services.kit.errors import Bug, Fatal
from services.kit.events import MicrographSelected
from services.kit.host import Host
from services.kit.journal import Journal, NotReady, Reader
from services.kit.logs import Log
from services.kit.paths import Layout
from services.kit.supervisor import Supervisor
from tests.toy import Counter, Emitter, Numbers, Seen, seen

CRASH = ("after-append-before-commit", "after-commit-before-bell", "before-render", "after-render")


@pytest.fixture
def layout(tmp_path) -> Layout:
    made = Layout(tmp_path / "P")
    made.make()
    return made


class Processes:
    """emitter and counter, each in a process, restarted when they die."""

    def __init__(self, layout: Layout, total: int, batch: int, every_s: float):
        self.layout, self.total = layout, total
        settings = {"total": str(total), "batch": str(batch), "every_s": str(every_s)}
        sessions.save(layout, sessions.Session(name="toy", raw="/raw", settings=settings))
        self.lines: list[str] = []
        self.supervisor = Supervisor(
            {name: self.command(name) for name in ("emitter", "counter")}, self.lines.append
        )

    def command(self, name: str) -> list[str]:
        project = str(self.layout.project)
        return [sys.executable, "-m", "tests.toy", name, "--project", project]

    def effects(self) -> dict[str, int]:
        """Return how often each movie had its effect, from the counter's journal."""
        found: dict[str, int] = {}
        for body in bodies(self.layout, "counter"):
            assert isinstance(body, MicrographSelected)
            found[body.movie] = found.get(body.movie, 0) + 1
        return found

    def until(self, done: Callable[[], object], limit_s: float = 60.0) -> None:
        deadline = time.monotonic() + limit_s
        while not done():
            assert time.monotonic() < deadline, self.lines[-20:]
            self.supervisor.turn(0.02)

    def check(self) -> None:
        """Check that each movie was seen once and had its effect once."""
        wanted = [seen(number) for number in range(self.total)]
        assert bodies(self.layout, "emitter") == wanted
        assert self.effects() == {body.movie: 1 for body in wanted}
        assert list(self.effects()) == [body.movie for body in wanted], "in order"


@pytest.fixture
def processes(layout, monkeypatch, tmp_path) -> Iterator[Callable[..., Processes]]:
    monkeypatch.setenv("COLDSTREAM_CRASH_DIR", str(tmp_path / "crash"))
    (tmp_path / "crash").mkdir()
    running: list[Processes] = []

    def start(total: int, batch: int, every_s: float) -> Processes:
        made = Processes(layout, total, batch, every_s)
        made.supervisor.start()
        running.append(made)
        return made

    yield start
    for one in running:
        one.supervisor.stop()


def bodies(layout: Layout, producer: str) -> list[Any]:
    """Return what a journal holds, after checking its whole chain."""
    path = layout.journal(producer)
    if not path.exists():
        return []
    try:
        reader = Reader(path)
    except NotReady:
        return []
    assert reader.first_broken() is None
    found = [event.body for event in reader.read()]
    reader.close()
    return found


def test_each_process_may_die_at_each_of_its_points(processes, layout, tmp_path):
    armed = [tmp_path / "crash" / f"{name}.{p}" for name in ("emitter", "counter") for p in CRASH]
    for file in armed:
        file.touch()
    running = processes(total=2000, batch=20, every_s=0.01)
    running.until(lambda: not any(file.exists() for file in armed))
    running.until(lambda: len(running.effects()) == 2000)
    running.check()
    assert sum("signal SIGKILL" in line for line in running.lines) == len(armed)


def test_random_kills_lose_and_double_nothing(processes, layout):
    rng = random.Random(7)
    running = processes(total=3000, batch=10, every_s=0.005)
    for _ in range(8):
        for _ in range(rng.randrange(5, 25)):
            running.supervisor.turn(0.02)
        pids = list(running.supervisor.pids.values())
        if pids:
            os.kill(rng.choice(pids), signal.SIGKILL)
    running.until(lambda: len(running.effects()) == 3000)
    running.check()


def test_a_stop_is_clean_and_the_next_start_goes_on(processes, layout):
    first = processes(total=500, batch=50, every_s=0.01)
    first.until(lambda: len(first.effects()) == 500)
    first.supervisor.turn(0.05)
    begun = time.monotonic()
    first.supervisor.stop()
    assert time.monotonic() - begun < 2.0
    assert any("counter INFO service.stopped head=500" in line for line in first.lines)
    assert list((layout.snapshots / "counter").glob("*.msgpack"))
    second = processes(total=700, batch=50, every_s=0.01)
    second.until(lambda: len(second.effects()) == 700)
    second.check()
    assert any("counter INFO service.started head=500" in line for line in second.lines)


def end(layout: Layout, *arguments: str, **settings: str) -> tuple[int, str]:
    """Return exit code and output of an emitter that ends by itself."""
    given = {"total": "9", "batch": "9", "every_s": "0", **settings}
    sessions.save(layout, sessions.Session(name="toy", raw="/raw", settings=given))
    command = [sys.executable, "-m", "tests.toy", "emitter", "--project", str(layout.project)]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout + result.stderr


def test_exit_codes_say_who_has_to_act(layout):
    code, output = end(layout, bug_at="3")
    assert code == 70 and "Traceback" in output and "there is no movie 3" in output
    layout.journal("emitter").unlink()
    Journal(layout.journal("emitter"), "emitter", "another session").close()
    code, output = end(layout)
    assert code == 75 and "belongs to emitter of session another session" in output
    assert "Traceback" not in output
    code, output = end(layout, "--log-level", "LOUD")
    assert code == 2 and "LOUD" in output
    layout.session_file.write_text('{"name": "toy", "raw": "/raw", "colour": "red"}')
    command = [sys.executable, "-m", "tests.toy", "emitter", "--project", str(layout.project)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "colour" in result.stdout and not result.stderr


# ---- one host in this process


@pytest.fixture
def hosted(layout) -> Iterator[Callable[..., Host]]:
    logs: list[Log] = []

    def make(service: Any, source: Any = None) -> Host:
        logs.append(Log(service.name))
        return Host(service, layout, "s1", logs[-1], source=source)

    yield make
    for log in logs:
        log.close()


def turn(host: Host, until: Callable[[], bool], limit_s: float = 10.0) -> None:
    poller, deadline = host._poller(), time.monotonic() + limit_s
    while not until():
        assert time.monotonic() < deadline
        host.turn(poller)


def test_events_cursor_and_cause_are_committed_together(hosted, layout):
    emitter = hosted(Emitter(), Numbers(10, 10, 0.01))
    counter = hosted(Counter())
    turn(emitter, lambda: emitter.journal.head == 10)
    pollers = emitter._poller(), counter._poller()
    while counter.journal.head < 10:
        emitter.turn(pollers[0])
        counter.turn(pollers[1])
    causes = [event.uid for event in emitter.journal.read()]
    assert [event.cause for event in counter.journal.read()] == causes
    assert counter.journal.cursors()["emitter"] == (emitter.journal.epoch, 10)
    assert counter.lag == 0
    emitter.close()
    counter.close()


def test_a_state_is_rebuilt_from_snapshot_and_tail(hosted, layout, monkeypatch):
    monkeypatch.setattr(hosts.snapshot, "EVERY_EVENTS", 100)
    host = hosted(Emitter(), Numbers(450, 10, 0.0))
    turn(host, lambda: host.journal.head == 450)
    state = host.state
    host.close(in_order=False)  # as killed: the last snapshot is some events behind
    saved = [int(path.stem) for path in (layout.snapshots / "emitter").glob("*.msgpack")]
    assert len(saved) == 3 and 350 <= max(saved) < 450

    class Counting(Emitter):
        folded = 0

        def apply(self, state: Seen, body: Any, at: float) -> None:
            Counting.folded += 1
            super().apply(state, body, at)

    again = hosted(Counting())
    assert again.state == state and again._replay() == state
    assert Counting.folded == 2 * (450 - max(saved)), "only the tail is folded"
    again.close()


def test_a_state_that_was_not_committed_is_not_kept(hosted, layout):
    class Breaks(Emitter):
        def finish(self, state: Seen) -> None:
            raise AssertionError("nothing is written from a state that is not the journal's")

    host = hosted(Breaks(bug_at=15), Numbers(20, 10, 0.0))
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(Bug, match="no movie 15"):
            host.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert len(host.state.count) == 16
    assert not list((layout.snapshots / "emitter").glob("*"))
    again = hosted(Emitter(), Numbers(20, 10, 0.0))
    assert len(again.state.count) == again.journal.head == 10
    turn(again, lambda: again.journal.head == 20)
    again.close()
    assert bodies(layout, "emitter") == [seen(number) for number in range(20)]


def test_deeds_without_end_are_a_bug(hosted):
    class Restless(Emitter):
        def perform(self, state: Seen) -> list[int]:
            return [len(state.count)]

    host = hosted(Restless())
    with pytest.raises(Bug, match="without end"):
        turn(host, lambda: False)
    host.close(in_order=False)


def test_a_producers_replaced_journal_is_fatal_for_its_consumer(hosted, layout):
    emitter, counter = hosted(Emitter(), Numbers(5, 5, 0.0)), hosted(Counter())
    turn(emitter, lambda: emitter.journal.head == 5)
    pollers = emitter._poller(), counter._poller()
    while counter.journal.head < 5:
        emitter.turn(pollers[0])
        counter.turn(pollers[1])
    emitter.close()
    for file in (*layout.journals.glob("emitter.sqlite*"), *(layout.snapshots).glob("emitter/*")):
        file.unlink()
    replaced = hosted(Emitter(), Numbers(9, 9, 0.0))
    poller, deadline = replaced._poller(), time.monotonic() + 10.0
    with pytest.raises(Fatal, match="journal of emitter was replaced"):
        while time.monotonic() < deadline:
            replaced.turn(poller)
            counter.turn(pollers[1])
    assert counter.journal.head == 5
    replaced.close()
    counter.close(in_order=False)
