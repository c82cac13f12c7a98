"""One process runs a session, and can be told to stop from anywhere."""

import os
import subprocess
import sys
import time

import pytest

from services import running
from services.kit.errors import Misuse
from services.kit.paths import Layout

HOLD = """
import sys, signal, time
from services import running
from services.kit.paths import Layout
signal.signal(signal.SIGTERM, {handler})
with running.alone(Layout(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    found.hidden.mkdir()
    return found


def hold(layout, handler="lambda *_: sys.exit(0)"):
    code = HOLD.format(handler=handler)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(layout.project)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def ended(process):
    process.stdout.close()
    return process.wait(10)


def test_a_session_that_runs_is_not_run_twice_and_stops_when_told(layout):
    assert running.running(layout) is None and not running.stop(layout, 1.0)
    process = hold(layout)
    assert running.running(layout) == process.pid
    with pytest.raises(Misuse, match=f"runs already, as process {process.pid}"):
        with running.alone(layout):
            pass
    assert running.stop(layout, 10.0) and ended(process) == 0
    with running.alone(layout):
        assert running.running(layout) == os.getpid()
    assert running.running(layout) is None


def test_a_killed_session_leaves_nothing_behind(layout):
    process = hold(layout)
    process.kill()
    ended(process)
    assert running.running(layout) is None
    with running.alone(layout):
        pass


def test_one_that_does_not_listen_is_told(layout):
    process = hold(layout, "signal.SIG_IGN")
    begun = time.monotonic()
    with pytest.raises(Misuse, match=r"has not ended within 0\.3 s"):
        running.stop(layout, 0.3)
    assert time.monotonic() - begun < 5.0
    process.kill()
    ended(process)
