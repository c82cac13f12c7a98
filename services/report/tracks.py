"""Figures of motion in single movies: tracks, steps, and where in the image they were."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from services.report.plots import BLUE, INK, ORANGE, QUIET, SKY, VERMILION, draw, key
from services.report.readings import Motion, Track

# The longest track of a patch is drawn as long as this share of the picture.
LONGEST = 0.11
EXAGGERATIONS = (1, 2, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 500, 1000, 2000)


def side_by_side(tracks: Sequence[tuple[str, Track]]) -> bytes | None:
    """Return whole-frame tracks side by side on one scale; a dot marks the first frame.

    Parameters
    ----------
    tracks
        Panel title and track, at most six.
    """
    tracks = [(title, track) for title, track in tracks if len(track.x_A) > 1][:6]
    if not tracks:
        return None
    columns = 3

    def paint(figure: Figure) -> None:
        rows = -(-len(tracks) // columns)
        panels = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
        spans = [max(np.ptp(track.x_A), np.ptp(track.y_A)) for _, track in tracks]
        half = 0.58 * max(float(max(spans)), 1.0)
        for axes in panels[len(tracks) :]:
            axes.set_axis_off()
        for axes, (title, track) in zip(panels, tracks, strict=False):
            _track(axes, track, half)
            axes.set_title(title, fontsize=8.5)
        panels[0].set_ylabel("shift y (Å)")
        panels[0].set_xlabel("shift x (Å)")

    return draw(paint, height_in=0.3 + 1.75 * -(-len(tracks) // columns))


def _track(axes: Axes, track: Track, half: float) -> None:
    axes.plot(track.x_A, track.y_A, "-", color=BLUE, linewidth=1.1)
    axes.plot(track.x_A[1:], track.y_A[1:], ".", color=BLUE, markersize=3)
    axes.plot(track.x_A[:1], track.y_A[:1], "o", color=VERMILION, markersize=5)
    for values, limit in ((track.x_A, axes.set_xlim), (track.y_A, axes.set_ylim)):
        middle = float(values.max() + values.min()) / 2
        limit(middle - half, middle + half)
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def drift(motion: Motion) -> bytes:
    """Return the whole frame's track in A, and the patches' where they are, exaggerated."""

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.25))
        _numbered(left, motion.track)
        _field(right, motion)

    return draw(paint, height_in=2.9)


def _numbered(axes: Axes, track: Track) -> None:
    """Draw a track on a scale of its own, with the numbers of some frames."""
    half = 0.6 * max(float(np.ptp(track.x_A)), float(np.ptp(track.y_A)), 0.5)
    _track(axes, track, half)
    every = max(1, len(track.x_A) // 5)
    for index in sorted({0, *range(every - 1, len(track.x_A), every), len(track.x_A) - 1}):
        axes.annotate(
            f"{track.first_frame + index}",
            (track.x_A[index], track.y_A[index]),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=7.5,
            color=QUIET,
        )
    axes.set(xlabel="shift x (Å)", ylabel="shift y (Å)")
    axes.set_title("by frame number")


def exaggerations(motion: Motion) -> tuple[int, int]:
    """Return how many times longer than they are tracks are drawn: whole frame, and patches."""
    room = LONGEST * max(motion.width_A, motion.height_A)
    return _times([motion.global_A], 2 * room), _times(motion.patches_A, room)


def _times(paths: Sequence[np.ndarray], room: float) -> int:
    """Return the largest factor with which four fifths of the paths stay within `room`."""
    lengths = [float(np.ptp(path, axis=0).max()) for path in paths]
    usual = float(np.percentile(lengths, 80)) if lengths else 0.0
    fitting = [times for times in EXAGGERATIONS if times * usual <= room]
    return fitting[-1] if fitting else 1


def _field(axes: Axes, motion: Motion) -> None:
    whole, local = exaggerations(motion)
    for number, (centre, patch, model) in enumerate(
        zip(motion.centres_A, motion.patches_A, motion.models_A, strict=True)
    ):
        label = f"{{}} ({local} ×)" if number == 0 else ""
        path = centre + local * (patch - patch[:1])
        axes.plot(*path.T, "-", color=SKY, lw=1.0, label=label.format("patches") or None)
        if model is not None:
            path = centre + local * model
            axes.plot(*path.T, "-", color=INK, lw=0.9, label="their model" if label else None)
        _arrow(axes, path, SKY if model is None else INK)
    middle = np.asarray([motion.width_A / 2, motion.height_A / 2])
    path = middle + whole * motion.global_A
    axes.plot(*path.T, "-", color=ORANGE, linewidth=1.6, label=f"whole frame ({whole} ×)")
    axes.plot(*path[:1].T, "o", color=VERMILION, markersize=4)
    _arrow(axes, path, ORANGE)
    axes.set_xlim(0, motion.width_A)
    axes.set_ylim(0, motion.height_A)
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set(xlabel="x (Å)", ylabel="y (Å)")
    axes.grid(visible=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    axes.set_title("in the image, exaggerated")
    figure = axes.get_figure()
    if isinstance(figure, Figure):
        key(figure)


def _arrow(axes: Axes, path: np.ndarray, colour: str) -> None:
    """Put the head of an arrow at the end of a path."""
    if np.ptp(path, axis=0).max() <= 0:
        return
    tail = path[max(0, len(path) - 1 - max(1, len(path) // 5))]
    axes.annotate(
        "",
        xy=path[-1],
        xytext=tail,
        arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 0.9, "mutation_scale": 6},
    )


def steps(motion: Motion, dose_per_frame_e_A2: float | None) -> bytes | None:
    """Return the length of each step between frames, over the dose where it is known."""
    track = motion.track
    if len(track.x_A) < 2:
        return None
    lengths = np.hypot(np.diff(track.x_A), np.diff(track.y_A))
    frames = track.first_frame + 0.5 + np.arange(len(lengths))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.bar(frames, lengths, width=0.8, color=BLUE)
        axes.set(xlabel="frame", ylabel="step (Å)")
        axes.set_ylim(0, 1.12 * max(float(lengths.max()), 0.1))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.grid(visible=False, axis="x")
        if dose_per_frame_e_A2:
            top = axes.secondary_xaxis("top", functions=_scales(dose_per_frame_e_A2))
            top.set_xlabel("dose (e/Å²)", fontsize=8)
            top.spines["top"].set_visible(False)
            top.tick_params(labelsize=7.5)

    return draw(paint, height_in=2.1)


def _scales(dose: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return how frames become dose, and dose frames, for an axis."""
    return (lambda frame: frame * dose, lambda given: given / dose)
