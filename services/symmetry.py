"""`coldstream symmetry`: which point group a map has, and the map along its axes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from algorithms.formats import mrc
from algorithms.formats.errors import FormatError
from services.kit.errors import Misuse
from services.kit.paths import atomic_write

if TYPE_CHECKING:  # torch takes two seconds to load, and every other command starts without it
    import torch

    from algorithms.maps.symmetry_search import Answer


def symmetry(
    volume: Annotated[Path, typer.Argument(metavar="MAP", help="A map in MRC format.")],
    pixel_size: Annotated[float | None, typer.Option(help="A; default: the header's.")] = None,
    diameter: Annotated[float | None, typer.Option(help="Of the particle, A.")] = None,
    resolution: Annotated[float | None, typer.Option(help="Of the map, A.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the self-rotation function here (PNG).")
    ] = None,
    align: Annotated[
        str | None, typer.Option(help="Lay the map along the axes of this group.", metavar="GROUP")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the aligned map goes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
) -> int:
    """Find the point group of a map, or lay a map along the axes of a group.

    Exit codes: 0 an answer, C1 included; 1 not sure.
    """
    if (align is None) != (out is None):
        raise Misuse("options --align GROUP and --out FILE belong together: give both")
    if align is not None and (picture is not None or as_json):
        raise Misuse("options --picture and --json show a search for the group: not with --align")
    from algorithms.maps import extent, symmetry_search
    from algorithms.maps.selfrotation import SelfRotation

    values, pixel = _read(volume, pixel_size)
    diameter = diameter or extent.diameter_A(values, pixel)
    resolution = resolution or extent.resolution_A(values, pixel)
    if align is not None and out is not None:
        _align(values, pixel, diameter, resolution, align, out)
        return 0
    try:
        map_ = SelfRotation(values, pixel, resolution, diameter)
    except ValueError as error:
        raise Misuse(f"{volume}: {error}; give --diameter or --resolution") from error
    answer = symmetry_search.search(map_)
    if picture is not None:
        from services.report.symmetry import picture as drawn

        atomic_write(picture, drawn(map_, answer))
    told = _as_json(answer, diameter, map_.resolution_A)
    head = f"particle of {diameter:.0f} A, details of {map_.resolution_A:.1f} A"
    typer.echo(json.dumps(told, indent=1) if as_json else "\n".join([head, *_lines(answer)]))
    return 0 if answer.sure else 1


def _read(path: Path, pixel_size: float | None) -> "tuple[torch.Tensor, float]":
    import torch

    if not path.is_file():
        raise Misuse(f"{path} does not exist")
    try:
        header, values = mrc.read_header(path), np.array(mrc.read(path), dtype=np.float32)
    except FormatError as error:
        raise Misuse(str(error)) from error
    if values.ndim != 3 or len(set(values.shape)) != 1 or len(values) % 2:
        raise Misuse(f"{path} is {values.shape}: a map has to be a cube with an even edge")
    if not np.isfinite(values).all() or values.std() == 0.0:
        raise Misuse(f"{path} holds no map: its values are all the same or not finite")
    pixel = pixel_size or header.pixel_size_A
    if pixel is None or pixel <= 0.0:
        raise Misuse(f"{path} has no pixel size in its header: give it with --pixel-size")
    return torch.from_numpy(values), pixel


def _align(
    values: "torch.Tensor", pixel: float, diameter: float, resolution: float, name: str, out: Path
) -> None:
    from algorithms.maps import symmetry_align
    from algorithms.maps.selfrotation import SelfRotation
    from algorithms.orientation.symmetry import SymmetryError, normalised

    try:
        group = normalised(name)
    except SymmetryError as error:
        raise Misuse(f"--align {error}") from error
    map_ = SelfRotation(values, pixel, resolution, diameter, with_shape=True)
    found = symmetry_align.aligned(values, pixel, group, map_)
    atomic_write(out, mrc.encode(found.volume.numpy(), pixel))
    typer.echo(f"{out}: {group}, its operators correlate by {found.worst:.2f} at least")


def _lines(answer: "Answer") -> list[str]:
    lines = [f"{answer.group}" + ("" if answer.sure else " or more: not sure")]
    lines += ["group  worst operator  mean  evidence  confidence"]
    lines += [
        f"{fit.group:5}  {fit.worst:14.2f}  {fit.mean:4.2f}  {fit.evidence:8.2f}  "
        f"{fit.confidence:10.2f}"
        for fit in sorted(answer.fits, key=lambda fit: -fit.evidence)
    ]
    return lines


def _as_json(answer: "Answer", diameter: float, resolution: float) -> dict[str, object]:
    return {
        "group": answer.group,
        "sure": answer.sure,
        "diameter_A": round(diameter, 1),
        "resolution_A": round(resolution, 2),
        "fits": [
            {
                "group": fit.group,
                "worst": round(fit.worst, 4),
                "mean": round(fit.mean, 4),
                "evidence": round(fit.evidence, 4),
                "confidence": round(fit.confidence, 4),
            }
            for fit in sorted(answer.fits, key=lambda fit: -fit.evidence)
        ],
    }
