"""Which figures a report has, in which order, and what each of them tells."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.kit.events import Event, MicrographCorrected, PickingDrifted, ResultsOutdated
from services.report import ctfplots, flow, places, readings, timelines, tracks
from services.report.facts import Story
from services.report.plots import Clock
from services.report.timelines import Alarm
from services.report.values import Rows, fit_of, movie_pixel_A

TRACKS_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of the page.

    Parameters
    ----------
    name
        Of its file, without `.png`.
    title, note
        What it is, and what it tells.
    image
        PNG; None while there is nothing to show.
    """

    name: str
    title: str
    note: str
    image: bytes | None


@dataclass(frozen=True, kw_only=True)
class Section:
    """Figures that belong together."""

    name: str
    title: str
    figures: tuple[Figure, ...]


def sections(
    project: Path,
    told: Sequence[Story],
    rows: Rows,
    alarms: Sequence[Alarm],
    limit_A: float | None,
) -> list[Section]:
    """Return the sections of the page with their figures drawn."""
    clock = Clock(at=rows.acquired)
    parts = (
        ("flow", "Throughput", _flow(told, rows, clock)),
        ("motion", "Motion", _motion(project, rows, clock)),
        ("ctf", "CTF", _ctf(project, rows, clock, limit_A)),
        ("picks", "Picks", _picks(rows, clock, alarms)),
        ("places", "Squares and holes", _places(rows)),
    )
    return [Section(name=n, title=t, figures=tuple(figures)) for n, t, figures in parts]


def _flow(told: Sequence[Story], rows: Rows, clock: Clock) -> Iterator[Figure]:
    yield Figure(
        name="progress",
        title="Progress",
        note="Movies written by the camera, and movies that have left each stage. Lines that move "
        "apart: a stage is too slow.",
        image=flow.progress(told),
    )
    yield Figure(
        name="rate",
        title="Movies per hour",
        note="Above as acquired, below as processed; dashed the average.",
        image=flow.rate(rows, told),
    )
    yield Figure(
        name="latency",
        title="From the last byte to the result",
        note="How long each movie took to its CTF and to its particles. It should stay level.",
        image=flow.waiting(rows, clock),
    )
    yield Figure(
        name="time_per_stage",
        title="Time per stage",
        note="Computing time of each step, and the whole way from the last byte of a movie.",
        image=flow.time_per_stage(told),
    )
    yield Figure(
        name="refused",
        title="Refused, when and why",
        note="A stroke is a movie. A block of them is one cause: the table above says which.",
        image=flow.refusals(told),
    )


def _motion(project: Path, rows: Rows, clock: Clock) -> Iterator[Figure]:
    yield Figure(
        name="motion",
        title="Motion of every movie",
        note="Length of the path. The early part decides how much high resolution is left. "
        "Arrows: beyond the axis.",
        image=timelines.motion(rows, clock),
    )
    yield Figure(
        name="tracks",
        title="Drift tracks",
        note="Six movies from the least to the most motion, on one scale; the dot is the first "
        "frame.",
        image=tracks.side_by_side(_tracks(project, rows)),
    )
    yield Figure(
        name="motion_histograms",
        title="How much motion",
        note="All movies; dashed the median.",
        image=timelines.motion_histograms(rows),
    )


def _ctf(project: Path, rows: Rows, clock: Clock, limit_A: float | None) -> Iterator[Figure]:
    yield Figure(
        name="defocus",
        title="Defocus and astigmatism",
        note="Both axes of the fit, joined by a bar. Astigmatism that grows wants the stigmator.",
        image=timelines.defocus(rows, clock),
    )
    yield Figure(
        name="fit",
        title="CTF fit",
        note="How far the rings follow the model, lower is better, and how well.",
        image=timelines.fits(rows, clock, limit_A),
    )
    yield Figure(
        name="ctf_histograms",
        title="CTF values",
        note="All micrographs; dashed the median.",
        image=timelines.ctf_histograms(rows),
    )
    example, image = _profile(project, rows)
    note = f"Example: {example}." if example else "Equiphase average against the model."
    yield Figure(name="ctf_curve", title="CTF curve of a typical fit", note=note, image=image)
    yield Figure(
        name="ice",
        title="Ice",
        note="Strength of the ring of crystalline ice near 3.7 Å; iciness above 1.5 is bad. Thick "
        "ice lowers the mean intensity.",
        image=timelines.ice(rows, clock),
    )
    if (shifts := timelines.phase(rows, clock)) is not None:
        note = "Of the phase plate: it rises as the plate charges, and falls at a new place."
        yield Figure(name="phase", title="Phase shift", note=note, image=shifts)


