"""Picking in one micrograph on one thread, with reading and writing of all files."""

import time
from pathlib import Path

import msgspec
import numpy as np
import torch

from algorithms.formats import mrc
from services.proc.requests import PickRequest
from services.proc.tasks import autopick
from tests.bench import data, relion
from tests.bench.figures import Bench, median

REPEATS = 3
# RELION's own start is measured with one micrograph and taken off the time with these.
MANY = 11


def run(bench: Bench) -> None:
    """Measure milliseconds per micrograph beside RELION."""
    folder = data.micrographs(bench)
    values = data.recipe(1)
    took = []
    for path in sorted(folder.glob("m?.mrc")):
        for _ in range(REPEATS):
            begun = time.perf_counter()
            pick_one(bench.folder, path)
            took.append(time.perf_counter() - begun)
    ours = 1e3 * median(took)
    name = f"{values.nx} x {values.ny}, per micrograph"
    floor = median([_floor(path) for path in sorted(folder.glob("m?.mrc")) * REPEATS])
    bench.floor(name, ours, "ms", 1e3 * floor, "reading + one rfft2")
    absent = relion.missing(relion.PICK)
    if absent:
        bench.note(absent)
        return
    bench.say("RELION")
    peer_folder = many_micrographs(bench.folder / "relion", folder)
    tables = [peer_folder / "one.star", peer_folder / "all.star"]
    one, many = (
        relion.run([relion.pick(table, f"AutoPick_{table.stem}/")], peer_folder) for table in tables
    )
    peer = 1e3 * (many - one) / (MANY - 1)
    bench.peer(name, ours, "ms", peer, f"{relion.version()} LoG")


def _floor(micrograph: Path) -> float:
    begun = time.perf_counter()
    torch.fft.rfft2(torch.from_numpy(np.array(mrc.read(micrograph))))
    return time.perf_counter() - begun


def pick_one(out: Path, micrograph: Path) -> Path:
    """Pick as proc does; return the coordinate file."""
    ask = PickRequest(
        movie=micrograph.stem,
        micrograph=str(micrograph),
        coordinates=f"{micrograph.stem}_autopick.star",
        pixel_size_A=data.recipe(1).pixel_size_A,
        diameter_min_A=data.DIAMETER_A / 1.2,
        diameter_max_A=data.DIAMETER_A,
        max_resolution_A=20.0,
        adjust_threshold=0.0,
        upper_threshold=999.0,
        invert=False,
    )
    output = autopick(msgspec.msgpack.encode(ask), out, out)
    (source,) = output.files
    return out / source


def many_micrographs(folder: Path, source: Path) -> Path:
    """Make a RELION folder with `MANY` micrographs, and tables of one and of all of them."""
    (folder / "Micrographs").mkdir(parents=True)
    originals = sorted(source.glob("m?.mrc"))
    names = []
    for index in range(MANY):
        names.append(f"Micrographs/m{index:02d}.mrc")
        (folder / names[-1]).symlink_to(originals[index % len(originals)])
    relion.micrographs_star(folder / "one.star", names[:1])
    relion.micrographs_star(folder / "all.star", names)
    return folder
