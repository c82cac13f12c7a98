"""How the report's figures look: colours, sizes, the time line, and PNG bytes.

Colours are those of Okabe and Ito, told apart by people with colour-blind eyes; shape or line
style repeats what colour says, so a black-and-white print still reads.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE = "#56B4E9", "#CC79A7"
INK, QUIET, GRID = "#23303b", "#5b6b78", "#dfe5ea"
# A figure of this width keeps its letters readable on a telephone, where it is 360 px wide.
WIDTH_IN, PANEL_IN = 5.2, 1.75
DPI = 160
# Values beyond this many times the middle four fifths are drawn as arrows at the border.
REACH = 1.5
NUMBERS_SHOWN = 6

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.edgecolor": "#9aa7b2",
    "axes.labelcolor": INK,
    "axes.titlesize": 9.0,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "legend.handletextpad": 0.3,
    "legend.columnspacing": 1.0,
    "lines.solid_capstyle": "round",
}


def draw(
    paint: Callable[[Figure], None], height_in: float = 2.6, width_in: float = WIDTH_IN
) -> bytes:
    """Return a figure as PNG; the same facts give the same bytes."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained", dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        paint(figure)
        canvas.draw()  # `savefig` would lay it out and draw it twice
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    buffer = io.BytesIO()
    drawn.convert("RGB").save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The time axis that figures share: from the first exposure to the last.

    Parameters
    ----------
    at
        Times of acquisition, seconds, rising `[n]`.
    """

    at: np.ndarray

    @property
    def unit(self) -> tuple[str, float]:
        """The handiest unit and its length in seconds."""
        span_s = float(self.at[-1] - self.at[0]) if len(self.at) else 0.0
        for unit, seconds in (("h", 3600.0), ("min", 60.0)):
            if span_s >= 2 * seconds:
                return unit, seconds
        return "s", 1.0

    @property
    def label(self) -> str:
        """Label of the axis."""
        return f"time since the first exposure ({self.unit[0]})"

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """Return times on the axis."""
        start = self.at[0] if len(self.at) else 0.0
        return (at - start) / self.unit[1]

    def number(self, axes: Axes) -> None:
        """Write the numbers of the micrographs along the upper border of a panel."""
        shown = _spaced(self(self.at), axes.get_xlim())
        top = axes.secondary_xaxis("top")
        top.set_xticks(self(self.at)[shown], [f"{index + 1:,}" for index in shown])
        top.tick_params(length=2, labelsize=7.5, pad=1)
        top.spines["top"].set_visible(False)
        top.set_xlabel("number of the movie", fontsize=7.5, color=QUIET, labelpad=4)


def _spaced(x: np.ndarray, limits: tuple[float, float]) -> list[int]:
    """Return indices at round numbers whose places on the axis leave room for their labels."""
    steps = [m * 10**e for e in range(6) for m in (1, 2, 5)]
    step = next((s for s in steps if len(x) <= NUMBERS_SHOWN * s), steps[-1])
    room = 0.09 * (limits[1] - limits[0])
    found: list[int] = []
    for index in [0, *range(step - 1, len(x), step)]:
        if not found or x[index] - x[found[-1]] > room:
            found.append(index)
    return found


def timeline(figure: Figure, clock: Clock, panels: int) -> list[Axes]:
    """Return panels one above the other that share the time axis."""
    shared = list(np.ravel(figure.subplots(panels, 1, sharex=True, squeeze=False)))
    span = float(clock(clock.at)[-1]) if len(clock.at) else 1.0
    shared[0].set_xlim(-0.02 * max(span, 1e-3), 1.02 * max(span, 1e-3))
    shared[-1].set_xlabel(clock.label)
    clock.number(shared[0])
    return shared


@dataclass(frozen=True, kw_only=True)
class Look:
    """How points are drawn: colour, marker, and what the legend calls them."""

    colour: str
    marker: str
    label: str = ""


def scatter(axes: Axes, x: np.ndarray, y: np.ndarray, look: Look, top: float | None = None) -> None:
    """Draw points; those above `top` become arrows at the upper border."""
    keep = np.isfinite(y)
    x, y = x[keep], y[keep]
    above = y > top if top is not None else np.zeros(len(y), bool)
    size = 4.2 if len(x) <= 300 else 2.6 if len(x) <= 2000 else 1.6
    axes.plot(
        x[~above],
        y[~above],
        look.marker,
        color=look.colour,
        markersize=size + (1.2 if look.marker == "x" else 0.0),
        markeredgewidth=1.2 if look.marker == "x" else 0,
        alpha=0.9 if len(x) <= 2000 else 0.5,
        label=look.label if look.label and len(x) else None,
        zorder=3 if look.marker == "x" else 2,
    )
    if top is not None and above.any():
        axes.plot(x[above], np.full(above.sum(), 0.985 * top), "^", color=look.colour, markersize=4)


def reach(*values: np.ndarray, least: float = 0.0) -> float:
    """Return an upper limit of an axis from 0 that a few extreme values do not stretch."""
    given = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.zeros(0)
    if not len(given):
        return max(least, 1.0)
    low, high = np.percentile(given, (10, 90))
    return float(max(least, 1.06 * min(given.max(), high + REACH * max(high - low, 0.15 * high))))


def trend(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str = INK) -> None:
    """Draw the running median of points, where there are enough of them for one."""
    keep = np.isfinite(y)
    x, y = x[keep], y[keep]
    if len(y) < 30:
        return
    width = max(9, len(y) // 40)
    starts = np.unique(np.linspace(0, len(y) - width, min(len(y) - width + 1, 200)).astype(int))
    middle = [np.median(y[i : i + width]) for i in starts]
    axes.plot(
        x[starts + width // 2], middle, "-", color=colour, lw=1.2, label="running median", zorder=4
    )


def legend(axes: Axes, columns: int = 4) -> None:
    """Put the legend above a panel, at its right, where no data are."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles,
            labels,
            loc="lower right",
            bbox_to_anchor=(1.0, 0.99),
            ncols=columns,
            borderaxespad=0.1,
        )


