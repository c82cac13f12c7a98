"""refine dies once at each of its named points: each of its jobs is made and ended once."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from schemer.project import Project
from services.kit.bus import Producer
from services.kit.events import (
    Body,
    ClassesAveraged,
    Event,
    JobStarted,
    MapFailed,
    ParticlesTaken,
    SelectionAnswered,
)
from services.kit.journal import Draft, Journal, Reader
from services.kit.paths import Layout
from services.setup import set_up

POINTS = (
    "after-append-before-commit",
    "after-commit-before-bell",
    "before-job-folder",
    "after-job-folder-before-commit",
    "before-render",
    "after-render",
)
LIMIT_S = 120.0


@contextmanager
def told(layout: Layout, *bodies: Body) -> Iterator[Producer]:
    """Serve a journal of proc with these events."""
    context = zmq.Context()
    journal = Journal(layout.journal("proc"), "proc", "session1")
    journal.commit([Draft(body, time.time()) for body in bodies])
    producer = Producer(context, journal, layout.bell("proc"), layout.desk("proc"))
    try:
        yield producer
    finally:
        producer.close()
        context.term()
        journal.close()


def events(layout: Layout, kind) -> list[Event]:
    path = layout.journal("refine")
    if not path.exists():
        return []
    reader = Reader(path)
    found = [event for event in reader.read() if isinstance(event.body, kind)]
    reader.close()
    return found


@pytest.mark.slow
def test_every_named_crash_point(tmp_path: Path) -> None:
    raw, project, crashes = (tmp_path / name for name in ("raw", "project", "crashes"))
    raw.mkdir()
    crashes.mkdir()
    # A job that is refused at once: what it would compute is tested elsewhere.
    settings = {
        "refine__min_nr_parts_3d": "10",
        "refine__iniref": "reference.mrc",
        "refine__refine3d__other_args": "--no_such_argument",
    }
    layout, _ = set_up(project, raw, {"workers": 1}, settings)
    (project / "reference.mrc").touch()
    for point in POINTS:
        (crashes / f"refine.{point}").touch()
    averaged = ClassesAveraged(
        process="Class2D/job001/",
        iteration=9,
        particles=50,
        optimiser="Class2D/job001/run_it009_optimiser.star",
        montage="Class2D/job001/run_classes.png",
    )
    answered = SelectionAnswered(
        process="Class2D/job001/", visit=1, job="Select/job002/", outcome="selected", particles=40
    )
    command = [sys.executable, "-m", "services.refine", "--project", str(project)]
    environment = {**os.environ, "COLDSTREAM_CRASH_DIR": str(crashes), "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[2]
    deaths, process = 0, None
    with told(layout, averaged, answered) as proc, open(tmp_path / "log", "wb") as log:
        deadline = time.monotonic() + LIMIT_S
        try:
            while list(crashes.iterdir()) or not events(layout, MapFailed):
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
                if process is None or process.poll() is not None:
                    deaths += process is not None
                    process = subprocess.Popen(
                        command, cwd=root, env=environment, stdout=log, stderr=log
                    )
                proc.beat(time.monotonic())
                proc.serve()
                time.sleep(0.02)
        finally:
            if process is not None:
                process.terminate()
                process.wait(20)
    assert deaths >= len(POINTS)
    assert [event.body.is_held for event in events(layout, ParticlesTaken)] == [True, False]
    (started,) = events(layout, JobStarted)
    (failed,) = events(layout, MapFailed)
    assert failed.body.process == started.body.process == "Refine3D/job001/"
    assert "--no_such_argument" in failed.body.detail
    assert Project(project).pipeline().processes == {"Refine3D/job001/": "Failed"}
    reader = Reader(layout.journal("refine"))
    assert reader.first_broken() is None
    reader.close()
