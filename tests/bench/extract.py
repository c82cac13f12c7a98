"""Extraction from one micrograph on one thread, with reading and writing of all files."""

import shutil
import time
from pathlib import Path

import msgspec

from algorithms.boxes import box_sizes
from algorithms.formats import mrc, star
from services.proc.requests import ExtractRequest
from services.proc.tasks import extract
from tests.bench import data, relion
from tests.bench.figures import Bench, median
from tests.bench.pick import MANY, REPEATS, many_micrographs, pick_one

SIZES = box_sizes(data.recipe(1).pixel_size_A, data.DIAMETER_A)


def run(bench: Bench) -> None:
    """Measure milliseconds per micrograph beside RELION, with the same coordinates."""
    folder = data.micrographs(bench)
    originals = sorted(folder.glob("m?.mrc"))
    picks = {}
    for path in originals:
        found = pick_one(bench.folder, path)
        picks[path.stem] = Path(shutil.copy(found, bench.folder / f"{path.stem}_autopick.star"))
    took = []
    for path in originals:
        for _ in range(REPEATS):
            begun = time.perf_counter()
            _extract_one(bench.folder, path, picks[path.stem])
            took.append(time.perf_counter() - begun)
    ours = 1e3 * median(took)
    counts = [len(star.load(path)[""]) for path in picks.values()]
    name = f"{SIZES.box_px} px scaled to {SIZES.scaled_px} px, per micrograph"
    floor = median([_floor(path, bench.folder) for path in originals * REPEATS])
    bench.floor(name, ours, "ms", 1e3 * floor, "reading it + writing the stack")
    bench.note(f"{median(counts):.0f} particles per micrograph (median).")
    absent = relion.missing(relion.EXTRACT)
    if absent:
        bench.note(absent)
        return
    bench.say("RELION")
    bench.peer(name, ours, "ms", _peer(bench, folder, picks), relion.version())


def _floor(micrograph: Path, folder: Path) -> float:
    """Return the seconds of reading a micrograph and writing the stack that was made of it."""
    stack = mrc.read(folder / "s.mrcs")
    begun = time.perf_counter()
    mrc.read(micrograph)
    mrc.write(folder / "floor.mrcs", stack, data.recipe(1).pixel_size_A, is_stack=True)
    return time.perf_counter() - begun


def _extract_one(out: Path, micrograph: Path, coordinates: Path) -> None:
    values = data.recipe(1)
    ask = ExtractRequest(
        movie=micrograph.stem,
        micrograph=str(micrograph),
        coordinates=str(coordinates),
        root=f"{micrograph.stem}",
        optics_group=1,
        pixel_size_A=values.pixel_size_A,
        box_px=SIZES.box_px,
        scaled_px=SIZES.scaled_px,
        background_radius_px=SIZES.bg_radius_px,
        invert=True,
        normalise=True,
        white_dust_sigma=-1.0,
        black_dust_sigma=-1.0,
        float16=False,
        minimum_figure_of_merit=None,
        defocus_u_A=15000.0,
        defocus_v_A=14800.0,
        defocus_angle_deg=30.0,
        phase_shift_deg=0.0,
        ctf_max_resolution_A=4.0,
        ctf_figure_of_merit=0.1,
    )
    extract(msgspec.msgpack.encode(ask), out, out)


def _peer(bench: Bench, source: Path, picks: dict[str, Path]) -> float:
    """Return RELION's milliseconds per micrograph."""
    folder = many_micrographs(bench.folder / "relion", source)
    coordinates = folder / "Picks" / "Micrographs"
    coordinates.mkdir(parents=True)
    originals = sorted(picks)
    for index in range(MANY):
        found = picks[originals[index % len(originals)]]
        shutil.copy(found, coordinates / f"m{index:02d}_autopick.star")
    one, many = (
        relion.run([relion.extract(folder / f"{name}.star", "Picks/", f"Extract_{name}/")], folder)
        for name in ("one", "all")
    )
    return 1e3 * (many - one) / (MANY - 1)
