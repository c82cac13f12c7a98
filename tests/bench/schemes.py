"""Transitions of a Scheme, in memory and written durably, and what a large session adds."""

import time
from pathlib import Path

from schemer import starfile, store
from schemer.exchange import Go
from schemer.scheme import (
    BoolVariable,
    Edge,
    FloatVariable,
    Operator,
    Scheme,
    StringVariable,
)
from schemer.sheet import Sheet
from schemer.walk import apply, begin, step
from schemer.world import ProjectWorld
from tests.bench.figures import Bench, median, percentile

TRANSITIONS, WRITTEN, MICROGRAPHS = 30_000, 300, 100_000
GOAL_PER_S, GOAL_MS = 10_000.0, 10.0
WHERE = "what was promised"
COUNTED = "CtfFind/job003/micrographs_ctf.star"


def scheme() -> Scheme:
    """Return a loop of operators, one of which asks for the rows of a STAR file."""
    return Scheme(
        name="Schemes/loop/",
        current_node="ADD",
        floats={name: FloatVariable(1.0, 0.0) for name in ("n", "one", "rows")},
        bools={"more": BoolVariable(True, True)},
        strings={
            "mics": StringVariable(COUNTED, ""),
            "table": StringVariable("micrographs", ""),
        },
        operators={
            "ADD": Operator("float=plus", "n", "n", "one"),
            "MORE": Operator("bool=gt", "more", "n", "rows"),
            "COUNT": Operator("float=count_images", "rows", "mics", "table"),
        },
        edges=(
            Edge("ADD", "MORE"),
            Edge("MORE", "COUNT", True, "COUNT", "more"),
            Edge("COUNT", "ADD"),
        ),
    )


def run(bench: Bench) -> None:
    """Measure transitions per second without a disk, and milliseconds with one."""
    one = scheme()
    (bench.folder / "CtfFind/job003").mkdir(parents=True)
    table = bench.folder / COUNTED
    bench.say("in memory")
    small = _in_memory(bench.folder, one, table, 100)
    large = _in_memory(bench.folder, one, table, MICROGRAPHS)
    bench.goal("in memory", small, "/s", GOAL_PER_S, WHERE)
    bench.goal(f"same, {MICROGRAPHS} micrographs", large, "/s", GOAL_PER_S, WHERE)
    bench.say("written")
    took = _written(bench.folder, one)
    floor = median(_syncs(bench.folder)) * 1e3
    bench.floor("written durably, median", median(took) * 1e3, "ms", floor, "two syncs")
    worst = percentile(took, 99) * 1e3
    bench.goal("written durably, 99 %", worst, "ms", GOAL_MS, WHERE)
    bench.note("Written: lock, look for foreign changes, text, file, sync, rename, sync.")


def _in_memory(folder: Path, one: Scheme, table: Path, rows: int) -> float:
    """Return operator transitions per second."""
    lines = "".join(f"MotionCorr/job002/m{i:06d}.mrc 3.5\n" for i in range(rows))
    head = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n1\n\ndata_micrographs\n\nloop_\n"
    table.write_text(f"{head}_rlnMicrographName #1\n_rlnCtfMaxResolution #2\n{lines}\n")
    walk, world = begin(one), ProjectWorld(folder)
    begun = time.perf_counter()
    for _ in range(TRANSITIONS):
        for move in step(one, walk, Go(0.0), world, strict=True).moves:
            apply(walk, move)
    return TRANSITIONS / (time.perf_counter() - begun)


def _written(folder: Path, one: Scheme) -> list[float]:
    home = folder / "Schemes" / "loop"
    home.mkdir(parents=True)
    (home / "scheme.star").write_text(starfile.dump(one))
    sheet = Sheet(home)
    opened = sheet.open(killed=False)
    walk, world, took = opened.walk, ProjectWorld(folder), []
    for serial in range(WRITTEN):
        begun = time.perf_counter()
        for move in step(one, walk, Go(0.0), world, strict=True).moves:
            apply(walk, move)
        with store.edit_lock(home):
            assert not sheet.is_changed()
            sheet.save(one, walk, opened.run, serial, "")
        took.append(time.perf_counter() - begun)
    return took


def _syncs(folder: Path) -> list[float]:
    """Return the seconds of writing 2 kB with the two syncs that durability needs."""
    from algorithms.formats.atomic import atomic_write

    took = []
    for _ in range(WRITTEN):
        begun = time.perf_counter()
        atomic_write(folder / "floor", b"x" * 2048)
        took.append(time.perf_counter() - begun)
    return took