def _picks(rows: Rows, clock: Clock, alarms: Sequence[Alarm]) -> Iterator[Figure]:
    yield Figure(
        name="picks",
        title="Picks and their distances",
        note="The average is watched: outside the band, which the first 40 micrographs set, there "
        "is an alarm (hatched).",
        image=timelines.picks(rows, clock, alarms),
    )
    yield Figure(
        name="pick_histograms",
        title="How many, how close",
        note="All micrographs; dashed the median.",
        image=timelines.pick_histograms(rows),
    )


def _places(rows: Rows) -> Iterator[Figure]:
    squares = places.places(rows, places.square_of)
    yield Figure(
        name="squares",
        title="Grid squares",
        note="Each dot is a micrograph, the bar the median of its square; the latest squares.",
        image=places.strips(rows, squares, "grid square"),
    )
    if (drawn := places.stage_map(rows)) is not None:
        note = "Micrographs of one stage position are drawn around it; crosses have no value."
        yield Figure(name="stage", title="On the grid", note=note, image=drawn)
    groups = places.places(rows, places.group_of)
    if len(groups) > 1:
        yield Figure(
            name="optics_groups",
            title="Optics groups",
            note="Groups that differ in fit or astigmatism point at beam shift or coma.",
            image=places.strips(rows, groups, "optics group"),
        )


def alarms_of(events: Sequence[Event], rows: Rows) -> list[Alarm]:
    """Return the alarms of the control charts, on the time line of acquisition."""
    at = {story.movie: when for story, when in zip(rows.told, rows.acquired, strict=True)}
    found: list[Alarm] = []
    open_since: dict[str, float] = {}
    for event in events:
        body = event.body
        if isinstance(body, ResultsOutdated) and body.stage == "autopick":
            open_since.clear()  # picked by other rules: the charts begin anew
        if not isinstance(body, PickingDrifted) or body.movie not in at:
            continue
        when = float(at[body.movie])
        if body.active:
            open_since.setdefault(body.measure, when)
        elif body.measure in open_since:
            since = open_since.pop(body.measure)
            found.append(Alarm(since=since, until=when, measure=body.measure))
    still = [Alarm(since=at, until=None, measure=name) for name, at in open_since.items()]
    return found + still


def _tracks(project: Path, rows: Rows) -> list[tuple[str, readings.Track]]:
    """Return six tracks from the least to the most motion; unreadable ones are left out."""
    total = rows["total_A"]
    ordered = [int(index) for index in np.argsort(total) if np.isfinite(total[index])]
    wanted = np.unique(np.linspace(0, len(ordered) - 1, min(TRACKS_SHOWN, len(ordered))))
    found = []
    for index in (ordered[place] for place in wanted.astype(int)):
        body = rows.told[index].get(MicrographCorrected)
        if body is None:
            continue
        track = readings.read_track(project / body.metadata_star, movie_pixel_A(rows.told[index]))
        if track is not None:
            found.append((f"{total[index]:.1f} Å", track))
    return found


def _profile(project: Path, rows: Rows) -> tuple[str, bytes | None]:
    """Return name and figure of the readable profile that is nearest to the median fit."""
    fits = [(body, story) for story in rows.told if (body := fit_of(story))]
    if not fits:
        return "", None
    median = float(np.median([body.max_resolution_A for body, _ in fits]))
    fits.sort(key=lambda item: abs(item[0].max_resolution_A - median))
    for body, story in fits[:10]:
        profile = readings.read_profile(project / readings.without_suffix(body.ctf_image))
        if profile is not None:
            return story.name, ctfplots.curve(profile, body.max_resolution_A)
    return "", None
