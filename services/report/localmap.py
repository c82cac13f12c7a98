"""Local resolution as a picture: central slices in colours, and how often each value is."""

import io

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from services.report.plots import BLUE, QUIET, STYLE

BINS = 60


def picture(at_A: np.ndarray, volume: np.ndarray, inside: np.ndarray, kind: str = "png") -> bytes:
    """Draw both.

    Parameters
    ----------
    at_A
        Local resolution `[N, N, N]`, 0 where there is none.
    volume
        The map, drawn where it is dense.
    inside
        Values within the mask.
    kind
        "png" or "pdf".
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.6), layout="constrained", dpi=120)
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 3)
        low, high = np.quantile(inside, (0.02, 0.98))
        dense = np.clip(volume / max(float(np.quantile(volume, 0.999)), 1e-12), 0.0, 1.0)
        panels = [figure.add_subplot(grid[0, column]) for column in range(3)]
        drawn, middle = None, len(at_A) // 2
        for axis, (panel, name) in enumerate(zip(panels, "zyx", strict=True)):
            here, density = (np.take(values, middle, axis) for values in (at_A, dense))
            shown = np.where(here > 0.0, here, np.nan)
            panel.set_facecolor("black")
            drawn = panel.imshow(
                shown, origin="lower", cmap="viridis_r", vmin=low, vmax=high, alpha=density
            )
            panel.set(xticks=(), yticks=(), title=f"central slice, {name}")
            panel.grid(visible=False)
        assert drawn is not None  # noqa: S101
        figure.colorbar(drawn, ax=panels, label="Å", shrink=0.8)
        axes = figure.add_subplot(grid[1, :])
        axes.hist(inside, bins=BINS, color=BLUE)
        median = float(np.median(inside))
        axes.axvline(median, color=QUIET, linewidth=0.8)
        axes.set(xlabel="local resolution (Å)", ylabel="voxels", title=f"median {median:.2f} Å")
        content = io.BytesIO()
        dated = {"CreationDate": None} if kind == "pdf" else None
        figure.savefig(content, format=kind, metadata=dated, facecolor="white")
    return content.getvalue()
