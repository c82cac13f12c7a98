"""Figures over the session's time line: motion, CTF, picks with their control limits.

Each function returns PNG bytes, or None when there is nothing to show.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from algorithms.picking.chart import Chart
from algorithms.picking.chart import Kind as ChartKind
from services.report import plots
from services.report.plots import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    QUIET,
    SKY,
    VERMILION,
    Clock,
    Look,
    draw,
    key,
    reach,
    scatter,
    timeline,
    trend,
)
from services.report.values import UNITS, Rows

REFUSED = Look(colour=VERMILION, marker="x", label="refused")


def motion(rows: Rows, clock: Clock) -> bytes | None:
    """Return motion of each movie: total above, early and late below."""
    if not rows.has("total_A"):
        return None
    x = clock(rows.acquired)

    def paint(figure: Figure) -> None:
        total, parts = timeline(figure, clock, 2)
        _judged(total, x, rows["total_A"], rows.is_refused, reach(rows["total_A"]), "total")
        total.set(ylabel="total (Å)", ylim=(0, reach(rows["total_A"])))
        trend(total, x, rows["total_A"])
        top = reach(rows["early_A"], rows["late_A"])
        late = Look(colour=SKY, marker="s", label="later")
        scatter(parts, x, rows["late_A"], late, top)
        early = Look(colour=ORANGE, marker="o", label="first 4 e/Å²")
        scatter(parts, x, rows["early_A"], early, top)
        parts.set(ylabel="early, late (Å)", ylim=(0, top))
        key(figure)

    return draw(paint, height_in=0.8 + 2 * plots.PANEL_IN)


def defocus(rows: Rows, clock: Clock) -> bytes | None:
    """Return defocus, both axes joined by a bar, and astigmatism below."""
    if not rows.has("defocus_um"):
        return None
    x = clock(rows.acquired)

    def paint(figure: Figure) -> None:
        upper, lower = timeline(figure, clock, 2)
        u, v = rows["defocus_u_um"], rows["defocus_v_um"]
        top = reach(u)
        if len(x) <= 2000:
            inside = np.isfinite(u) & (u <= top)
            upper.vlines(x[inside], v[inside], u[inside], color=QUIET, linewidth=0.9)
        scatter(upper, x, u, Look(colour=BLUE, marker="o", label="U"), top)
        scatter(upper, x, v, Look(colour=ORANGE, marker="s", label="V"), top)
        low = min(0.0, float(np.nanmin(v)))
        upper.set(ylabel="underfocus (µm)", ylim=(low, top))
        top = reach(rows["astigmatism_A"], least=300.0)
        _judged(lower, x, rows["astigmatism_A"], rows.is_refused, top)
        trend(lower, x, rows["astigmatism_A"])
        lower.set(ylabel="astigmatism (Å)", ylim=(0, top))
        key(figure)

    return draw(paint, height_in=0.8 + 2 * plots.PANEL_IN)


def fits(rows: Rows, clock: Clock, limit_A: float | None) -> bytes | None:
    """Return fit resolution with the limit of the selection, and the figure of merit."""
    if not rows.has("fit_A"):
        return None
    x = clock(rows.acquired)

    def paint(figure: Figure) -> None:
        upper, lower = timeline(figure, clock, 2)
        top = reach(rows["fit_A"], least=1.25 * (limit_A or 0.0))
        _judged(upper, x, rows["fit_A"], rows.is_refused, top, "micrograph")
        trend(upper, x, rows["fit_A"])
        if limit_A is not None and limit_A < top:
            upper.axhline(limit_A, color=VERMILION, linewidth=1.0, linestyle="--")
            upper.annotate(
                f"limit {limit_A:g} Å",
                (0.0, limit_A),
                xycoords=("axes fraction", "data"),
                xytext=(3, 2),
                textcoords="offset points",
                color=VERMILION,
                fontsize=8,
            )
        upper.set(ylabel="fit resolution (Å)", ylim=(0, top))
        top = reach(rows["merit"])
        _judged(lower, x, rows["merit"], rows.is_refused, top)
        trend(lower, x, rows["merit"])
        lower.set(ylabel="figure of merit", ylim=(min(0.0, float(np.nanmin(rows["merit"]))), top))
        key(figure)

    return draw(paint, height_in=0.8 + 2 * plots.PANEL_IN)


# A figure of each of these is drawn only where the CTF fit gave values; limits as in 3.7.
_ICE = (
    ("ice_peak", "ice ring (SE)", None),
    ("iciness", "iciness", 1.5),
    ("ice_ring", "ring density", None),
    ("intensity", "intensity", None),
    ("thickness_A", "thickness (Å)", None),
)


def ice(rows: Rows, clock: Clock) -> bytes | None:
    """Return what the spectra say of ice: its ring, and the thickness where it was fitted."""
    shown = [part for part in _ICE if rows.has(part[0])]
    if not shown:
        return None
    x = clock(rows.acquired)

    def paint(figure: Figure) -> None:
        for axes, (name, label, limit) in zip(
            timeline(figure, clock, len(shown)), shown, strict=True
        ):
            top = reach(rows[name], least=1.2 * (limit or 0.0))
            _judged(axes, x, rows[name], rows.is_refused, top)
            trend(axes, x, rows[name])
            if limit is not None:
                axes.axhline(limit, color=VERMILION, linewidth=1.0, linestyle="--")
            low = float(np.nanmin(rows[name]))
            # What matters of the intensity is its change by a few per cent.
            low = 0.98 * low if name == "intensity" else min(0.0, low)
            axes.set(ylabel=label, ylim=(low, top))
        key(figure)

    return draw(paint, height_in=0.8 + 1.4 * len(shown))


def phase(rows: Rows, clock: Clock) -> bytes | None:
    """Return the phase shift; None without a phase plate."""
    if not rows.has("phase_deg") or not np.nanmax(np.abs(rows["phase_deg"])):
        return None
    x = clock(rows.acquired)

    def paint(figure: Figure) -> None:
        (axes,) = timeline(figure, clock, 1)
        scatter(axes, x, rows["phase_deg"], Look(colour=PURPLE, marker="o"))
        trend(axes, x, rows["phase_deg"])
        axes.set(ylabel=UNITS["phase_deg"])

    return draw(paint, height_in=0.8 + plots.PANEL_IN)


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """From when to when the picks differed from those of the beginning; `until` None: still."""

    since: float  # time of acquisition, seconds
    until: float | None
    measure: str


@dataclass(kw_only=True)
class _Control:
    """Moving average and limits of a control chart along the session."""

    x: list[float] = field(default_factory=list)
    average: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


def picks(rows: Rows, clock: Clock, alarms: Sequence[Alarm]) -> bytes | None:
    """Return picks of each micrograph and their distances, each with its control chart."""
    if not rows.has("picks"):
        return None
    x = clock(rows.acquired)

    def paint(figure: Figure) -> None:
        panels = timeline(figure, clock, 2 if rows.has("neighbour_A") else 1)
        parts: tuple[tuple[str, ChartKind, str, str], ...] = (
            ("picks", "count", "particles", "picks per micrograph"),
            ("neighbour_A", "distance", "nearest_neighbour_A", "nearest neighbour (Å)"),
        )
        for axes, (name, kind, measure, label) in zip(panels, parts, strict=False):
            top = reach(rows[name])
            _control(axes, x, rows[name], kind)
            scatter(axes, x, rows[name], Look(colour=GREEN, marker="o", label="micrograph"), top)
            _alarms(axes, clock, [alarm for alarm in alarms if alarm.measure == measure])
            axes.set(ylabel=label, ylim=(0, max(top, axes.get_ylim()[1])))
        key(figure)

    return draw(paint, height_in=0.8 + 1.9 * (2 if rows.has("neighbour_A") else 1))


def _control(axes: Axes, x: np.ndarray, values: np.ndarray, kind: ChartKind) -> None:
    """Draw the average that is watched and its limits, from the 40th micrograph on."""
    chart, told = Chart(kind), _Control()
    for at, value in zip(x, values, strict=True):
        if not np.isfinite(value) or (kind == "distance" and value <= 0):
            continue
        chart.add(float(value))
        if chart.is_ready:
            low, _, high = chart.limits()
            told.x.append(at)
            told.average.append(chart.current())
            told.low.append(low)
            told.high.append(high)
    if told.x:
        axes.fill_between(told.x, told.low, told.high, color="#d9e6ee", linewidth=0, zorder=0)
        limits = {"color": PURPLE, "linestyle": "--", "linewidth": 1.1, "zorder": 5}
        axes.plot(told.x, told.low, label="limits of the average", **limits)
        axes.plot(told.x, told.high, **limits)
        width = 1.2 if len(told.x) <= 1000 else 0.5
        axes.plot(told.x, told.average, color=INK, linewidth=width, label="average", zorder=4)


def _alarms(axes: Axes, clock: Clock, alarms: Sequence[Alarm]) -> None:
    for number, alarm in enumerate(alarms):
        until = alarm.until if alarm.until is not None else clock.at[-1]
        since, until = (float(clock(np.asarray([at]))[0]) for at in (alarm.since, until))
        axes.axvspan(
            since,
            max(until, since),
            facecolor=VERMILION,
            edgecolor=VERMILION,
            alpha=0.18,
            hatch="//",
            label="alarm" if number == 0 else None,
            zorder=0,
        )


def _judged(
    axes: Axes,
    x: np.ndarray,
    values: np.ndarray,
    is_refused: np.ndarray,
    top: float,
    label: str = "",
) -> None:
    """Draw points, and crosses for refused micrographs."""
    fitted = Look(colour=BLUE, marker="o", label=label)
    scatter(axes, x[~is_refused], values[~is_refused], fitted, top)
    scatter(axes, x[is_refused], values[is_refused], REFUSED, top)


def motion_histograms(rows: Rows) -> bytes | None:
    """Return histograms of the motion."""
    names = (("total_A", BLUE), ("early_A", ORANGE))
    return plots.histograms([(UNITS[name], rows[name], colour) for name, colour in names])


def ctf_histograms(rows: Rows) -> bytes | None:
    """Return histograms of what the CTF fits gave."""
    names = (("fit_A", BLUE), ("defocus_um", BLUE), ("astigmatism_A", ORANGE), ("merit", GREEN))
    return plots.histograms([(UNITS[name], rows[name], colour) for name, colour in names])


def pick_histograms(rows: Rows) -> bytes | None:
    """Return histograms of the picks."""
    names = (("picks", GREEN), ("neighbour_A", GREEN))
    return plots.histograms([(UNITS[name], rows[name], colour) for name, colour in names])
