"""mdcatch on a folder that is already full, on one that fills, and on one where nothing happens."""

import math
import struct
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from algorithms.simulate.epu import Exposure, exposure_xml, plan_session
from algorithms.simulate.recipe import Recipe
from algorithms.simulate.session import encode_tiff
from mdcatch.config import MdcatchConfig
from mdcatch.service import Mdcatch
from mdcatch.source import RawSource
from services.kit.events import MovieSettled
from services.kit.journal import Reader
from services.kit.paths import Layout
from services.setup import set_up
from tests.bench.figures import Bench, median, percentile
from tests.bench.grown import SEED, long_recipe
from tests.bench.processes import Process, family, memory_MB, processor_s, service

EXPOSURES, FULL = 2_000, 10_000
SETTLE_S = 0.5  # as `coldstream process` has it
IDLE_S = 20.0
LIMIT_S = 300.0
# What has to hold for 10,000 exposures, and from the close of a file.
PUBLISHED_S, MEMORY_MB, IDLE_PERCENT, LATENCY_S = 60.0, 300.0, 1.0, 1.2
LIVE, LIVE_SETTLE_S, PAUSE_S = 150, 1.0, 0.1


def run(bench: Bench) -> None:
    """Measure publishing, idling, and the latency from the last byte to the event."""
    count = FULL if bench.full else EXPOSURES
    raw, project = bench.folder / "raw", bench.folder / "project"
    bench.say(f"writing {count:,} exposures")
    floor = _floor(_tree(raw, count))
    changes = {"close_when_idle": True, "settle_s": SETTLE_S, "workers": 1}
    layout, _ = set_up(project, raw, changes, {})
    with service("mdcatch", project, bench.folder / "log") as process:
        started_s = process.started()
        begun = time.time()
        peak_MB = _wait(bench, process, layout, count)
        last = _last_settled(layout)
        bench.add("start of the process", started_s, "s")
        bench.goal(
            f"{count:,} exposures published",
            last - begun,
            "s",
            PUBLISHED_S * count / FULL,
            f"{PUBLISHED_S:g} s for {FULL:,}",
        )
        bench.floor("the same, and its floor", last - begun, "s", SETTLE_S + floor, _FLOOR)
        bench.add("exposures per second", count / (last - begun), "movies/s")
        bench.goal("memory at most, with the parser", peak_MB, "MB", MEMORY_MB, "goal")
        process.settle()
        used = _used(process)
        bench.say("idle")
        time.sleep(IDLE_S)
        idle = 100 * (_used(process) - used) / IDLE_S
        bench.goal("idle", idle, "% of a core", IDLE_PERCENT, "goal")
    bench.add("an idle poll, median", 1e3 * _idle_poll(raw, layout), "ms")
    _live(bench)
    bench.note(
        "Exposures: their own XML, and a movie of 4096 x 4096 x 40 as a sparse MRC file with data "
        f"at both ends. {_FLOOR}: settling, listing all folders, reading what mdcatch reads once."
    )


_FLOOR = f"{SETTLE_S:g} s + walking and reading"


def _recipe(count: int) -> Recipe:
    return replace(long_recipe(count), nx=4096, ny=4096, n_frames=40)


def _tree(raw: Path, count: int) -> Path:
    """Write exposures whose movies are sparse: header, start and end, and nothing in between."""
    recipe = _recipe(count)
    header, size = _mrc_header(recipe.nx, recipe.ny, recipe.n_frames, recipe.pixel_size_A)
    data = np.random.default_rng(1).poisson(1.0, 2048).astype(np.uint8).tobytes()
    for exposure in plan_session(recipe, SEED):
        place = raw / exposure.movie
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place.with_name(f"{exposure.stem}_Fractions.mrc"), "wb") as file:
            file.write(header + data)
            file.seek(size - len(data))
            file.write(data)
        xml = exposure_xml(recipe, exposure, 15000.0, SEED)
        place.with_name(f"{exposure.stem}.xml").write_text(xml)
    return raw


def _mrc_header(nx: int, ny: int, nz: int, pixel_A: float) -> tuple[bytes, int]:
    """Return the header of an MRC file of mode 0, and the size of the whole file."""
    head = struct.pack("<10i", nx, ny, nz, 0, 0, 0, 0, nx, ny, nz)
    head += struct.pack("<6f", nx * pixel_A, ny * pixel_A, nz * pixel_A, 90.0, 90.0, 90.0)
    head += struct.pack("<3i", 1, 2, 3)
    head = head.ljust(208, b"\0") + b"MAP " + b"\x44\x44\0\0"
    return head.ljust(1024, b"\0"), 1024 + nx * ny * nz


