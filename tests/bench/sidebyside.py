"""Processor time per micrograph, ours and RELION's, taken in turns on a machine that others use."""

import os
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from algorithms.formats import mrc
from tests.bench import data, relion
from tests.bench.figures import Bench, median

# RELION's own start is measured with one micrograph and taken off the time with these.
MANY = 11
ROUNDS = 3


def compare(
    bench: Bench,
    name: str,
    ours: Callable[[], int],
    peer: Callable[[str], Sequence[str]] | None,
    folder: Path,
    tidy: Callable[[], object] = lambda: None,
) -> None:
    """Add the milliseconds of processor time per micrograph, beside RELION's in the same minutes.

    Parameters
    ----------
    bench
        Where the figures go.
    name
        What is measured.
    ours
        Does a number of micrographs and returns it; may be called any number of times.
    peer
        Command line of RELION for the table "one" or "all"; None: not installed.
    folder
        Where RELION runs.
    tidy
        Makes place for `ours`; not measured.
    """
    tidy()
    ours()  # loads what is loaded once
    mine: list[float] = []
    theirs: list[float] = []
    for number in range(ROUNDS):
        bench.say(f"{name}: round {number + 1} of {ROUNDS}")
        tidy()
        begun = time.process_time()
        count = ours()
        mine.append(1e3 * (time.process_time() - begun) / count)
        if peer is not None:
            one, many = (_spent_s(peer(table), folder) for table in ("one", "all"))
            theirs.append(1e3 * (many - one) / (MANY - 1))
    if peer is None:
        bench.add(name, median(mine), "ms")
        return
    bench.peer(name, median(mine), "ms", median(theirs), f"{relion.version()}, processor time")
    ratios = sorted(b / a for a, b in zip(mine, theirs, strict=True))
    bench.note(f"{name}: {ratios[0]:.2f} to {ratios[-1]:.2f} x as fast in {ROUNDS} rounds.")


def _spent_s(command: Sequence[str], folder: Path) -> float:
    """Return the processor seconds of a command and all that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    relion.run([command], folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def floor_ms(does: Callable[[], object], times: int = 5) -> float:
    """Return the least processor time of something, ms."""
    taken = []
    for _ in range(times):
        begun = time.process_time()
        does()
        taken.append(time.process_time() - begun)
    return 1e3 * min(taken)


def corrected(bench: Bench) -> list[Path]:
    """Return micrographs of the simulated session, 1024 px."""
    return sorted(data.micrographs(bench).glob("m?.mrc"))


def large(bench: Bench, count: int = 2, side: int = 4096) -> list[Path]:
    """Return micrographs of 4096 px: those of the session side by side, each with other noise."""
    folder = bench.common / f"large{side}"
    if not folder.exists():
        folder.mkdir()
        small = [mrc.read(path) for path in corrected(bench)]
        rng = np.random.default_rng(8)
        for index in range(count):
            tiles = side // small[0].shape[0]
            rows = [
                np.hstack([small[(index + r + c) % len(small)] for c in range(tiles)])
                for r in range(tiles)
            ]
            image = np.vstack(rows)
            image = image + rng.normal(0, image.std() / 4, image.shape).astype(np.float32)
            mrc.write(folder / f"m{index}.mrc", image, data.recipe(1).pixel_size_A)
    return sorted(folder.glob("m?.mrc"))


def relion_folder(folder: Path, originals: Sequence[Path]) -> Path:
    """Make a RELION folder with `MANY` micrographs, and tables of one and of all of them."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "Micrographs").mkdir(parents=True)
    names = []
    for index in range(MANY):
        names.append(f"Micrographs/m{index:02d}.mrc")
        os.symlink(originals[index % len(originals)], folder / names[-1])
    relion.micrographs_star(folder / "one.star", names[:1])
    relion.micrographs_star(folder / "all.star", names)
    return folder
