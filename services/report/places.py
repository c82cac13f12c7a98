"""Statistics by place: grid squares, holes, and optics groups; as tables and as pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from services.report.facts import Story
from services.report.plots import BLUE, GREEN, INK, ORANGE, QUIET, VERMILION, draw, reach
from services.report.values import Rows, described

SQUARES_DRAWN = 20
HOLES_SHOWN = 8
# Columns whose medians are told of every place.
MEDIANS = ("fit_A", "defocus_um", "total_A", "astigmatism_A", "particles")


@dataclass(frozen=True, kw_only=True)
class Place:
    """What the movies of one place were like.

    Parameters
    ----------
    name
        Of the grid square, hole or optics group.
    movies, refused
        How many were complete, and how many of these were set aside later.
    medians
        Column (see `MEDIANS`) -> median, not-a-number where there is none.
    particles
        All of its particles.
    members
        Indices of its rows.
    """

    name: str
    movies: int
    refused: int
    medians: dict[str, float]
    particles: int
    members: np.ndarray


def places(rows: Rows, name_of: Callable[[Story], str]) -> list[Place]:
    """Return the places of a session in the order of their first movie; unnamed ones are left out.

    Parameters
    ----------
    rows
        The numbers of the session.
    name_of
        Name of the place of a movie, "" where it is not known.
    """
    members: dict[str, list[int]] = {}
    for index, story in enumerate(rows.told):
        if name := name_of(story):
            members.setdefault(name, []).append(index)
    return [_place(rows, name, np.asarray(found)) for name, found in members.items()]


def _place(rows: Rows, name: str, members: np.ndarray) -> Place:
    particles = rows["particles"][members]
    return Place(
        name=name,
        movies=len(members),
        refused=int(rows.is_refused[members].sum()),
        medians={column: _median(rows[column][members]) for column in MEDIANS},
        particles=int(np.nansum(particles)),
        members=members,
    )


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def square_of(story: Story) -> str:
    """Return the grid square of a movie: as its metadata name it, else its folder."""
    body = described(story)
    if body is not None and body.grid_square:
        return body.grid_square
    folders = story.movie.split("/")[:-1]
    named = [part for part in folders if part.startswith("GridSquare_")]
    return named[-1].removeprefix("GridSquare_") if named else "/".join(folders)


def hole_of(story: Story) -> str:
    """Return the hole of a movie with its square, as metadata name them."""
    body = described(story)
    return f"{square_of(story)} / {body.foil_hole}" if body is not None and body.foil_hole else ""


def group_of(story: Story) -> str:
    """Return the optics group of a movie."""
    body = described(story)
    return f"{body.optics_group}" if body is not None else ""


def worst(found: Sequence[Place], count: int = HOLES_SHOWN) -> list[Place]:
    """Return the places that gave least: the worst fits first, none fitted before all."""
    judged = [place for place in found if place.movies]
    judged.sort(key=lambda p: (-np.nan_to_num(p.medians["fit_A"], nan=1e9), p.particles))
    return judged[:count]


_STRIPS = (
    ("fit_A", "fit (Å)", BLUE),
    ("total_A", "motion (Å)", ORANGE),
    ("particles", "particles", GREEN),
)


def strips(rows: Rows, found: Sequence[Place], what: str) -> bytes | None:
    """Return every micrograph by place, one row for each place, with its median.

    Parameters
    ----------
    rows
        The numbers of the session.
    found
        The places, from top to bottom.
    what
        What they are, for the axis: "grid square", "optics group".
    """
    shown = list(found)[-SQUARES_DRAWN:]
    if not shown or not rows.has("fit_A"):
        return None

    def paint(figure: Figure) -> None:
        panels = list(np.ravel(figure.subplots(1, len(_STRIPS), sharey=True)))
        for axes, (column, label, colour) in zip(panels, _STRIPS, strict=True):
            _strip(axes, rows[column], shown, colour)
            axes.set_xlabel(label)
        panels[0].set_yticks(range(len(shown)), [place.name[-14:] for place in shown])
        panels[0].set_ylim(len(shown) - 0.4, -0.6)
        panels[0].set_ylabel(what)

    return draw(paint, height_in=0.8 + 0.26 * max(len(shown), 3))


def _strip(axes: Axes, values: np.ndarray, shown: Sequence[Place], colour: str) -> None:
    top = reach(values)
    for row, place in enumerate(shown):
        own = values[place.members]
        own = own[np.isfinite(own)]
        if not len(own):
            continue
        # A fixed pattern of heights keeps equal values apart, and the picture the same each time.
        heights = row + 0.22 * np.sin(2.4 * np.arange(len(own)))
        axes.plot(
            np.minimum(own, top), heights, ".", color=colour, markersize=3.5, alpha=0.65, mew=0
        )
        median = min(float(np.median(own)), top)
        axes.plot([median] * 2, [row - 0.36, row + 0.36], "-", color=INK, linewidth=2.0)
    axes.set_xlim(0, top)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(visible=False, axis="y")


def stage_map(rows: Rows) -> bytes | None:
    """Return where on the grid the micrographs were taken, coloured by fit and by particles."""
    stage = [body.stage_um if (body := described(story)) else None for story in rows.told]
    known = np.asarray([place is not None for place in stage], dtype=bool)
    if known.sum() < 4 or not rows.has("fit_A"):
        return None
    at = np.asarray([place[:2] for place in stage if place is not None])
    if np.ptp(at, axis=0).max() < 1e-3:
        return None
    # Micrographs of one stage position (beam shift) lie on each other: drawn side by side.
    at = at + _aside(at)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, (column, label, colours) in zip(
            panels,
            (("fit_A", "CTF fit (Å)", "cividis_r"), ("particles", "particles", "cividis")),
            strict=True,
        ):
            values = rows[column][known]
            has = np.isfinite(values)
            size = max(3.0, min(22.0, 4000 / len(at)))
            axes.plot(*at[~has].T, "x", color=VERMILION, markersize=size**0.5, mew=0.6, zorder=1)
            low, high = np.percentile(values[has], (2, 98)) if has.any() else (0.0, 1.0)
            drawn = axes.scatter(
                *at[has].T,
                c=values[has],
                s=size,
                cmap=colours,
                vmin=low,
                vmax=max(high, low + 1e-6),
                linewidths=0,
            )
            figure.colorbar(drawn, ax=axes, label=label, location="top", aspect=30, shrink=0.9)
            axes.set_aspect("equal")
            axes.set(xlim=_range(at[:, 0], at), ylim=_range(at[:, 1], at), xlabel="stage x (µm)")
            axes.locator_params(nbins=4)
            axes.tick_params(colors=QUIET)
        panels[0].set_ylabel("stage y (µm)")

    return draw(paint, height_in=3.0)


def _range(values: np.ndarray, at: np.ndarray) -> tuple[float, float]:
    """Return limits of an axis that keep a row of squares from becoming a line."""
    longer = float(np.ptp(at, axis=0).max())
    middle, half = (values.max() + values.min()) / 2, max(0.55 * np.ptp(values), 0.25 * longer)
    return float(middle - half), float(middle + half)


def _aside(at: np.ndarray) -> np.ndarray:
    """Return small offsets [n, 2] that put micrographs of one position around it."""
    step = 0.006 * float(np.ptp(at, axis=0).max())
    seen: dict[tuple[float, ...], int] = {}
    found = np.zeros_like(at)
    for index, place in enumerate(np.round(at, 3).tolist()):
        turn = seen.setdefault(tuple(place), 0)
        seen[tuple(place)] += 1
        # The sunflower's spiral: even, round, and it never meets itself.
        radius, angle = step * np.sqrt(turn), 2.39996 * turn
        found[index] = radius * np.cos(angle), radius * np.sin(angle)
    return found
