"""EPU image XML per second: in this process, and through the parser child."""

import os
import time
from collections.abc import Callable

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from algorithms.simulate.epu import exposure_xml, plan_session
from mdcatch.parsers import parse
from mdcatch.parsers.child import ParserChild
from tests.bench.figures import Bench, median
from tests.bench.grown import SEED, long_recipe
from tests.bench.processes import family, processor_s
from tests.metadata import samples

EXPOSURES, REPEATS = 500, 5
GOAL = 1_500.0  # files per second and core


def run(bench: Bench) -> None:
    """Measure files per second; of the real samples where they are here, else of simulated ones."""
    files = [s.content for s in samples("epu") if s.expected["kind"] == "exposure"]
    if not files:
        recipe = long_recipe(40)
        plan = plan_session(recipe, SEED)
        files = [exposure_xml(recipe, one, 15000.0, SEED).encode() for one in plan]
    paths = []
    for number in range(EXPOSURES):
        paths.append(bench.folder / f"FoilHole_{number}_Data_2_3_20261120_101500.xml")
        paths[-1].write_bytes(files[number % len(files)])
    contents = [(path.read_bytes(), str(path)) for path in paths]

    def floor() -> None:
        for content, _ in contents:
            etree.fromstring(content)

    def here() -> None:
        for content, path in contents:
            parse(content, path)

    bench.say("in process")
    rate = _rate(here, time.process_time)
    bench.goal("in process", rate, "files/s", GOAL, "goal")
    bench.floor("the same", rate, "files/s", _rate(floor, time.process_time), "lxml alone")
    with ParserChild([bench.folder]) as child:
        child.parse(paths[0])
        many = [(path, "") for path in paths]
        for how, work in (
            ("one by one", lambda: _each(child, paths)),
            ("batched", lambda: child.parse_many(many)),
        ):
            bench.say(f"through the child, {how}")
            clock, used = _rate(work), _used()
            work()
            core = EXPOSURES / (_used() - used)
            bench.goal(f"through the child, {how}, both", core, "files/s", GOAL, "goal")
            bench.add("the same, by the clock", clock, "files/s")
    kB = sum(len(content) for content, _ in contents) / len(contents) / 1e3
    bench.note(
        f"Files of {kB:.1f} kB on average, {EXPOSURES} at a time. Per second of one core; through "
        "the child: what it and this process use together, opening, reading and answers included."
    )


def _used() -> float:
    """Return the processor time of this process and its child, s."""
    return sum(map(processor_s, family(os.getpid())))


def _each(child: ParserChild, paths: list) -> None:
    for path in paths:
        child.parse(path)


def _rate(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return files per second of a clock; that of the processor counts seconds of one core."""
    took = []
    for _ in range(REPEATS):
        begun = clock()
        work()
        took.append(clock() - begun)
    return EXPOSURES / median(took)
