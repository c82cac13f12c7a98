"""Killed at any moment: after a restart nothing is lost, nothing doubled, nothing different."""

import random
import time
from pathlib import Path

import psutil
import pytest

from services.kit.faults import POINTS
from services.kit.journal import Reader
from services.kit.paths import Layout
from tests.system import sessions

WORK = [point for point in POINTS if point.startswith("work-")]
JOB = ["before-job-folder", "after-job-folder-before-commit"]
TASKS = ["after-attempt-before-submit"]
EVERYWHERE = [p for p in POINTS if p not in (*WORK, *JOB, *TASKS)]


def check_once(project: Path) -> None:
    """Check that every movie has one result at every stage, and that all chains hold."""
    for producer in ("mdcatch", "prep", "proc"):
        reader = Reader(Layout(project).journal(producer))
        assert reader.first_broken() is None
        seen: dict[tuple[str, str], int] = {}
        for event in reader.read():
            kind = type(event.body).__name__
            if kind.startswith(("Movie", "Micrograph", "Particles")):
                seen[kind, event.subject] = seen.get((kind, event.subject), 0) + 1
        assert {k: n for k, n in seen.items() if n != 1} == {}
        reader.close()


def test_every_named_crash_point(raw30: Path, undisturbed: dict, tmp_path: Path) -> None:
    """Each process dies once at each of its points; the session ends as if nothing had been."""
    crashes = tmp_path / "crashes"
    crashes.mkdir()
    armed = [f"{p}.{point}" for p in ("mdcatch", "prep", "proc") for point in EVERYWHERE]
    armed += [f"{p}.{point}" for p in ("prep", "proc") for point in (*JOB, *TASKS)]
    for name in armed:
        (crashes / name).touch()
    project = tmp_path / "project"
    live = sessions.Live(
        "process",
        raw30,
        "--project",
        project,
        *sessions.SETTINGS,
        log=tmp_path / "log",
        COLDSTREAM_CRASH_DIR=str(crashes),
    )
    try:
        # One worker point at a time: three in a row on one movie would rightly refuse it.
        for point in WORK:
            waiting = crashes / f"worker.{point}"
            waiting.touch()
            sessions.wait_for(lambda w=waiting: not w.exists(), 120, str(waiting))
        assert live.wait(240) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        live.end()
    assert [p.name for p in crashes.iterdir()] == [], "these points were never passed"
    sessions.assert_same(sessions.outcome(project), undisturbed)
    check_once(project)


@pytest.mark.timeout(900)
def test_twenty_random_kills(raw30: Path, undisturbed: dict, tmp_path: Path) -> None:
    """SIGKILL of any process at random times, the supervisor included, twenty times."""
    chance = random.Random(20)
    killed: list[str] = []
    while len(killed) < 20:
        before = len(killed)
        project = tmp_path / f"project{before}"
        disturb(raw30, project, chance, killed, project.with_suffix(".log"))
        assert len(killed) > before, "the session was over before it could be disturbed"
        sessions.assert_same(sessions.outcome(project), undisturbed)
        check_once(project)


def disturb(raw: Path, project: Path, chance: random.Random, killed: list[str], log: Path) -> None:
    """Process a session while processes are killed; start it again whenever all of it is dead."""
    command = ("process", raw, "--project", project, *sessions.SETTINGS)
    live = sessions.Live(*command, log=log)
    try:
        deadline = time.monotonic() + 300
        while live.popen.poll() != 0:
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            if live.popen.poll() is not None:
                live.end()
                live = sessions.Live(*command, log=log)
            if len(killed) < 20:
                time.sleep(chance.uniform(0.3, 2.0))
                killed += kill_one(live.popen.pid, chance, killed)
            else:
                time.sleep(0.2)
    finally:
        live.end()
    sessions.wait_for(lambda: not left(project), 15, f"the end of {left(project)}")


def left(project: Path) -> list[str]:
    """Return the processes of a project that still run."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if str(project) in line and "--parent" in line:
            found.append(" ".join(line))
    return found


def kill_one(root: int, chance: random.Random, killed: list[str]) -> list[str]:
    """SIGKILL the supervisor or any process below it; return its name, if one was killed."""
    try:
        top = psutil.Process(root)
        tree = [p for p in (top, *top.children(recursive=True)) if p.is_running()]
        tree = [p for p in tree if p.status() != psutil.STATUS_ZOMBIE]
        if not tree:
            return []
        victim = chance.choice(tree)
        name = "supervisor" if victim.pid == root else victim.name()
        # A movie whose worker dies three times is refused, and rightly so: spread the workers.
        is_worker = name != "supervisor" and "coldstream" not in name
        if is_worker and name in killed[-3:]:
            return []
        victim.kill()
        return [name]
    except psutil.NoSuchProcess:
        return []
