"""Cluster, proc and ranker as processes, killed on the way from a classification to a selection."""

import os
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from algorithms.formats import star
from algorithms.ranker import weights
from algorithms.ranker.constants import RELION
from schemer import templates
from schemer.project import Project
from services.kit import session as sessions
from services.kit.events import (
    ClassesRanked,
    JobStarted,
    RankingDue,
    RankingRefused,
    SelectionAnswered,
    SelectionDue,
)
from services.kit.journal import Reader
from services.kit.paths import Layout
from services.kit.supervisor import Supervisor
from services.ranker.requests import RankRequest
from services.ranker.tasks import rank
from tests.component.test_class_selection import Selected
from tests.ranker_data import CARD, OPTIMISER, averages, class_set, formula_arrays, write_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]

KILLED = [
    *(
        f"ranker.{point}"
        for point in (
            "after-append-before-commit",
            "after-commit-before-bell",
            "before-job-folder",
            "after-job-folder-before-commit",
            "after-attempt-before-submit",
            "before-render",
            "after-render",
        )
    ),
    "worker.rank-half-written",
    "worker.rank-written",
    "proc.after-append-before-commit",
]
IDLE_BYTES = 300e6


def prepared(folder: Path) -> Layout:
    """Return a project whose classification has ended when nobody was there to rank it."""
    live = Selected(folder)
    project = live.layout.project
    write_job(project, class_set(averages(6, 32), n_particles=300))
    weights.write(project / "w.safetensors", formula_arrays(), RELION, CARD)
    settings = {
        "proc__select_parts__other_args": "--weights w.safetensors",
        "proc__select_parts__rank_threshold": "-5",
    }
    templates.install(project, "proc", settings)
    live.end()
    live.start()  # with these settings
    live.arrive(0, 1)
    live.finish(OPTIMISER.removesuffix("_optimiser.star"))
    live.end()
    sessions.save(live.layout, msgspec.structs.replace(live.session, workers=1))
    return live.layout


def events(layout: Layout, producer: str, *kinds: type) -> list:
    path = layout.journal(producer)
    if not path.exists():
        return []
    reader = Reader(path)
    found = [event.body for event in reader.read() if isinstance(event.body, kinds)]
    assert reader.first_broken() is None
    reader.close()
    return found


def test_killed_anywhere_the_answer_is_the_same_and_given_once(tmp_path, monkeypatch):
    layout = prepared(tmp_path)
    crashes = tmp_path / "crashes"
    crashes.mkdir()
    for name in KILLED:
        (crashes / name).touch()
    monkeypatch.setenv("COLDSTREAM_CRASH_DIR", str(crashes))
    lines: list[str] = []
    tail = ["--project", str(layout.project), "--parent", str(os.getpid())]
    modules = {"cluster": "services.kit.cluster_main", "proc": "services.proc"}
    modules["ranker"] = "services.ranker"
    commands = {name: [sys.executable, "-m", m, *tail] for name, m in modules.items()}
    supervisor = Supervisor(commands, lines.append)
    supervisor.start()
    try:
        deadline = time.monotonic() + 400
        while any(crashes.iterdir()) or not events(layout, "proc", SelectionAnswered):
            assert time.monotonic() < deadline, (list(crashes.iterdir()), lines[-30:])
            supervisor.turn(0.3)
        supervisor.turn(1.0)
        idle = psutil.Process(supervisor.pids["ranker"]).memory_info().rss
    finally:
        supervisor.stop()
    assert idle < IDLE_BYTES
    due = events(layout, "ranker", RankingDue)
    told = events(layout, "ranker", ClassesRanked, RankingRefused)
    assert [one.order for one in due] == [one.order for one in told] == [1, 2]
    assert [one.is_final for one in told] == [False, True]
    (job,) = events(layout, "ranker", JobStarted)
    (answer,) = events(layout, "proc", SelectionAnswered)
    assert (answer.job, answer.outcome, answer.particles) == (job.process, "selected", 300)
    folder = layout.project / job.process
    jobs = [path for path in folder.parent.iterdir() if (path / "rank_model.star").exists()]
    assert [path.name for path in jobs] == [folder.name]  # the other one selects micrographs
    assert Project(layout.project).pipeline().status(job.process) == "Succeeded"
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    # Whatever was cut off: doing it once more, with nothing kept, writes the same bytes.
    for path in (layout.hidden / "ranker").glob("*.npz"):
        path.unlink()
    (asked,) = events(layout, "ranker", SelectionDue)
    again = RankRequest(
        order=2,
        process=asked.process,
        iteration=8,
        optimiser=OPTIMISER,
        job=job.process,
        options=asked.options,
        overrides={},
        session=(),
    )
    rank(msgspec.msgpack.encode(again), tmp_path, layout.project)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == found
    assert len(star.load(folder / "particles.star")["particles"]) == 300
