"""A worker keeps the memory of one movie for the next: page faults cost more than alignment."""

import resource
import select
from pathlib import Path

import msgspec
import numpy as np

from services.kit.journal import Journal
from services.kit.main import cluster_address
from services.kit.runner import Runner
from services.kit.work import Output, Task, content_key
from tests.bench import grown
from tests.bench.processes import cluster

ARRAYS, BYTES = 20, 8 << 20  # as of a movie of 1400 x 1400


def work(request: bytes, folder: Path, project: Path) -> Output:
    """Fill arrays and drop them, twice; tell how many pages the second time had to be got."""
    faults = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(ARRAYS):
            np.ones(BYTES, np.uint8)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return Output(msgspec.msgpack.encode(faults[1]), {})


def test_freed_memory_is_used_again(tmp_path: Path) -> None:
    project = tmp_path / "project"
    layout, session = grown.set_up_grown(project, tmp_path / "raw", 1)
    task = Task("t:m", "t", "m", content_key("t", "m"), f"{__name__}:work", b"")
    with cluster(project, tmp_path / "log") as running:
        running.started()
        journal = Journal(layout.journal("prep"), "prep", session.name)
        runner = Runner(project, cluster_address(layout, session), journal)
        try:
            runner.begin([task])
            select.select([runner.wake_fd], [], [], 30)
            (outcome,) = runner.outcomes()
        finally:
            runner.close()
            journal.close()
    assert outcome.reply is not None and outcome.reply.result is not None, outcome
    # With Dask's own setting it is every page of every array: 40,960 of 4 KiB.
    assert msgspec.msgpack.decode(outcome.reply.result, type=int) < 1000
