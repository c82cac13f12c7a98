"""How the halves of an auto-refinement agree, iteration by iteration, as a picture."""

import io
from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from algorithms.maps.correlation import RESOLVED
from services.report.plots import BLUE, INK, QUIET, STYLE, VERMILION


def convergence(
    curves: Mapping[int, np.ndarray], resolutions_A: Mapping[int, float], pixel_A: float
) -> bytes:
    """Draw the correlation of the halves in each iteration, and the resolution; PNG.

    Parameters
    ----------
    curves
        FSC by iteration, `[N/2+1]` each.
    resolutions_A
        By iteration.
    pixel_A
        Edge of a voxel.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 6.0), layout="constrained", dpi=120)
        FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1, height_ratios=(2, 1))
        _curves(above, curves, pixel_A)
        numbers = sorted(resolutions_A)
        below.plot(numbers, [resolutions_A[n] for n in numbers], "o-", color=BLUE, markersize=3.5)
        below.set(xlabel="iteration", ylabel="resolution (Å)")
        below.invert_yaxis()
        below.xaxis.get_major_locator().set_params(integer=True)
        content = io.BytesIO()
        figure.savefig(content, format="png", facecolor="white")
    return content.getvalue()


def _curves(axes: Axes, curves: Mapping[int, np.ndarray], pixel_A: float) -> None:
    numbers = sorted(curves)
    shades = colormaps["viridis"](np.linspace(0.95, 0.15, len(numbers)))
    for number, shade in zip(numbers, shades, strict=True):
        curve = curves[number]
        inverse_A = np.arange(len(curve)) / (2 * (len(curve) - 1) * pixel_A)
        is_last = number == numbers[-1]
        colour, width = (INK, 2.0) if is_last else (shade, 1.0)
        is_named = is_last or number in (numbers[0], numbers[len(numbers) // 2])
        label = f"iteration {number}" if is_named else None
        axes.plot(inverse_A, curve, color=colour, linewidth=width, label=label)
        axes.set_xlim(0.0, inverse_A[-1])
        ticks = np.linspace(0.0, inverse_A[-1], 7)[1:]
        axes.set_xticks(ticks, [f"{1.0 / tick:.3g}" for tick in ticks])
    for limit, colour in ((0.5, QUIET), (RESOLVED, VERMILION)):
        axes.axhline(limit, color=colour, linewidth=0.8)
    axes.set(ylabel="FSC of the halves", xlabel="resolution (Å)", ylim=(-0.15, 1.05))
    axes.legend(loc="upper right")
