"""Two curves of post-processing as a picture: correlation of the half-maps, Guinier plot."""

import io

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from algorithms.maps.correlation import RESOLVED, Curves
from algorithms.maps.sharpen import NOTHING, Guinier
from services.report.plots import BLUE, GREEN, INK, ORANGE, QUIET, STYLE, VERMILION


def picture(curves: Curves, guinier: Guinier, pixel_A: float, kind: str = "png") -> bytes:
    """Draw both plots.

    Parameters
    ----------
    curves, guinier
        What to draw.
    pixel_A
        Edge of a voxel.
    kind
        "png" or "pdf".
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 6.8), layout="constrained", dpi=120)
        FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1)
        _correlation(above, curves, pixel_A)
        _amplitudes(below, guinier)
        content = io.BytesIO()
        dated = {"CreationDate": None} if kind == "pdf" else None
        figure.savefig(content, format=kind, metadata=dated, facecolor="white")
    return content.getvalue()


def _correlation(axes: Axes, curves: Curves, pixel_A: float) -> None:
    box = 2 * (len(curves.corrected) - 1)
    inverse_A = np.arange(len(curves.corrected)) / (box * pixel_A)
    for curve, colour, style, label in (
        (curves.unmasked, GREEN, "--", "unmasked"),
        (curves.masked, BLUE, "-.", "masked"),
        (curves.randomised, VERMILION, ":", "masked, random phases"),
        (curves.corrected, INK, "-", "corrected"),
    ):
        axes.plot(inverse_A, curve.numpy(), style, color=colour, label=label, linewidth=1.5)
    shell = curves.resolved_shell
    axes.axhline(RESOLVED, color=QUIET, linewidth=0.8)
    if shell > 0:
        axes.axvline(inverse_A[shell], color=QUIET, linewidth=0.8)
        axes.set_title(f"{1.0 / inverse_A[shell]:.2f} Å at FSC {RESOLVED}")
    axes.set(ylabel="Fourier shell correlation", xlabel="resolution (Å)", ylim=(-0.15, 1.05))
    axes.set_xlim(0.0, inverse_A[-1])
    ticks = np.linspace(0.0, inverse_A[-1], 7)[1:]
    axes.set_xticks(ticks, [f"{1.0 / tick:.3g}" for tick in ticks])
    axes.legend(loc="upper right")


def _amplitudes(axes: Axes, guinier: Guinier) -> None:
    for logs, colour, style, label in (
        (guinier.original, GREEN, "--", "mean of the half-maps"),
        (guinier.corrected, ORANGE, "-.", "corrected for the detector"),
        (guinier.weighted, BLUE, "-", "weighted by the correlation"),
        (guinier.sharpened, INK, "-", "sharpened"),
    ):
        if logs is not None:
            shown = np.where(logs > NOTHING, logs, np.nan)
            axes.plot(guinier.resolution_squared, shown, style, color=colour, label=label)
    if guinier.line is not None:
        line = guinier.line
        fitted = line.intercept + line.slope_A2 * guinier.resolution_squared
        axes.plot(guinier.resolution_squared, fitted, ":", color=VERMILION, label="fitted line")
        axes.set_title(f"B-factor {4.0 * line.slope_A2:.1f} Å$^2$")
        shown = guinier.original[guinier.original > NOTHING]
        margin = 0.1 * (shown.max() - shown.min()) + 0.5
        finite = guinier.sharpened[guinier.sharpened > NOTHING]
        low, high = min(shown.min(), finite.min()), max(shown.max(), finite.max())
        axes.set_ylim(low - margin, high + margin)
    axes.set(xlabel="resolution squared (1/Å$^2$)", ylabel="ln of the mean amplitude")
    axes.legend(loc="upper right")
