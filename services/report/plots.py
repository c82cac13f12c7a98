"""The report's figures: each function returns an SVG data URI, or None when there is no data.

Colours are those of Okabe and Ito, told apart by people with colour-blind eyes; shape or line
style repeats what colour says, so a black-and-white print still reads.
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from services.report.readings import Profile, Track

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, QUIET, GRID = "#23303b", "#5b6b78", "#dfe5ea"
MANY = 1500  # above this, markers are drawn as pixels: an SVG of 10,000 markers is megabytes

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.edgecolor": "#9aa7b2",
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
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
    "legend.fontsize": 8.5,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "coldstream",  # same facts, same bytes
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values over wall time: `at` in seconds since 1970, one value each."""

    at: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Clock:
    """The time axis that all figures share: from the first to the last event of the session."""

    start: float  # seconds since 1970
    end: float

    @property
    def unit(self) -> tuple[str, float]:
        """Return the handiest unit and its length in seconds."""
        for unit, seconds in (("h", 3600.0), ("min", 60.0)):
            if self.end - self.start >= 2 * seconds:
                return unit, seconds
        return "s", 1.0

    @property
    def label(self) -> str:
        """Return the label of the axis."""
        return f"time since the session began ({self.unit[0]})"

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """Return wall times on the axis."""
        return (at - self.start) / self.unit[1]


def _draw(paint: Callable[[Figure], None], width_in: float = 6.2, height_in: float = 2.7) -> str:
    with rc_context(STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained", dpi=150)
        FigureCanvasSVG(figure)
        paint(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="none")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, marker: str, label: str) -> None:
    many = len(x) > MANY
    axes.plot(
        x,
        y,
        marker,
        color=colour,
        markersize=2.0 if many else 4.5,
        markeredgewidth=0,
        alpha=0.6 if many else 0.9,
        label=label,
        rasterized=many,
    )


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=columns, borderaxespad=0.1)


def drift_tracks(tracks: Sequence[tuple[str, Track]]) -> str | None:
    """Return whole-frame tracks side by side on one scale; a dot marks the first frame.

    Parameters
    ----------
    tracks
        Panel title and track, at most six.
    """
    tracks = [(title, track) for title, track in tracks if len(track.x_A) > 1][:6]
    if not tracks:
        return None

    def paint(figure: Figure) -> None:
        panels = np.ravel(figure.subplots(1, len(tracks), squeeze=False))
        spans = [max(np.ptp(track.x_A), np.ptp(track.y_A)) for _, track in tracks]
        half = 0.58 * max(float(max(spans)), 1.0)
        for axes, (title, track) in zip(panels, tracks, strict=True):
            axes.plot(track.x_A, track.y_A, "-", color=BLUE, linewidth=1.1)
            axes.plot(track.x_A[1:], track.y_A[1:], ".", color=BLUE, markersize=3)
            axes.plot(track.x_A[:1], track.y_A[:1], "o", color=VERMILION, markersize=5)
            for values, limit in ((track.x_A, axes.set_xlim), (track.y_A, axes.set_ylim)):
                middle = float(values.max() + values.min()) / 2
                limit(middle - half, middle + half)
            axes.set_aspect("equal")
            axes.set_title(title, fontsize=8.5)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        panels[0].set_ylabel("shift y (Å)")
        panels[0].set_xlabel("shift x (Å)")

    return _draw(paint, width_in=2.1 * max(len(tracks), 3), height_in=2.5)


def drift_over_time(total_A: Series, early_A: Series, clock: Clock) -> str | None:
    """Return total and early motion of each movie over time."""
    if not len(total_A.at):
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        x = clock(total_A.at)
        _points(axes, x, total_A.values, BLUE, "o", "whole exposure")
        _points(axes, clock(early_A.at), early_A.values, ORANGE, "s", "first 4 e/Å²")
        axes.set(xlabel=clock.label, ylabel="path of the motion (Å)")
        axes.set_ylim(bottom=0)
        _legend_above(axes, 2)

    return _draw(paint)


def defocus(defocus_u_A: Series, defocus_v_A: Series, clock: Clock) -> str | None:
    """Return both defocus values of each micrograph over time, joined by a bar."""
    if not len(defocus_u_A.at):
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        x = clock(defocus_u_A.at)
        u, v = defocus_u_A.values / 1e4, defocus_v_A.values / 1e4
        axes.vlines(x, np.minimum(u, v), np.maximum(u, v), color=QUIET, linewidth=0.9)
        _points(axes, x, u, BLUE, "o", "U")
        _points(axes, x, v, ORANGE, "s", "V")
        axes.set(xlabel=clock.label, ylabel="underfocus (µm)")
        _legend_above(axes, 2)

    return _draw(paint)


def fit_resolution(resolution_A: np.ndarray) -> str | None:
    """Return a histogram of the resolution to which the CTF fits, median marked."""
    finite = resolution_A[np.isfinite(resolution_A)]
    if not len(finite):
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        shown = np.clip(finite, 0.0, 12.0)  # everything worse than 12 A goes into the last bin
        low = np.floor(2 * shown.min()) / 2
        edges = np.arange(low, max(np.ceil(2 * shown.max()) / 2, low + 2) + 0.25, 0.25)
        axes.hist(shown, bins=edges.tolist(), color=BLUE, edgecolor="white", linewidth=0.7)
        median = float(np.median(finite))
        axes.axvline(min(median, 12.0), color=VERMILION, linewidth=1.4, linestyle="--")
        axes.set_title(f"median {median:.1f} Å (dashed)", loc="right", color=VERMILION)
        axes.set(xlabel="CTF fit resolution (Å); better is left", ylabel="micrographs")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(visible=False, axis="x")

    return _draw(paint)


