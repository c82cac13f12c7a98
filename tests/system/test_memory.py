"""Services that know many movies stay small: real processes, journals of a long session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.kit.ledger import Ledger
from services.kit.paths import Layout
from tests.bench import grown, memory
from tests.bench.processes import cluster

# What a service is allowed at 10,000 movies; without any it holds 60 to 90 MB of code.
LIMIT_MB = 300.0
BASE_MB = 100.0
LONG, SHORT = 10_000, 1_000


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return the project of a session that has gone all the way, with a cluster that runs."""
    folder = tmp_path / "project"
    layout, session = grown.set_up_grown(folder, tmp_path / "raw", request.param)
    with cluster(folder, tmp_path / "cluster.log") as running:
        grown.grow_mdcatch(layout, session, request.param).journal.close()
        for grow in (grown.grow_prep, grown.grow_proc):
            grow(layout, session).journal.close()
        running.started()
        yield folder


def check(project: Path, folder: Path, count: int, limit_MB: float, starts: list[str]) -> None:
    """Start each service and weigh it; the second start is from the snapshot of the first."""
    for name in memory.NAMES:
        for start in starts:
            held = memory.measure(name, project, folder)
            assert held.memory_MB < limit_MB, (name, start, held)
    ledger = Ledger(Layout(project))
    ledger.update()
    counts = [ledger.counts(name) for name in memory.NAMES]
    ledger.close()
    # What was weighed did know all movies, and starting changed nothing.
    assert [(c.seen, c.done) for c in counts] == [(count, count)] * 3


@pytest.mark.parametrize("project", [SHORT], indirect=True)
def test_memory_at_a_thousand_movies(project: Path, tmp_path: Path) -> None:
    """A tenth of the movies may take a tenth of the room that movies have."""
    limit_MB = BASE_MB + (LIMIT_MB - BASE_MB) * SHORT / LONG
    check(project, tmp_path, SHORT, limit_MB, ["journal"])


@pytest.mark.slow
@pytest.mark.parametrize("project", [LONG], indirect=True)
def test_memory_at_ten_thousand_movies(project: Path, tmp_path: Path) -> None:
    """The goal of the design: below 300 MB."""
    check(project, tmp_path, LONG, LIMIT_MB, ["journal", "snapshot"])
