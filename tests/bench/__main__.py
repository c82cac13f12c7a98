"""Benchmarks, as one table: `python -m tests.bench [NAME ...] [--list] [--json FILE]`.

Nothing here passes or fails on time: figures are shown beside the floor, a peer that is installed,
or the goal, all measured in the same run.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.status import Status

from tests.bench import (
    classify,
    ctf,
    extract,
    journal,
    live,
    memory,
    motion,
    movies,
    parse,
    pick,
    scan,
    schemes,
    star,
    threed,
    throughput,
)
from tests.bench import (
    table as tables,
)
from tests.bench.figures import Bench, Section
from tests.bench.processes import work_like_a_worker

LOGGED_EVERY_S = 10.0
BENCHES: dict[str, tuple[Callable[[Bench], None], str]] = {
    "live": (live.run, "latency of each stage while a microscope writes"),
    "throughput": (throughput.run, "movies per second through a back-log"),
    "movies": (movies.run, "decoding of TIFF and EER movies on one thread"),
    "motion": (motion.run, "motion correction of one movie on one thread"),
    "ctf": (ctf.run, "CTF fit of one spectrum on one thread"),
    "pick": (pick.run, "picking in one micrograph on one thread"),
    "extract": (extract.run, "extraction from one micrograph on one thread"),
    "classify": (classify.run, "2D classification of particles of 72 px in 50 classes"),
    "threed": (threed.run, "3D classification of 500 particles of 64 px"),
    "journal": (journal.run, "commits, replay and delivery of events"),
    "star": (star.run, "100,000 rows of 16 columns"),
    "parse": (parse.run, "metadata of exposures, in this process and through the parser child"),
    "scan": (scan.run, "finding and publishing a folder of exposures"),
    "schemes": (schemes.run, "transitions of a Scheme, in memory and written"),
    "memory": (memory.run, "services that know 10,000 movies"),
}


def main() -> int:
    """Run what was asked for and print one table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run (default: all)")
    parser.add_argument("--list", action="store_true", help="show the names and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--full", action="store_true", help="larger sizes where there are any")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="where to write (local disk)")
    arguments = parser.parse_args()
    if arguments.list:
        for name, (_, title) in BENCHES.items():
            print(f"{name:12s}{title}")
        return 0
    unknown = [name for name in arguments.names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    work_like_a_worker()
    with tempfile.TemporaryDirectory(prefix="coldstream-bench-", dir=arguments.work) as folder:
        _run(arguments.names or list(BENCHES), Path(folder), arguments.full, arguments.json)
    return 0


def _run(names: list[str], folder: Path, full: bool, out: Path | None) -> None:
    """Run benchmarks; what was measured is shown even when a later one breaks."""
    console = Console(stderr=True, highlight=False)
    facts = tables.machine(folder)
    sections: list[Section] = []
    begun = time.monotonic()
    try:
        for place, name in enumerate(names, 1):
            function, title = BENCHES[name]
            sections.append(Section(name=name, title=title))
            head = f"[{place}/{len(names)}] {name}"
            with console.status(head) as status:
                bench = _bench(sections[-1], folder, full, _teller(console, status, head))
                start = time.monotonic()
                function(bench)
                sections[-1].took_s = time.monotonic() - start
            shutil.rmtree(folder / name)
            console.print(f"{head}: {title}, {sections[-1].took_s:.0f} s")
    finally:
        facts["took_s"] = round(time.monotonic() - begun)
        tables.show(sections, facts)
        if out is not None:
            content = {"machine": facts, "benches": [s.as_json() for s in sections]}
            out.write_text(json.dumps(content, indent=1) + "\n")


def _teller(console: Console, status: Status, head: str) -> Callable[[str], None]:
    """Return what shows how far a benchmark is: in one line, or in a log every ten seconds."""
    shown = time.monotonic()

    def tell(text: str) -> None:
        nonlocal shown
        line = f"{head}: {text}" if text else head
        if console.is_terminal:
            status.update(line)
        elif time.monotonic() - shown >= LOGGED_EVERY_S:
            shown = time.monotonic()
            console.print(line)

    return tell


def _bench(section: Section, folder: Path, full: bool, progress: Callable[[str], None]) -> Bench:
    own, common = folder / section.name, folder / "common"
    for path in (own, common):
        path.mkdir(exist_ok=True)
    return Bench(section=section, folder=own, common=common, full=full, progress=progress)


if __name__ == "__main__":
    sys.exit(main())
