"""Plots of a refinement: correlation of the halves, amplitudes, directions, resolution.

Drawn from RELION's tables, whoever has written them. Source: refinement.md sections 7 and 8.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from algorithms.formats import star
from services.kit.events import MapRefined
from services.report.plots import BLUE, GREEN, INK, ORANGE, QUIET, VERMILION, draw, legend

RESOLVED = 0.143
NOTHING = -90.0  # RELION writes -99 for the logarithm of nothing
# Particles in a bin of directions at least, on average, so that their number says something.
PER_BIN = 6.0
CURVES = (
    ("rlnFourierShellCorrelationUnmaskedMaps", "unmasked", GREEN, "--"),
    ("rlnFourierShellCorrelationMaskedMaps", "masked", BLUE, "-."),
    (
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
        "masked, random phases",
        VERMILION,
        ":",
    ),
    ("rlnFourierShellCorrelationCorrected", "corrected", INK, "-"),
)
AMPLITUDES = (
    ("rlnLogAmplitudesOriginal", "mean of the half-maps", GREEN, "--"),
    ("rlnLogAmplitudesMTFCorrected", "corrected for the detector", ORANGE, "-."),
    ("rlnLogAmplitudesWeighted", "weighted by the correlation", BLUE, "-"),
    ("rlnLogAmplitudesSharpened", "sharpened", INK, "-"),
)


def fsc(table: star.Table | None) -> bytes | None:
    """Return the curves of post-processing, or the one of a refinement, as PNG."""
    if table is None or (at := column(table, "rlnResolution")) is None:
        return None
    curves = [
        (values, *rest) for label, *rest in CURVES if (values := column(table, label)) is not None
    ]
    if not curves and (gold := column(table, "rlnGoldStandardFsc")) is not None:
        curves = [(gold, "halves of the refinement", INK, "-")]
    if not curves:
        return None
    corrected = curves[-1][0]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for values, label, colour, style in curves:
            axes.plot(at, values, style, color=colour, label=label, linewidth=1.5)
        axes.axhline(RESOLVED, color=QUIET, linewidth=0.8, linestyle=":")
        below = np.flatnonzero(corrected[1:] < RESOLVED)
        shell = int(below[0]) if len(below) else len(at) - 1
        if shell > 0:
            axes.axvline(at[shell], color=QUIET, linewidth=0.8)
            text = f" {1.0 / at[shell]:.2f} Å at {RESOLVED} "
            side = "right" if shell > 0.7 * len(at) else "left"
            axes.text(at[shell], 1.0, text, ha=side, va="top", color=INK, fontsize=8.0)
        axes.set(xlim=(0.0, at[-1]), ylim=(-0.15, 1.05), ylabel="Fourier shell correlation")
        _inverse(axes, np.linspace(0.0, at[-1], 7)[1:])
        legend(axes)

    return draw(paint, height_in=2.9)


def _inverse(axes: Axes, ticks: np.ndarray) -> None:
    axes.set_xticks(ticks, [f"{1.0 / tick:.3g}" for tick in ticks])
    axes.set_xlabel("resolution (Å)")


def guinier(table: star.Table | None, general: star.Table | None) -> bytes | None:
    """Return the Guinier plot of post-processing as PNG."""
    at = None if table is None else column(table, "rlnResolutionSquared")
    if table is None or at is None:
        return None
    curves = [
        (values, *rest)
        for label, *rest in AMPLITUDES
        if (values := column(table, label)) is not None
    ]
    curves = [(np.where(v > NOTHING, v, np.nan), *rest) for v, *rest in curves]
    line = [number(general, f"rlnFitted{name}GuinierPlot") for name in ("Slope", "Intercept")]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for values, label, colour, style in curves:
            axes.plot(at, values, style, color=colour, label=label, linewidth=1.4)
        slope, intercept = line
        if slope is not None and intercept is not None:
            axes.plot(at, intercept + slope * at, ":", color=VERMILION, label="fitted line")
        finite = np.concatenate([v[np.isfinite(v)] for v, *_ in curves])
        margin = 0.06 * float(np.ptp(finite)) + 0.1
        axes.set_ylim(finite.min() - margin, finite.max() + margin)
        factor = number(general, "rlnBfactorUsedForSharpening")
        if factor is not None:
            axes.set_title(f"B-factor {factor:.0f} Å²")
        axes.set(xlabel="1 / resolution² (1/Å²)", ylabel="ln of the mean amplitude")
        axes.legend(loc="upper right")

    return draw(paint, height_in=2.9)


def directions(rot_deg: np.ndarray, tilt_deg: np.ndarray) -> bytes:
    """Return where particles are seen from, over a uniform distribution, as PNG.

    Parameters
    ----------
    rot_deg, tilt_deg
        Of the particles `[n]`; any turns, RELION's convention.
    """
    relative = by_direction(rot_deg, tilt_deg)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        drawn = axes.imshow(
            relative,
            origin="lower",
            extent=(-180.0, 180.0, -1.0, 1.0),
            cmap="cividis",
            vmin=0.0,
            vmax=float(max(2.0, np.percentile(relative, 98.0))),
            aspect="auto",
            interpolation="nearest",
        )
        axes.set(xlabel="rot (°)", ylabel="tilt (°)")
        axes.set_xticks(range(-180, 181, 60))
        tilts = (0, 30, 60, 90, 120, 150, 180)
        axes.set_yticks([np.cos(np.radians(t)) for t in tilts], [f"{t}" for t in tilts])
        axes.grid(visible=False)
        axes.set_title(f"{len(rot_deg):,} particles")
        figure.colorbar(drawn, ax=axes, label="times uniform", extend="max")

    return draw(paint, height_in=2.7)


def by_direction(rot_deg: np.ndarray, tilt_deg: np.ndarray) -> np.ndarray:
    """Return the particles in bins of equal area over those of a uniform distribution.

    Rows are bins of cos(tilt) from -1 to 1, columns of rot from -180 to 180 degrees.
    """
    # One pair for each direction, tilt from 0 to 180.
    turned = np.mod(tilt_deg, 360.0)
    over = turned > 180.0
    height = np.cos(np.radians(turned))
    rot = np.mod(np.where(over, rot_deg + 180.0, rot_deg) + 180.0, 360.0) - 180.0
    rows = int(np.clip(np.sqrt(len(rot) / PER_BIN / 2.0), 6, 36))
    edges = np.linspace(-180.0, 180.0, 2 * rows + 1), np.linspace(-1.0, 1.0, rows + 1)
    counts, _, _ = np.histogram2d(rot, np.clip(height, -1.0, 1.0), bins=edges)
    return counts.T / (len(rot) / counts.size)


def growth(refined: Sequence[MapRefined]) -> bytes | None:
    """Return the resolution of each refinement against its particles, as PNG."""
    looks: Mapping[str, tuple[str, str, str]] = {
        "refine3d": (BLUE, "o--", "refined, no mask"),
        "postprocess": (INK, "s-", "sharpened, in the mask"),
    }
    points = {
        node: [
            (one.particles, one.resolution_A)
            for one in refined
            if one.node == node and one.resolution_A
        ]
        for node in looks
    }
    if not any(points.values()):
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for node, found in points.items():
            if found:
                particles, at_A = np.asarray(sorted(found)).T
                colour, style, label = looks[node]
                axes.plot(particles, at_A**-2.0, style, color=colour, label=label, markersize=4.5)
        axes.set_xscale("log")
        every = np.asarray([p for found in points.values() for p in found])
        low, high = every[:, 0].min(), every[:, 0].max()
        axes.set_xlim(low / 1.3, high * 1.3)
        axes.set_xticks(
            sorted({low, high}), [f"{n:,.0f}" for n in sorted({low, high})], minor=False
        )
        axes.minorticks_off()
        bottom, top = (every[:, 1] ** -2.0).min(), (every[:, 1] ** -2.0).max()
        margin = 0.12 * (top - bottom) + 0.02 * top
        axes.set_ylim(bottom - margin, top + margin)
        ticks = np.linspace(bottom, top, 4) if top > bottom else np.asarray([top])
        axes.set_yticks(ticks, [f"{tick**-0.5:.3g}" for tick in ticks])
        axes.set(xlabel="particles", ylabel="resolution (Å)")
        legend(axes)

    return draw(paint, height_in=2.5)


def column(table: star.Table, label: str) -> np.ndarray | None:
    """Return a column of numbers `[n]`, None where it is not there or holds something else."""
    if label not in table.columns:
        return None
    try:
        return np.asarray(table.floats(label))
    except star.StarError:
        return None


def number(table: star.Table | None, label: str) -> float | None:
    """Return the first number of a column, None where there is none."""
    values = None if table is None else column(table, label)
    return float(values[0]) if values is not None and len(values) else None
