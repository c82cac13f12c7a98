"""How fast movies come and go: progress, rate, latency, time per stage, and what is refused."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from services.kit.events import (
    Body,
    MicrographCorrected,
    MicrographCtf,
    MicrographRefused,
    MovieRefused,
    MovieSettled,
    ParticlesExtracted,
    ParticlesPicked,
)
from services.report import plots
from services.report.facts import Story
from services.report.plots import (
    BLUE,
    GREEN,
    ORANGE,
    QUIET,
    VERMILION,
    Clock,
    Look,
    draw,
    key,
    legend,
    reach,
    scatter,
    timeline,
)
from services.report.values import Rows

BINS = 24
CODES_SHOWN = 8
STEPS: dict[str, type[Body]] = {
    "motion correction": MicrographCorrected,
    "CTF": MicrographCtf,
    "picking": ParticlesPicked,
    "extraction": ParticlesExtracted,
}
WAYS = ("last byte to complete", "last byte to CTF", "last byte to particles")
LATENCIES = (WAYS[0], *STEPS, *WAYS[1:])


def progress(told: Sequence[Story]) -> bytes | None:
    """Return how many movies were written and how many have left each stage, over wall time."""
    curves = [(name, np.sort(at)) for name, at in _leaving(told) if len(at)]
    if not curves:
        return None
    done = np.concatenate([at for name, at in curves if name != "written"] or [curves[0][1]])
    start, end = float(done.min()), float(done.max())
    clock = Clock(at=np.asarray([start, end]))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        looks = ((QUIET, ":"), (QUIET, "-"), (BLUE, "-"), (ORANGE, "--"), (GREEN, "-."))
        for (name, at), (colour, line) in zip(curves, looks, strict=False):
            # Movies of a session on disk were written long before: the curve begins at their sum.
            shown = np.clip(at, start, end)
            x = clock(np.concatenate([[start], shown, [end]]))
            y = np.concatenate([np.arange(len(at) + 1), [len(at)]])
            axes.step(x, y, where="post", color=colour, linestyle=line, linewidth=1.5, label=name)
        axes.set(xlabel=f"time since processing began ({clock.unit[0]})", ylabel="movies")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        legend(axes, len(curves))

    return draw(paint, height_in=2.5)


def _leaving(told: Sequence[Story]) -> list[tuple[str, np.ndarray]]:
    written = [body.mtime_ns / 1e9 for story in told if (body := story.get(MovieSettled))]
    kinds = {
        "complete": MovieSettled,
        "aligned": MicrographCorrected,
        "CTF": MicrographCtf,
        "particles": ParticlesExtracted,
    }
    left = [
        (label, np.asarray([at for story in told if (at := story.at(kind)) is not None]))
        for label, kind in kinds.items()
    ]
    return [("written", np.asarray(written)), *left]


def rate(rows: Rows, told: Sequence[Story]) -> bytes | None:
    """Return movies per hour: acquired by the microscope, and gone through everything."""
    at = np.sort([moment for story in told if (moment := story.at(ParticlesExtracted))])
    acquired = np.sort(rows.acquired)
    if len(at) < 4 or len(acquired) < 4:
        return None

    def paint(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1)
        for axes, moments, colour, label in (
            (upper, acquired, QUIET, "acquired"),
            (lower, at, GREEN, "processed"),
        ):
            clock = Clock(at=moments)
            edges = np.linspace(moments[0], moments[-1], _bins(len(moments)) + 1)
            counts, _ = np.histogram(moments, edges)
            hours = max(float(edges[1] - edges[0]), 1e-3) / 3600
            axes.stairs(counts / hours, clock(edges), color=colour, fill=True, alpha=0.75)
            mean = (len(moments) - 1) / max(float(np.ptp(moments)), 1e-3) * 3600
            axes.axhline(mean, color=plots.INK, linestyle="--", linewidth=1.0)
            axes.set_title(f"{label}: {mean:,.0f} per hour on average", fontsize=8.5)
            axes.set(ylabel="movies / h", xlabel=f"time since the first ({clock.unit[0]})")
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))

    return draw(paint, height_in=3.6)


def _bins(count: int) -> int:
    return max(4, min(BINS, count // 4))


def waiting(rows: Rows, clock: Clock) -> bytes | None:
    """Return seconds from the last byte of each movie to its CTF and to its particles."""
    x = clock(rows.acquired)
    ctf, particles = (_since_written(rows, kind) for kind in (MicrographCtf, ParticlesExtracted))
    if not np.isfinite(ctf).any():
        return None

    def paint(figure: Figure) -> None:
        (axes,) = timeline(figure, clock, 1)
        scatter(axes, x, ctf, Look(colour=ORANGE, marker="s", label="to the CTF"))
        scatter(axes, x, particles, Look(colour=GREEN, marker="o", label="to the particles"))
        given = np.concatenate([ctf, particles])
        given = given[np.isfinite(given)]
        if given.max() > 20 * max(float(np.median(given)), 0.1):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        else:
            axes.set_ylim(0, reach(ctf, particles))
        axes.set(ylabel="seconds")
        key(figure)

    return draw(paint, height_in=0.8 + plots.PANEL_IN)


def _since_written(rows: Rows, kind: type[Body]) -> np.ndarray:
    found = []
    for story in rows.told:
        at, available = story.at(kind), story.available_at()
        found.append(at - available if at is not None and available is not None else np.nan)
    return np.asarray(found, dtype=float)


def refusals(told: Sequence[Story]) -> bytes | None:
    """Return when movies were refused, one row for each reason, the commonest first."""
    when: dict[str, list[float]] = {}
    for story in told:
        for kind in (MovieRefused, MicrographRefused):
            body, at = story.get(kind), story.at(kind)
            if body is not None and at is not None and body in story.outcome.values():
                when.setdefault(body.code, []).append(at)
    if not when:
        return None
    codes = [code for code, _ in Counter({c: len(at) for c, at in when.items()}).most_common()]
    codes = codes[:CODES_SHOWN]
    moments = [at for story in told for at, _ in story.latest.values()]
    clock = Clock(at=np.asarray([min(moments), max(moments)]))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for row, code in enumerate(codes):
            x = clock(np.asarray(when[code]))
            axes.plot(x, np.full(len(x), row), "|", color=VERMILION, markersize=13, mew=1.6)
        labels = [f"{code} ({len(when[code])})" for code in codes]
        axes.set_yticks(range(len(codes)), labels)
        axes.set_ylim(len(codes) - 0.4, -0.6)
        axes.set_xlim(-0.02 * clock(clock.at)[-1], 1.02 * max(clock(clock.at)[-1], 1e-3))
        axes.set_xlabel(f"time since the session began ({clock.unit[0]})")
        axes.grid(visible=False, axis="y")

    return draw(paint, height_in=0.75 + 0.34 * len(codes))


def latencies(told: Sequence[Story]) -> list[tuple[str, np.ndarray]]:
    """Return label and seconds of each step, and of the way from the last byte of the movie."""
    found: dict[str, list[float]] = {label: [] for label in LATENCIES}
    for story in told:
        available = story.available_at()
        settled_at, ctf_at = story.at(MovieSettled), story.at(MicrographCtf)
        extracted_at = story.at(ParticlesExtracted)
        if available is not None:
            for label, at in zip(WAYS, (settled_at, ctf_at, extracted_at), strict=True):
                if at is not None:
                    found[label].append(at - available)
        for label, kind in STEPS.items():
            took_s = getattr(story.get(kind), "took_s", None)
            if took_s is not None:
                found[label].append(took_s)
    return [(label, np.asarray(found[label])) for label in LATENCIES]


def latency_table(told: Sequence[Story]) -> list[tuple[str, int, float, float, float]]:
    """Return label, count, median, 95th percentile and maximum in seconds, for the table."""
    return [
        (
            label,
            len(seconds),
            float(np.median(seconds)),
            float(np.percentile(seconds, 95)),
            float(seconds.max()),
        )
        for label, seconds in latencies(told)
        if len(seconds)
    ]


def time_per_stage(told: Sequence[Story]) -> bytes | None:
    """Return box plots of seconds per stage on a logarithmic axis."""
    parts = [(label, seconds[seconds > 0]) for label, seconds in latencies(told)]
    parts = [(label, seconds) for label, seconds in parts if len(seconds)]
    if not parts:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        line = {"color": BLUE, "linewidth": 1.0}
        axes.boxplot(
            [seconds for _, seconds in reversed(parts)],
            orientation="horizontal",
            tick_labels=[label for label, _ in reversed(parts)],
            whis=(5, 95),
            widths=0.55,
            patch_artist=True,
            showfliers=False,
            boxprops={"facecolor": "#cfe4f1", "edgecolor": BLUE, "linewidth": 1.0},
            whiskerprops=line,
            capprops=line,
            medianprops={"color": VERMILION, "linewidth": 1.8},
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("seconds (box: quartiles; whiskers: 5 to 95 %)")
        axes.grid(visible=False, axis="y")

    return draw(paint, height_in=0.62 + 0.36 * len(parts))
