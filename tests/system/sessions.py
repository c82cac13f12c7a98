"""Simulated sessions and real processes for the tests that look at the whole."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from algorithms.simulate.recipe import Recipe, load_recipe
from algorithms.simulate.session import simulate_session
from services.kit.ledger import Ledger
from services.kit.paths import Layout

# Pixels of 4.5 A end at 9 A: the 6 A limit of real sessions would refuse every micrograph.
SETTINGS = ["--set", "proc__select_mics__select_maxval=30", "--particle-diameter", "260"]
COMMAND = [sys.executable, "-m", "services"]


def recipe(**changes: object) -> Recipe:
    """Return the recipe of the test session with changes."""
    return replace(load_recipe("test"), **changes)


def simulate(out: Path, seed: int = 11, **changes: object) -> Path:
    """Write a simulated session as fast as the disk takes it."""
    simulate_session(recipe(**changes), out, seed=seed, realtime=False)
    return out


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process under test."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default", **more}


def coldstream(*arguments: str | Path, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        check=False,
    )


def process(
    raw: Path, project: Path, *more: str, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Process a session on disk."""
    return coldstream("process", raw, "--project", project, *SETTINGS, *more, timeout=timeout)


def status(project: Path) -> dict:
    """Return the ledger."""
    result = coldstream("status", "--project", project, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# Files that rightly tell whether a job was interrupted and continued.
HISTORY = ("job.star", "job_pipeline.star", "default_pipeline.star")


def outcome(project: Path) -> dict[str, object]:
    """Return all that has to be the same however often a session was interrupted."""
    tables = {
        str(path.relative_to(project)): path.read_text()
        for pattern in ("*/job*/*.star", "Schemes/*/scheme.star")
        for path in sorted(project.glob(pattern))
        if path.name not in HISTORY
    }
    images = {
        str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in ("*.mrc", "*.mrcs", "*.star", "*.ctf")
        for path in sorted(project.glob(f"*/job*/Movies/**/{pattern}"))
    }
    ledger = status(project)
    assert not list(project.rglob("*.tmp")), "half-written files are left"
    return {"tables": tables, "images": images, "ledger": ledger}


def assert_same(found: dict[str, object], expected: dict[str, object]) -> None:
    """Compare two outcomes, naming what differs instead of printing all of it."""
    assert found["ledger"] == expected["ledger"]
    for part in ("tables", "images"):
        a, b = found[part], expected[part]
        assert isinstance(a, dict) and isinstance(b, dict)
        assert sorted(a) == sorted(b)
        differing = [name for name in a if a[name] != b[name]]
        assert not differing, differing


class Live:
    """`coldstream up` (or `process`) in the background.

    Parameters
    ----------
    arguments
        Of the command.
    log
        File for all that it prints.
    """

    def __init__(self, *arguments: str | Path, log: Path, **env: str):
        self._log = open(log, "a")
        self.popen = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment(**env),
            start_new_session=True,
        )

    def interrupt(self, limit_s: float = 15) -> float:
        """Press Ctrl-C; return how long it took to stop."""
        start = time.monotonic()
        self.popen.send_signal(signal.SIGINT)
        self.wait(limit_s)
        return time.monotonic() - start

    def wait(self, limit_s: float) -> int:
        """Wait for the end; return the exit code."""
        code = self.popen.wait(limit_s)
        self._log.close()
        return code

    def end(self) -> None:
        """Make sure that nothing is left, whatever the test did."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self._log.close()


def done(project: Path) -> int:
    """Return how many movies have gone all the way; asked often, so no process is started."""
    ledger = Ledger(Layout(project))
    try:
        ledger.update()
        return ledger.counts("proc").done
    finally:
        ledger.close()


def wait_for(condition, limit_s: float, what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.1)


def copy_session(raw: Path, out: Path) -> Path:
    """Copy a session, for tests that damage it."""
    return Path(shutil.copytree(raw, out))