def key(figure: Figure) -> None:
    """Put one legend for all panels above them, clear of the numbers along the upper border."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if found:
        made = figure.legend(
            list(found.values()), list(found), loc="outside upper right", ncols=len(found)
        )
        for handle in made.legend_handles:
            if isinstance(handle, Line2D) and handle.get_marker() not in ("None", "", None):
                handle.set(markersize=5.0, alpha=1.0)  # also where points are drawn small


def histograms(parts: Sequence[tuple[str, np.ndarray, str]]) -> bytes | None:
    """Return histograms side by side, two in a row, medians marked.

    Parameters
    ----------
    parts
        (label with unit, values, colour); those without a finite value are left out.
    """
    given = [(label, v[np.isfinite(v)], colour) for label, v, colour in parts]
    given = [part for part in given if len(part[1])]
    if not given:
        return None
    rows = -(-len(given) // 2)

    def paint(figure: Figure) -> None:
        panels = list(np.ravel(figure.subplots(rows, min(2, len(given)), squeeze=False)))
        for axes in panels[len(given) :]:
            axes.set_axis_off()
        for axes, (label, values, colour) in zip(panels, given, strict=False):
            _histogram(axes, label, values, colour)

    return draw(paint, height_in=0.2 + 1.75 * rows)


def _histogram(axes: Axes, label: str, values: np.ndarray, colour: str) -> None:
    median = float(np.median(values))
    low, high = np.percentile(values, (1, 99))
    pad = max(0.1 * float(high - low), 0.05 * abs(median), 1e-6)
    # What lies beyond goes into the last bars: a histogram of one outlier shows nothing else.
    edges = np.linspace(max(low - pad, min(0.0, low)), high + pad, 25)
    axes.hist(np.clip(values, edges[0], edges[-1]), bins=edges.tolist(), color=colour)
    axes.set_ylabel("movies")
    axes.axvline(median, color=INK, linewidth=1.2, linestyle="--")
    axes.set_title(f"median {median:.3g}", fontsize=8.5, loc="right", color=QUIET)
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.grid(visible=False, axis="x")
