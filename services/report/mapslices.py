"""Maps as pictures: the three sections through the middle, and the sum along z.

Sections show whether there is structure inside, the projection looks like a particle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from algorithms.formats import mrc
from algorithms.formats.errors import FormatError
from services.report.plots import INK, QUIET, draw

MAPS_SHOWN = 8
VIEWS = ("section, z", "section, y", "section, x", "projection, z")
ROW_IN = 1.28


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A map of the picture: its file, what it is called, and what is known of it."""

    path: Path
    name: str
    facts: str = ""


def read_views(path: Path) -> tuple[list[np.ndarray], float | None] | None:
    """Return the four views `[N, N]` of a map and its pixel in A; None where there is no cube."""
    try:
        header = mrc.read_header(path)
        if not header.nx == header.ny == header.nz:
            return None
        volume = np.asarray(mrc.read(path), dtype=np.float32)
    except (OSError, FormatError):
        return None
    if not np.isfinite(volume).all():
        return None
    middle = len(volume) // 2
    cuts = [volume[middle], volume[:, middle], volume[:, :, middle]]
    return [*cuts, volume.sum(axis=0)], header.pixel_size_A


def picture(maps: Sequence[Shown]) -> bytes | None:
    """Return the views of maps, one row for each, as PNG; None where none can be read.

    The three sections of a map share one range of grey, the projection has its own.
    """
    found = [(one, views) for one in maps[:MAPS_SHOWN] if (views := read_views(one.path))]
    if not found:
        return None

    def paint(figure: Figure) -> None:
        rows = figure.subplots(len(found), len(VIEWS), squeeze=False)
        for row, (one, (views, pixel_A)) in enumerate(found):
            panels = rows[row]
            low, high = np.percentile(np.stack(views[:3]), (1.0, 99.7))
            for axes, view, name in zip(panels, views, VIEWS, strict=True):
                is_cut = view is not views[3]
                limits = {"vmin": low, "vmax": max(high, low + 1e-12)} if is_cut else {}
                axes.imshow(view, cmap="gray", origin="lower", interpolation="bicubic", **limits)
                axes.set(xticks=(), yticks=())
                axes.grid(visible=False)
                axes.spines[:].set_visible(False)
                if row == 0:
                    axes.set_title(name, fontsize=8.0, color=QUIET)
            text = f"{one.name}\n{one.facts}" if one.facts else one.name
            panels[0].set_ylabel(text, fontsize=7.5, color=INK)
            if pixel_A:
                _scale_bar(panels[3], len(views[0]), pixel_A)

    return draw(paint, height_in=0.25 + ROW_IN * len(found))


def _scale_bar(axes, box: int, pixel_A: float) -> None:
    """Draw a bar of a round length, a third of the box at most."""
    lengths = [length for length in (10, 20, 50, 100, 200, 500, 1000) if length < box * pixel_A / 3]
    length_A = lengths[-1] if lengths else 10
    right, bottom = 0.95 * box, 0.06 * box
    left = right - length_A / pixel_A
    axes.plot([left, right], [bottom, bottom], "-", color="white", linewidth=2.5)
    axes.text(
        (left + right) / 2, bottom + 0.03 * box, f"{length_A} Å", color="white", fontsize=6.5,
        ha="center", va="bottom",
    )  # fmt: skip
