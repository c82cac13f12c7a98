"""The one table at the end, and the machine it was measured on."""

import math
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.kit.paths import file_system_of
from tests.bench.figures import Figure, Section

# More than this many waiting processes per core before the start, and figures suffer.
BUSY = 0.25
_COLOURS = {"met": "green", "missed": "red"}


def machine(folder: Path) -> dict[str, object]:
    """Return what has to stand beside every figure."""
    model = platform.processor() or platform.machine()
    mounts = ""
    try:
        info = Path("/proc/cpuinfo").read_text()
        names = [line for line in info.splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
        mounts = Path("/proc/mounts").read_text()
    except OSError:
        pass
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "file_system": file_system_of(folder, mounts)[1],
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def show(sections: Iterable[Section], facts: dict[str, object]) -> None:
    """Print the table, and below it the notes and the machine."""
    console = Console(highlight=False)
    sections = list(sections)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure", overflow="fold")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("compared with", overflow="fold")
    table.add_column("ratio", no_wrap=True)
    for section in sections:
        table.add_row(Text(section.name, style="bold"))
        for figure in section.figures:
            table.add_row(*_cells(figure))
        table.add_section()
    console.print(table)
    for section in sections:
        console.print(Text.assemble((section.name, "bold"), f": {' '.join(_notes(section))}"))
    console.print(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items()))
    load, cores = float(str(facts["load_at_start"])), int(str(facts["cores"]))
    if load > BUSY * cores:
        console.print(f"The machine was not idle (load {load:g}): do not publish these figures.")


def _notes(section: Section) -> list[str]:
    return [f"{section.title}.", *section.notes]


def _cells(figure: Figure) -> tuple[str | Text, ...]:
    verdict = Text(figure.verdict, style=_COLOURS.get(figure.verdict, ""))
    against = figure.against
    if figure.kind:
        against = f"{figure.kind} {number(figure.reference)} {figure.unit}: {figure.against}"
    return (f"  {figure.what}", f"{number(figure.value)} {figure.unit}", against, verdict)


def number(value: float) -> str:
    """Return a number with three digits that count."""
    if not math.isfinite(value):
        return ""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"
