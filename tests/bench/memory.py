"""Memory and start of services that know a long session; nothing is computed, the states are real.

`measure` is also what tests/system/test_memory.py asks.
"""

import time
from pathlib import Path
from typing import NamedTuple

from services.kit.main import cluster_address
from services.kit.paths import Layout
from services.kit.session import Session
from services.setup import set_up
from tests.bench import grown
from tests.bench.figures import Bench, median
from tests.bench.processes import cluster, memory_MB, service

MOVIES, FULL = 10_000, 30_000
GOAL_MB = 300.0
NAMES = ("mdcatch", "prep", "proc")
FIRST, LAST = slice(100, 600), slice(-500, None)


class Held(NamedTuple):
    """What a service that has started holds and took."""

    started_s: float
    memory_MB: float
    peak_MB: float
    stopped_s: float


def run(bench: Bench) -> None:
    """Measure memory, start and rendering at 10,000 movies."""
    count = FULL if bench.full else MOVIES
    project = bench.folder / "project"
    bench.say(f"making {count:,} exposures")
    layout, session = grown.set_up_grown(project, bench.folder / "raw", count)
    with cluster(project, bench.folder / "cluster.log") as running:
        _grow(bench, layout, session, count)
        running.started()
        empty = _empty(bench, cluster_address(layout, session))
        for name in NAMES:
            bench.say(f"{name}: start from the journal")
            first = measure(name, project, bench.folder)
            bench.say(f"{name}: start from a snapshot")
            second = measure(name, project, bench.folder)
            worst = max(first.memory_MB, second.memory_MB)
            bench.goal(f"{name}: memory", worst, "MB", GOAL_MB, "below 300 MB")
            bench.floor(f"{name}: memory", worst, "MB", empty[name], "without movies")
            bench.add("  the most it ever had", max(first.peak_MB, second.peak_MB), "MB")
            bench.add("  start to live, replaying all", first.started_s, "s")
            bench.add("  start to live, from a snapshot", second.started_s, "s")
            bench.add("  stop, writing views and snapshot", second.stopped_s, "s")
    bench.note(
        f"{count:,} movies that have gone all the way, each in a pass of its own; "
        f"{grown.PARTICLES} particles each. Memory is VmRSS after the first views are written."
    )


def _empty(bench: Bench, scheduler: str) -> dict[str, float]:
    """Return the memory of services that know nothing: their code."""
    raw, project = bench.folder / "empty", bench.folder / "empty_project"
    raw.mkdir()
    set_up(project, raw, {"scheduler": scheduler}, {})
    held = {}
    for name in NAMES:
        bench.say(f"{name}: without movies")
        held[name] = measure(name, project, bench.folder).memory_MB
    return held


def _grow(bench: Bench, layout: Layout, session: Session, count: int) -> None:
    """Make the journals; add what a movie costs a service, and what its views cost."""
    bench.say("mdcatch: journal")
    grown.grow_mdcatch(layout, session, count).journal.close()
    for name, grow in (("prep", grown.grow_prep), ("proc", grown.grow_proc)):
        bench.say(f"{name}: journal")
        pace: list[float] = []
        driver = grow(layout, session, pace)
        bench.add(
            f"{name}: deciding and folding a movie, first ones", 1e3 * median(pace[FIRST]), "ms"
        )
        bench.add("the same, last ones", 1e3 * median(pace[LAST]), "ms")
        bench.say(f"{name}: views")
        driver.service.render(driver.state, everything=True)  # the first one joins all particles
        begun = time.perf_counter()
        driver.service.render(driver.state, everything=True)
        bench.add(f"{name}: writing all views", time.perf_counter() - begun, "s")
        driver.journal.close()


def measure(name: str, project: Path, folder: Path) -> Held:
    """Start a service, wait until it is at rest, and stop it."""
    with service(name, project, folder / f"{name}.log") as process:
        started_s = process.started()
        process.settle()
        held = memory_MB(process.popen.pid)
        stopped_s = process.stop()
    return Held(started_s, held, process.peak_MB, stopped_s)
