"""Reading and writing a large STAR file, beside the starfile package."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from algorithms.formats import star
from tests.bench.figures import Bench, median

ROWS, NUMBERS, TEXTS = 100_000, 14, 2
REPEATS = 3
GOAL_S = 0.5


def run(bench: Bench) -> None:
    """Measure seconds for 100,000 rows of 16 columns, read and written."""
    rng = np.random.default_rng(1)
    columns: dict[str, Any] = {
        f"rlnNumber{i}": rng.normal(1000.0, 400.0, ROWS) for i in range(NUMBERS)
    }
    for i in range(TEXTS):
        columns[f"rlnText{i}"] = [
            f"{row:06d}@Extract/job006/Movies/m{i}.mrcs" for row in range(ROWS)
        ]
    ours, theirs = bench.folder / "ours.star", bench.folder / "theirs.star"

    def write() -> None:
        star.save(ours, {"particles": star.Table.of(columns)}, durable=False)

    def read() -> None:
        table = star.load(ours)["particles"]
        for i in range(NUMBERS):
            table.floats(f"rlnNumber{i}")

    bench.say("ours")
    took = {"write": _seconds(write), "read": _seconds(read)}
    for what, seconds in took.items():
        bench.goal(what, seconds, "s", GOAL_S, "architecture.md 2")
    if importlib.util.find_spec("starfile") is None:
        bench.note("No peer: the starfile package is not installed.")
        return
    _peer(bench, columns, took, theirs)
    bench.note("Read: until all numbers are float64 arrays. Write: from arrays to the file.")


def _peer(bench: Bench, columns: dict[str, Any], took: dict[str, float], path: Path) -> None:
    import pandas
    import starfile

    frame = pandas.DataFrame(columns)
    bench.say("starfile")
    write = _seconds(lambda: starfile.write(frame, path), 1)
    read = _seconds(lambda: starfile.read(path), 1)
    bench.peer("write", took["write"], "s", write, "starfile")
    bench.peer("read", took["read"], "s", read, "starfile")


def _seconds(function: Callable[[], object], repeats: int = REPEATS) -> float:
    took = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        took.append(time.perf_counter() - begun)
    return median(took)
