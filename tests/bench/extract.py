"""Extraction from one micrograph on one thread, with reading and writing of all files."""

import shutil
from pathlib import Path

import msgspec

from algorithms.boxes import box_sizes
from algorithms.formats import mrc, star
from services.proc.requests import ExtractRequest
from services.proc.tasks import extract
from tests.bench import data, relion, sidebyside
from tests.bench.figures import Bench, median
from tests.bench.pick import pick_one

PIXEL_A = data.recipe(1).pixel_size_A
SIZES = box_sizes(PIXEL_A, data.DIAMETER_A)


def run(bench: Bench) -> None:
    """Measure milliseconds per micrograph beside RELION, with the same coordinates."""
    absent = relion.missing(relion.EXTRACT)
    if absent:
        bench.note(absent)
    for side, paths in ((1024, sidebyside.corrected(bench)), (4096, sidebyside.large(bench))):
        _one_size(bench, side, paths, has_peer=not absent)


def _one_size(bench: Bench, side: int, paths: list[Path], *, has_peer: bool) -> None:
    picks = []
    for path in paths:
        found = bench.folder / f"{side}_{path.stem}_autopick.star"
        picks.append(Path(shutil.copy(pick_one(bench.folder, path), found)))
    count = median([len(star.load(path)[""]) for path in picks])
    name = f"{side} x {side}, {count:.0f} particles, {SIZES.box_px} px to {SIZES.scaled_px} px"
    out = bench.folder / f"out{side}"
    times = 8 if side < 2048 else 1

    def ours() -> int:
        for number in range(times):
            for path, coordinates in zip(paths, picks, strict=True):
                # A new file each time, as in a session and as RELION's.
                _extract_one(out / f"{number}{path.stem}", path, coordinates)
        return times * len(paths)

    def tidy() -> None:
        # RELION's folder is there before it begins.
        shutil.rmtree(out, ignore_errors=True)
        for number in range(times):
            for path in paths:
                (out / f"{number}{path.stem}").mkdir(parents=True)

    folder = sidebyside.relion_folder(bench.folder / f"relion{side}", paths)

    def peer(table: str) -> list[str]:
        shutil.rmtree(folder / f"Extract_{table}", ignore_errors=True)
        return relion.extract(folder / f"{table}.star", "Picks/", f"Extract_{table}/")

    coordinates = folder / "Picks" / "Micrographs"
    coordinates.mkdir(parents=True)
    for index in range(sidebyside.MANY):
        shutil.copy(picks[index % len(picks)], coordinates / f"m{index:02d}_autopick.star")
    sidebyside.compare(bench, name, ours, peer if has_peer else None, folder, tidy)
    value = bench.section.figures[-1].value
    floor = _floor(paths[0], picks[0], bench.folder)
    bench.floor(name, value, "ms", floor, "reading it + writing the stack")


def _floor(micrograph: Path, coordinates: Path, folder: Path) -> float:
    """Return the milliseconds of reading a micrograph and writing the stack that is made of it."""
    _extract_one(folder, micrograph, coordinates)
    content = (folder / "s.mrcs").read_bytes()

    def both() -> None:
        mrc.read(micrograph)
        (folder / "floor.mrcs").unlink(missing_ok=True)
        (folder / "floor.mrcs").write_bytes(content)

    return sidebyside.floor_ms(both)


def _extract_one(out: Path, micrograph: Path, coordinates: Path) -> None:
    ask = ExtractRequest(
        movie=micrograph.stem,
        micrograph=str(micrograph),
        coordinates=str(coordinates),
        root=f"{micrograph.stem}",
        optics_group=1,
        pixel_size_A=PIXEL_A,
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