def ctf_profile(profile: Profile, resolution_A: float) -> str | None:
    """Return an equiphase average with its model, and their agreement."""
    keep = np.isfinite(profile.s) & (profile.s > 0)
    if keep.sum() < 3:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        s = profile.s[keep]
        measured = _like_model(profile, resolution_A)[keep]
        axes.plot(s, measured, color=INK, linewidth=1.1, label="measured, scaled")
        axes.plot(s, profile.model[keep], color=VERMILION, linewidth=1.1, ls="--", label="model")
        axes.plot(s, profile.agreement[keep], color=GREEN, linewidth=1.3, label="agreement")
        if resolution_A > 0 and 1 / resolution_A < s[-1]:
            axes.axvline(1 / resolution_A, color=QUIET, linewidth=1.0, linestyle=":")
            axes.annotate(
                f" {resolution_A:.1f} Å", (1 / resolution_A, 1.12), color=QUIET, fontsize=8.5
            )
        axes.set_ylim(-0.25, 1.25)
        axes.set_xlim(0, s[-1])
        axes.set(xlabel="spatial frequency (1/Å)", ylabel="normalised")
        _legend_above(axes, 3)

    return _draw(paint)


def _like_model(profile: Profile, resolution_A: float) -> np.ndarray:
    """Return the equiphase average, scaled and shifted to the model where the rings are strong.

    Programs write it with different normalisation; the eye compares shapes. Scaled over the lower
    half of the fitted band (from 30 A); nothing is shown below it, where no ring is.
    """
    low = 1 / 30.0
    high = (low + 1 / max(resolution_A, 1.0)) / 2
    band = (profile.s >= low) & (profile.s <= high) & np.isfinite(profile.epa)
    if band.sum() < 8:
        return profile.epa
    slope, offset = np.polyfit(profile.model[band], profile.epa[band], 1)
    scaled = (profile.epa - offset) / slope if slope > 0 else profile.epa
    return np.where(profile.s >= low, scaled, np.nan)


def particles(count: Series, clock: Clock) -> str | None:
    """Return the number of particles of each micrograph over time, median marked."""
    if not len(count.at):
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        x = clock(count.at)
        _points(axes, x, count.values, GREEN, "o", "micrograph")
        median = float(np.median(count.values))
        axes.axhline(median, color=QUIET, linewidth=1.0, linestyle="--")
        axes.set_title(f"median {median:.0f} (dashed)", loc="right", color=QUIET)
        axes.set(xlabel=clock.label, ylabel="particles per micrograph")
        axes.set_ylim(0, max(1.15 * float(count.values.max()), 1.0))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))

    return _draw(paint)


def throughput(stages: Sequence[tuple[str, np.ndarray]], clock: Clock) -> str | None:
    """Return cumulative counts over time, one step line per stage.

    Parameters
    ----------
    stages
        Label and times (seconds since 1970) at which a movie left the stage.
    clock
        The time axis.
    """
    stages = [(label, np.sort(at)) for label, at in stages if len(at)]
    if not stages:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        looks = ((QUIET, "-"), (BLUE, "-"), (ORANGE, "--"), (GREEN, "-."))
        for (name, at), (colour, line) in zip(stages, looks, strict=False):
            x = clock(np.concatenate([[clock.start], at, [clock.end]]))
            y = np.concatenate([np.arange(len(at) + 1), [len(at)]])
            axes.step(x, y, where="post", color=colour, linestyle=line, linewidth=1.5, label=name)
        axes.set(xlabel=clock.label, ylabel="movies")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        _legend_above(axes, len(stages))

    return _draw(paint)


def latency(rows: Sequence[tuple[str, np.ndarray]]) -> str | None:
    """Return box plots of seconds per stage on a logarithmic axis.

    Parameters
    ----------
    rows
        Label and seconds, from top to bottom. Boxes span the quartiles, whiskers 5 to 95 %.
    """
    rows = [(label, seconds[seconds > 0]) for label, seconds in rows]
    rows = [(label, seconds) for label, seconds in rows if len(seconds)]
    if not rows:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.boxplot(
            [seconds for _, seconds in reversed(rows)],
            orientation="horizontal",
            tick_labels=[label for label, _ in reversed(rows)],
            whis=(5, 95),
            widths=0.55,
            patch_artist=True,
            showfliers=False,
            boxprops={"facecolor": "#cfe4f1", "edgecolor": BLUE, "linewidth": 1.0},
            whiskerprops={"color": BLUE, "linewidth": 1.0},
            capprops={"color": BLUE, "linewidth": 1.0},
            medianprops={"color": VERMILION, "linewidth": 1.8},
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("seconds (box: quartiles, line: median, whiskers: 5 to 95 %)")
        axes.grid(visible=False, axis="y")

    return _draw(paint, height_in=0.62 + 0.36 * len(rows))
