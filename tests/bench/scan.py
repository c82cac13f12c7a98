"""mdcatch on a folder that is already full: time to publish it all, and what idling costs."""

import math
import time
from pathlib import Path

from algorithms.simulate.epu import exposure_xml, plan_session
from algorithms.simulate.session import encode_tiff
from mdcatch.config import MdcatchConfig
from mdcatch.service import Mdcatch
from mdcatch.source import EpuSource
from services.kit.events import MovieSettled
from services.kit.journal import Reader
from services.kit.paths import Layout
from services.setup import set_up
from tests.bench.figures import Bench, median
from tests.bench.grown import SEED, long_recipe
from tests.bench.processes import Process, memory_MB, processor_s, service

EXPOSURES, FULL = 2_000, 10_000
SETTLE_S = 0.5  # as `coldstream process` has it
IDLE_S = 5.0
LIMIT_S = 300.0


def run(bench: Bench) -> None:
    """Measure publishing and idling."""
    count = FULL if bench.full else EXPOSURES
    raw, project = bench.folder / "raw", bench.folder / "project"
    bench.say(f"writing {count:,} exposures")
    floor = _floor(_tree(raw, count))
    changes = {"close_when_idle": True, "settle_s": SETTLE_S, "workers": 1}
    layout, _ = set_up(project, raw, changes, {})
    with service("mdcatch", project, bench.folder / "log") as process:
        started_s = process.started()
        begun = time.time()
        _wait(bench, process, layout, count)
        last = _last_settled(layout)
        bench.add("start of the process", started_s, "s")
        bench.floor(
            f"{count:,} exposures published",
            last - begun,
            "s",
            SETTLE_S + floor,
            f"{SETTLE_S:g} s + walking and reading",
        )
        bench.add("exposures per second", count / (last - begun), "movies/s")
        process.settle()
        used = processor_s(process.popen.pid)
        bench.say("idle")
        time.sleep(IDLE_S)
        idle = 100 * (processor_s(process.popen.pid) - used) / IDLE_S
        bench.add("idle, share of one core", idle, "%")
        bench.add("memory", memory_MB(process.popen.pid), "MB")
    bench.add("an idle poll, median", 1e3 * _idle_poll(raw, layout), "ms")
    bench.note(
        "Movies of 64 x 64 x 4 with their own metadata; all but the file contents is as in a real "
        "session. Floor: settling, listing all folders and reading all files once."
    )


def _tree(raw: Path, count: int) -> Path:
    """Write exposures that share one small movie."""
    from dataclasses import replace

    import numpy as np

    recipe = replace(long_recipe(count), nx=64, ny=64, n_frames=4)
    frames = np.random.default_rng(1).poisson(1.0, (4, 64, 64)).astype(np.uint8)
    movie = encode_tiff(frames, recipe.pixel_size_A)
    for exposure in plan_session(recipe, SEED):
        place = raw / exposure.movie
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_name(f"{exposure.stem}_fractions.tiff").write_bytes(movie)
        xml = exposure_xml(recipe, exposure, 15000.0, SEED)
        place.with_name(f"{exposure.stem}.xml").write_text(xml)
    return raw


def _floor(raw: Path) -> float:
    begun = time.perf_counter()
    for path in raw.rglob("*"):
        if path.is_file():
            path.read_bytes()
    return time.perf_counter() - begun


def _wait(bench: Bench, process: Process, layout: Layout, count: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while "session.closed" not in process.log.read_text():
        if time.monotonic() > deadline or process.popen.poll() is not None:
            raise RuntimeError("mdcatch did not finish:\n" + process.log.read_text()[-1000:])
        bench.say(f"{process.log.read_text().count('movie.settled')} of {count} published")
        time.sleep(0.1)


def _last_settled(layout: Layout) -> float:
    reader = Reader(layout.journal("mdcatch"))
    times = [event.at for event in reader.read() if isinstance(event.body, MovieSettled)]
    reader.close()
    return max(times, default=math.nan)


def _idle_poll(raw: Path, layout: Layout) -> float:
    """Return the seconds of a poll in which nothing is new."""
    config = MdcatchConfig(raw=str(raw), inotify=False)
    service, source = Mdcatch(config), EpuSource(config)
    state = service.empty()
    reader = Reader(layout.journal("mdcatch"))
    for event in reader.read():
        service.apply(state, event.body, event.at)
    reader.close()
    took = []
    for turn in range(40):
        begun = time.perf_counter()
        source.poll(1000.0 + turn, state)
        took.append(time.perf_counter() - begun)
    source.close()
    return median(took[10:])
