"""A process that makes and runs jobs, killed at random: what it had reported is in the project.

After the next call there is no lock, no half of a file and no number twice, whatever the kill cut.
"""

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest

from algorithms.formats import star
from schemer.jobs import JobFile
from schemer.project import Project

SHM = Path("/dev/shm")  # noqa: S108
FOLDER_FILES = {"job.star", "job_pipeline.star", "note.txt", "run.out", "run.err"}

# The children only touch files, so the threads that a fork leaves behind do not matter.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def memory(tmp_path):
    """A folder in memory where there is one: a killed process does not need a real disk."""
    if not os.access(SHM, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        yield Path(folder)


def opened(root, generation):
    return Project(root, generation=generation, retry_s=0.001, tries=100)


def work(project, first, report):
    """Make jobs from number `first` on and run each; report every call that has come back."""
    for n in range(first, first + 1000):
        outputs = [("mask.mrc", "Mask3D.mrc.relion"), ("more.mrc", "Mask3D.mrc.relion.mine")]
        process = project.create_job("S/", f"n{n}", "relion.maskcreate", {}, (), outputs)
        report(f"{n} {process} made")  # by this process or the one before
        for status in ("Running", "Succeeded", "Running", "Failed"):
            project.set_status(process, status, command="x")
            report(f"{n} {process} {status}")
        project.set_alias(process, f"alias{n}")
        report(f"{n} {process} Failed")


def killed(project, first, seconds):
    """Let a child work for a time, and kill it; return its reports as (node, process, status)."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        try:
            work(project, first, lambda text: os.write(sink, f"{text}\n".encode()))
        finally:
            os._exit(1)
    os.close(sink)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    with os.fdopen(source) as file:
        reports = [line.split() for line in file.read().splitlines()]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return reports


def whole(root, generation, known):
    """Check the project; `known` is the last reported status of each process."""
    project = opened(root, generation)
    project.check_completion()
    project.remake_nodes()  # one that takes the lock in any case
    assert not (root / ".relion_lock").exists()
    assert not list(root.glob(".*.tmp")), "an unfinished copy was left"
    pipeline = project.pipeline()
    numbers = [int(name.rstrip("/").rpartition("/job")[2]) for name in pipeline.processes]
    assert len(numbers) == len(set(numbers)) and pipeline.counter > max(numbers, default=0)
    for process, status in known.items():
        # What was under way may have come further than its last report.
        assert pipeline.status(process) in (status, *AFTER[status]), process
        folder = root / process
        assert {path.name for path in folder.iterdir()} >= FOLDER_FILES
        assert JobFile.load(folder / "job.star").label == "relion.maskcreate"
        star.load(folder / "job_pipeline.star")
        assert pipeline.outputs(process) == [process + "mask.mrc", process + "more.mrc"]
    assert len(pipeline.nodes) == 2 * len(numbers)
    if generation != "3.1":
        return
    assert {*pipeline.nodes.values()} <= {"Mask3D.mrc.relion", "Mask3D.mrc.relion.mine"}


AFTER = {
    "made": ("Scheduled", "Running", "Succeeded", "Failed"),
    "Running": ("Succeeded", "Failed"),
    "Succeeded": ("Running",),
    "Failed": (),
}


def kill_often(root, generation, kills, seed):
    dice = random.Random(seed)
    opened(root, generation).init()
    known, node = {}, 0
    for _ in range(kills):
        reports = killed(opened(root, generation), node, dice.expovariate(1 / 0.03))
        for name, process, status in reports:
            known[process] = status
            node = int(name)
        whole(root, generation, {process: known[process] for process in list(known)[-3:]})
    # The job that the last kill cut is found again, not made twice.
    again = opened(root, generation).create_job(
        "S/", f"n{node}", "relion.maskcreate", {}, (), [("mask.mrc", "Mask3D.mrc.relion")]
    )
    assert not known or again == list(known)[-1]
    for process in known:
        assert opened(root, generation).pipeline().status(process) is not None
    assert len(known) > kills / 20, "the children were too slow for the test to mean something"


@pytest.mark.parametrize("generation", ["5.0", "3.1"])
def test_killed_at_random(memory, generation):
    kill_often(memory, generation, 50, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("generation", ["5.0", "4.0", "3.1"])
def test_killed_a_thousand_times(memory, generation):
    kill_often(memory, generation, 1000, seed=2)
