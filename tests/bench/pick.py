"""Picking in one micrograph on one thread, with reading and writing of all files."""

from pathlib import Path

import msgspec
import numpy as np
import torch

from algorithms.formats import mrc
from algorithms.picking.log import LogOptions, pick_log
from services.proc.requests import PickRequest
from services.proc.tasks import autopick
from tests.bench import data, relion, sidebyside
from tests.bench.figures import Bench
from tests.experts import FOLDER, NAMES, experts
from tests.experts import PIXEL_A as EXPERTS_PIXEL_A
from tests.shared import SHARED

PIXEL_A = data.recipe(1).pixel_size_A


def run(bench: Bench) -> None:
    """Measure milliseconds per micrograph beside RELION."""
    absent = relion.missing(relion.PICK)
    if absent:
        bench.note(absent)
    for side, paths in ((1024, sidebyside.corrected(bench)), (4096, sidebyside.large(bench))):
        _one_size(bench, side, paths, has_peer=not absent)
    _beside_experts(bench)


def _beside_experts(bench: Bench) -> None:
    """Add recall and precision on real micrographs, where they are."""
    folder = SHARED / FOLDER
    if not folder.exists():
        bench.note(f"No picks of experts: ../shared/{FOLDER} is not here.")
        return
    for name in NAMES:
        micrograph = experts(folder, name)
        options = LogOptions(diameter_min_A=150.0, diameter_max_A=200.0)
        picks = pick_log(micrograph.image, EXPERTS_PIXEL_A, options, seed=1)
        found = np.column_stack([picks.x_px, picks.y_px])
        recall, precision = micrograph.recall_and_precision(found)
        title = f"EMPIAR-10017 {name}, {len(micrograph.picks)} picks of experts"
        bench.add(f"{title}: recall", 100 * recall, "%")
        bench.add(f"{title}: precision of {len(picks)} picks", 100 * precision, "%")


def _one_size(bench: Bench, side: int, paths: list[Path], *, has_peer: bool) -> None:
    name = f"{side} x {side}, per micrograph"

    def ours() -> int:
        for path in paths * (8 if side < 2048 else 1):
            pick_one(bench.folder, path)
        return len(paths) * (8 if side < 2048 else 1)

    def peer(table: str) -> list[str]:
        return relion.pick(folder / f"{table}.star", f"AutoPick_{table}/")

    folder = sidebyside.relion_folder(bench.folder / f"relion{side}", paths)
    sidebyside.compare(bench, name, ours, peer if has_peer else None, folder)
    floor = sidebyside.floor_ms(
        lambda: torch.fft.rfft2(torch.from_numpy(np.array(mrc.read(paths[0]))))
    )
    bench.floor(name, bench.section.figures[-1].value, "ms", floor, "reading + one rfft2")


def pick_one(out: Path, micrograph: Path) -> Path:
    """Pick as proc does; return the coordinate file."""
    ask = PickRequest(
        movie=micrograph.stem,
        micrograph=str(micrograph),
        coordinates=f"{micrograph.stem}_autopick.star",
        pixel_size_A=PIXEL_A,
        diameter_min_A=data.DIAMETER_A / 1.2,
        diameter_max_A=data.DIAMETER_A,
        max_resolution_A=20.0,
        adjust_threshold=0.0,
        upper_threshold=999.0,
        invert=False,
    )
    (out / "p.star").unlink(missing_ok=True)  # a new file, as in a session
    output = autopick(msgspec.msgpack.encode(ask), out, out)
    (source,) = output.files
    return out / source