def _floor(raw: Path) -> float:
    begun = time.perf_counter()
    for path in raw.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                file.read(65_536)
    return time.perf_counter() - begun


def _wait(bench: Bench, process: Process, layout: Layout, count: int) -> float:
    """Wait until all are published; return the most memory that was held, in MB."""
    deadline, peak_MB = time.monotonic() + LIMIT_S, 0.0
    while "session.closed" not in process.log.read_text():
        if time.monotonic() > deadline or process.popen.poll() is not None:
            raise RuntimeError("mdcatch did not finish:\n" + process.log.read_text()[-1000:])
        bench.say(f"{process.log.read_text().count('movie.settled')} of {count} published")
        peak_MB = max(peak_MB, sum(map(memory_MB, family(process.popen.pid))))
        time.sleep(0.1)
    return peak_MB


def _used(process: Process) -> float:
    return sum(map(processor_s, family(process.popen.pid)))


def _settled(layout: Layout) -> dict[str, float]:
    """Return when each movie was published, by its stem; wall clock."""
    reader = Reader(layout.journal("mdcatch"))
    bodies = [(event.body, event.at) for event in reader.read()]
    reader.close()
    return {body.exposure_name: at for body, at in bodies if isinstance(body, MovieSettled)}


def _last_settled(layout: Layout) -> float:
    return max(_settled(layout).values(), default=math.nan)


def _idle_poll(raw: Path, layout: Layout) -> float:
    """Return the seconds of a poll in which nothing is new."""
    config = MdcatchConfig(raw=str(raw), inotify=False)
    mdcatch, source = Mdcatch(config), RawSource(config)
    state = mdcatch.empty()
    reader = Reader(layout.journal("mdcatch"))
    for event in reader.read():
        mdcatch.apply(state, event.body, event.at)
    reader.close()
    took = []
    for turn in range(60):
        begun = time.perf_counter()
        source.poll(1000.0 + turn, state)
        took.append(time.perf_counter() - begun)
    source.close()
    return median(took[30:])


# ---- from the last byte to the event


def _live(bench: Bench) -> None:
    """Write movies one by one, and compare the close of each with its event."""
    raw, project = bench.folder / "live", bench.folder / "live-project"
    recipe = replace(long_recipe(LIVE), nx=256, ny=256, n_frames=8)
    plan = plan_session(recipe, SEED)
    frames = np.random.default_rng(2).poisson(1.0, (8, 256, 256)).astype(np.uint8)
    movie = encode_tiff(frames, recipe.pixel_size_A)
    raw.mkdir()
    (raw / "notes.txt").write_text("not empty")
    layout, _ = set_up(project, raw, {"settle_s": LIVE_SETTLE_S, "workers": 1}, {})
    closed: dict[str, float] = {}
    with service("mdcatch", project, bench.folder / "live-log") as process:
        process.started()
        for number, exposure in enumerate(plan):
            bench.say(f"{number} of {LIVE} movies written")
            closed[exposure.stem] = _write(raw, recipe, exposure, movie)
            time.sleep(PAUSE_S)
        deadline = time.monotonic() + 20.0
        while len(_settled(layout)) < LIVE and time.monotonic() < deadline:
            time.sleep(0.2)
    settled = _settled(layout)
    delays = [settled[stem] - at - LIVE_SETTLE_S for stem, at in closed.items() if stem in settled]
    bench.add("movies published of those written live", len(delays), f"of {LIVE}")
    bench.add("close to event, beyond settling, median", median(delays), "s")
    late = percentile(delays, 99)
    bench.goal("close to event, beyond settling, p99", late, "s", LATENCY_S, "goal")


def _write(raw: Path, recipe: Recipe, exposure: Exposure, movie: bytes) -> float:
    """Write an exposure as a microscope does; return when its movie was closed."""
    place = raw / exposure.movie
    place.parent.mkdir(parents=True, exist_ok=True)
    xml = exposure_xml(recipe, exposure, 15000.0, SEED)
    place.with_name(f"{exposure.stem}.xml").write_text(xml)
    with open(place.with_name(f"{exposure.stem}_fractions.tiff"), "wb") as file:
        half = len(movie) // 2
        file.write(movie[:half])
        file.flush()
        time.sleep(0.02)
        file.write(movie[half:])
    return time.time()
