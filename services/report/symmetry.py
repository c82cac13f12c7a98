"""The self-rotation function of a map as a picture, and the evidence for each point group."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from algorithms.maps.selfrotation import SelfRotation
from algorithms.maps.symmetry_search import DOUBTFUL, SURE, Answer
from algorithms.orientation import healpix
from services.report.plots import BLUE, ORANGE, QUIET, draw

FOLDS = (2, 3, 4, 5, 6, 7)
ORDER = 3
GROUPS_SHOWN = 12


def picture(map_: SelfRotation, answer: Answer) -> bytes:
    """Draw the correlation after 1/n of a turn about every axis, and the groups: PNG.

    Parameters
    ----------
    map_
        The map, prepared.
    answer
        Of the search.
    """
    axes, places = _hemisphere()
    scores = map_.about(torch.from_numpy(axes), FOLDS).cpu().numpy()

    def paint(figure: Figure) -> None:
        grid = figure.add_gridspec(3, 3)
        panels = [figure.add_subplot(grid[n // 3, n % 3]) for n in range(len(FOLDS))]
        top = max(0.3, float(scores.max()))
        drawn = None
        for panel, fold, values in zip(panels, FOLDS, scores.T, strict=True):
            drawn = panel.tricontourf(
                places[0], places[1], values, np.linspace(0.0, top, 21), extend="both"
            )
            best = int(values.argmax())
            panel.plot(places[0][best], places[1][best], "+", color="white")
            panel.set(aspect="equal", title=f"{fold}-fold: {values[best]:.2f}")
            panel.axis("off")
        assert drawn is not None  # noqa: S101
        figure.colorbar(drawn, ax=panels, label="correlation", shrink=0.7)
        _groups(figure.add_subplot(grid[2, :]), answer)

    return draw(paint, height_in=6.4)


def _hemisphere() -> tuple[np.ndarray, Sequence[np.ndarray]]:
    """Return axes (rot, tilt) of the upper half, and their places, equal areas, z in the middle."""
    rot, tilt = healpix.pixels(ORDER)
    upper = tilt <= 90.0 + 1e-6
    angles = np.stack([rot[upper].numpy(), tilt[upper].numpy()], axis=1)
    radius = math.sqrt(2.0) * np.sin(np.radians(angles[:, 1]) / 2.0)
    turn = np.radians(angles[:, 0])
    return angles, (radius * np.cos(turn), radius * np.sin(turn))


def _groups(axes: Axes, answer: Answer) -> None:
    shown = sorted(answer.fits, key=lambda fit: -fit.evidence)[:GROUPS_SHOWN]
    colours = [ORANGE if fit.group == answer.group else BLUE for fit in shown]
    axes.bar([fit.group for fit in shown], [fit.evidence for fit in shown], color=colours)
    for limit, style in ((SURE, "-"), (DOUBTFUL, ":")):
        axes.axhline(limit, color=QUIET, linewidth=0.8, linestyle=style)
    answered = answer.group if answer.sure else f"{answer.group}, not sure"
    axes.set(ylabel="evidence", title=f"answer: {answered}", ylim=(0.0, 1.05))
