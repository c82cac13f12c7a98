"""The supervisor with real processes: restarted, given up, stopped in time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.kit import supervisor as supervisors
from services.kit.errors import Fatal, Misuse
from services.kit.supervisor import Supervisor

SLEEP = "import time, sys; print('ready', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP


class Watch:
    """A supervisor and the lines it showed."""

    def __init__(self, **programs: str):
        self.lines: list[str] = []
        self.stopped = False
        commands = {name: [sys.executable, "-u", "-c", code] for name, code in programs.items()}
        self.supervisor = Supervisor(commands, self.lines.append)

    def until(self, done: Callable[[], object], limit_s: float = 15.0) -> None:
        deadline = time.monotonic() + limit_s
        while not done():
            assert time.monotonic() < deadline, self.lines
            self.supervisor.turn(0.02)

    def stop(self) -> float:
        begun = time.monotonic()
        if not self.stopped:
            self.supervisor.stop()
        self.stopped = True
        return time.monotonic() - begun


@contextmanager
def watch(**programs: str) -> Iterator[Watch]:
    made = Watch(**programs)
    made.supervisor.start()
    try:
        yield made
    finally:
        made.stop()


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_child_that_dies_is_started_again_and_the_others_are_left_alone():
    with watch(cluster=SLEEP, prep=SLEEP) as w:
        w.until(lambda: w.lines.count("ready") == 2)
        before = w.supervisor.pids
        os.kill(before["prep"], signal.SIGKILL)
        w.until(lambda: w.lines.count("ready") == 3)
        after = w.supervisor.pids
        assert after["cluster"] == before["cluster"] and after["prep"] != before["prep"]
        assert "prep ended (signal SIGKILL); it is started again" in w.lines
    assert all(gone(pid) for pid in after.values())


def test_lines_are_shown_whole_also_the_last_ones():
    code = (
        "import sys, os, time; os.write(1, b'first\\nsec'); time.sleep(0.1); "
        "os.write(1, b'ond\\n'); os.write(2, b'trouble\\n'); os.write(1, b'no line end')"
    )
    with watch(cluster=SLEEP, prep=code + "; sys.exit(70)") as w:
        w.until(lambda: any("started again" in line for line in w.lines))
    mine = [line for line in w.lines if line != "ready"]
    assert mine[:5] == [
        "first",
        "second",
        "trouble",
        "no line end",
        "prep ended (exit code 70); it is started again",
    ]


def test_a_large_output_is_shown_completely():
    with watch(cluster=SLEEP, prep="for i in range(20_000): print('line', i)") as w:
        w.until(lambda: any("started again" in line for line in w.lines))
        shown = [line for line in w.lines if line.startswith("line")]
        assert shown[:20_000] == [f"line {i}" for i in range(20_000)]


def test_a_child_that_keeps_ending_is_given_up(monkeypatch):
    monkeypatch.setattr(supervisors, "RESTART_S", 0.01)
    with watch(cluster=SLEEP, prep="raise SystemExit(75)") as w:
        with pytest.raises(Fatal, match="prep ended 20 times within 60 s: giving up"):
            w.until(lambda: False)
        cluster = w.supervisor.pids["cluster"]
    assert gone(cluster)
    assert sum("prep ended (exit code 75)" in line for line in w.lines) == 20


def test_a_child_that_finds_its_configuration_wrong_is_not_started_again():
    with watch(cluster=SLEEP, prep="print('roots is missing'); raise SystemExit(2)") as w:
        with pytest.raises(Misuse, match="prep cannot run with this configuration"):
            w.until(lambda: False)
        assert "roots is missing" in w.lines
    assert not any("started again" in line for line in w.lines)


def test_stopping_is_quick_and_tells_each_child():
    polite = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye'))); "
    )
    with watch(cluster=polite + SLEEP, prep=polite + SLEEP) as w:
        w.until(lambda: w.lines.count("ready") == 2)
        pids = w.supervisor.pids
        assert w.stop() < 1.0
        assert w.lines.count("bye") == 2 and all(gone(pid) for pid in pids.values())


def test_a_child_that_does_not_listen_is_killed_in_time(monkeypatch):
    monkeypatch.setattr(supervisors, "STOP_SERVICES_S", 0.4)
    monkeypatch.setattr(supervisors, "STOP_CLUSTER_S", 0.3)
    with watch(cluster=STUBBORN, prep=STUBBORN, proc=SLEEP) as w:
        w.until(lambda: w.lines.count("ready") == 3)
        pids = w.supervisor.pids
        taken = w.stop()
        assert 0.7 <= taken < 2.0 and all(gone(pid) for pid in pids.values())
        assert "prep did not stop within 0 s; it is killed" in w.lines
        assert "cluster did not stop within 0 s; it is killed" in w.lines
        assert not any(line.startswith("proc did not") for line in w.lines)


def test_the_default_limits_add_up_to_less_than_ten_seconds():
    assert supervisors.STOP_SERVICES_S + supervisors.STOP_CLUSTER_S < 10.0


def test_a_child_that_died_before_the_stop_is_taken_care_of():
    with watch(cluster=SLEEP, prep="print('short', flush=True)") as w:
        prep = w.supervisor._children["prep"].process
        assert prep is not None
        prep.wait()
        assert w.stop() < 1.0 and "short" in w.lines


def test_children_of_a_killed_supervisor_end(tmp_path):
    code = f"""
import os, sys, time
from services.kit.supervisor import Supervisor
child = ("import sys, time; from services.kit.process import die_with_parent;"
    "die_with_parent(int(sys.argv[1])); print('ready', flush=True); time.sleep(60)")
command = [sys.executable, "-u", "-c", child, str(os.getpid())]
lines = []
s = Supervisor({{"cluster": command, "prep": command}}, lines.append)
s.start()
while lines.count("ready") < 2:
    s.turn(0.05)
open({str(tmp_path / "pids")!r}, "w").write(" ".join(map(str, s.pids.values())))
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    deadline = time.monotonic() + 5.0
    while not all(gone(pid) or _is_zombie(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_zombie(pid: int) -> bool:
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()
