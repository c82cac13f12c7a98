"""`schemer run`, killed: the next one goes on, and ends where an undisturbed one ends.

The Scheme counts, makes a job anew each time round and continues another, copies files, decides
forks. The program notes each call: killing the Scheme's process alone must not make it run twice.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from algorithms.formats import star
from schemer import runlog, starfile, store
from schemer.executors.command import CommandExecutor
from schemer.faults import POINTS
from schemer.jobs import JobFile
from schemer.project import Project
from schemer.runner import Runner
from schemer.scheme import (
    BoolVariable,
    Edge,
    FloatVariable,
    JobRow,
    Operator,
    Scheme,
    StringVariable,
)
from schemer.workbench import Workbench

ROUNDS = 4
PROGRAM = """#!/bin/sh
echo "$1" >>calls.txt
sleep 0.01
cat "$1/job.json" >"$1/result.txt"
"""


def scheme():
    return Scheme(
        name="Schemes/stub/",
        current_node="WAIT",
        floats={
            "n": FloatVariable(0.0, 0.0),
            "third": FloatVariable(0.0, 0.0),
            "sum": FloatVariable(0.0, 0.0),
            "one": FloatVariable(1.0, 1.0),
            "three": FloatVariable(3.0, 3.0),
            "rounds": FloatVariable(float(ROUNDS), float(ROUNDS)),
            "wait_sec": FloatVariable(0.05, 0.05),
        },
        bools={"more": BoolVariable(False, False), "seen": BoolVariable(False, False)},
        strings={
            "result": StringVariable("Schemes/stub/new/result.txt", ""),
            "copied": StringVariable("results/last.txt", ""),
            "flag": StringVariable("results/flag", ""),
            "name": StringVariable("x", ""),
            "suffix": StringVariable("y", ""),
        },
        operators={
            "WAIT": Operator("wait", input1="wait_sec"),
            "THIRD": Operator("float=divide", "third", "one", "three"),
            "SUM": Operator("float=plus", "sum", "sum", "third"),
            "COUNT": Operator("float=plus", "n", "n", "one"),
            "NAME": Operator("string=join", "name", "name", "suffix"),
            "COPY": Operator("copy_file", input1="result", input2="copied"),
            "TOUCH": Operator("touch_file", input1="flag"),
            "SEEN": Operator("bool=file_exists", "seen", "flag"),
            "MORE": Operator("bool=lt", "more", "n", "rounds"),
            "EXIT": Operator("exit"),
        },
        jobs={"again": JobRow("again", "continue"), "new": JobRow("new", "new")},
        edges=(
            Edge("WAIT", "THIRD"),
            Edge("THIRD", "SUM"),
            Edge("SUM", "COUNT"),
            Edge("COUNT", "again"),
            Edge("again", "new"),
            Edge("new", "COPY"),
            Edge("COPY", "TOUCH"),
            Edge("TOUCH", "SEEN"),
            Edge("SEEN", "EXIT", True, "NAME", "seen"),
            Edge("NAME", "MORE"),
            Edge("MORE", "EXIT", True, "WAIT", "more"),
        ),
    )


def install(project):
    folder = project / "Schemes" / "stub"
    for node in ("again", "new"):
        (folder / node).mkdir(parents=True)
        options = {"fn_exe": "$$name", "param1_label": "n", "param1_value": "$$sum"}
        (folder / node / "job.star").write_text(JobFile("relion.external", options).dumps())
    (folder / "scheme.star").write_text(starfile.dump(scheme()))
    program = project / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)


def run(project):
    """Run the Scheme in this process; return the exit code."""
    bench = Workbench(Project(project, retry_s=0.01), (CommandExecutor("./program", project),))
    return Runner(bench, "stub").run().exit_code


def outcome(project):
    """Everything that a killed run must leave as an undisturbed one does."""
    one = starfile.read(project / "Schemes/stub")
    log = runlog.read(project / "Schemes/stub")
    last = [entry for entry in log if entry.run == log[-1].run]
    pipeline = {name: t.columns for name, t in star.load(project / "default_pipeline.star").items()}
    exact = next((block for block in one.unknown if block.name == "coldstream_floats"), None)
    return {
        "current": one.current_node,
        "variables": (one.floats, one.bools, one.strings),
        "exact": exact.columns if exact else None,
        "jobs": one.jobs,
        "pipeline": pipeline,
        "visited": runlog.visited(last),
        "calls": (project / "calls.txt").read_text().split(),
        "copied": (project / "results/last.txt").read_text(),
        "success": (project / "Schemes/stub/RELION_JOB_EXIT_SUCCESS").exists(),
        "folders": sorted(str(p.relative_to(project)) for p in project.glob("External/*")),
        "locks": list(project.glob(".relion_lock*")),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    project = tmp_path_factory.mktemp("undisturbed")
    install(project)
    assert run(project) == 0
    expected = outcome(project)
    assert expected["current"] == "EXIT" and expected["variables"][0]["n"].value == ROUNDS
    assert len(expected["calls"]) == 2 * ROUNDS and len(expected["folders"]) == ROUNDS + 1
    return expected


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_crash_point(tmp_path, undisturbed, point):
    install(tmp_path)
    flags = tmp_path / "crash"
    flags.mkdir()
    command = [sys.executable, "-m", "schemer", "run", "-p", tmp_path, "-s", "stub"]
    command += ["--executor", "command:./program", "--quiet"]
    environment = {**os.environ, "COLDSTREAM_CRASH_DIR": str(flags)}
    kills = 0
    for _ in range(2):  # at its first time, and at the first time of the run that follows
        (flags / point).touch()
        done = subprocess.run(command, env=environment, timeout=60, check=False)
        kills += done.returncode == -signal.SIGKILL
    assert kills >= 1, f"{point} was never passed"
    (flags / point).unlink(missing_ok=True)
    if not (tmp_path / "Schemes/stub/RELION_JOB_EXIT_SUCCESS").exists():
        assert subprocess.run(command, timeout=60, check=False).returncode == 0
    assert outcome(tmp_path) == undisturbed


def killed_after(project, seconds):
    """Run in a process of its own, and kill that after a time; return whether it had ended."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = run(project)
            store.acknowledge(project / "Schemes" / "stub")
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def kill_often(folder, undisturbed, kills, seed):
    dice = random.Random(seed)
    done = 0
    while done < kills:
        project = folder / f"k{done}"
        project.mkdir()
        install(project)
        while done < kills and not killed_after(project, dice.expovariate(1 / 0.05)):
            done += 1
        if done == kills:
            assert run(project) == 0
        assert outcome(project) == undisturbed, f"seed {seed}, kill {done}"
        shutil.rmtree(project)


def test_killed_at_random(tmp_path, undisturbed):
    kill_often(tmp_path, undisturbed, 60, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_a_thousand_times(tmp_path, undisturbed):
    kill_often(tmp_path, undisturbed, 1000, seed=2)
