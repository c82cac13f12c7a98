"""What the report's figures, tables and sentences make of numbers; marks are looked for in PNGs."""

import io
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from services.kit.events import (
    MicrographCorrected,
    MicrographCtf,
    MicrographRefused,
    PickingDrifted,
    WaitStarted,
)
from services.report import figures, places, plots, summary, timelines
from services.report.facts import ReportFacts, stories
from services.report.plots import Clock
from services.report.timelines import Alarm
from services.report.values import Rows, rows_of
from tests.report_session import START, Journal, movie_name, tell_session
from tests.webpages import open_fonts

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


@pytest.fixture(scope="module", autouse=True)
def fonts() -> None:
    open_fonts()


def pixels(image: bytes | None, colour: tuple[int, int, int]) -> np.ndarray:
    """Return where a picture has a colour `[n, 2]` (down, across)."""
    assert image is not None
    seen = np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)
    return np.argwhere(np.abs(seen - np.asarray(colour)).max(axis=2) < 25)


def flat_rows(count: int, refused: int | None = None, **changes: np.ndarray) -> Rows:
    """Return a session of equal micrographs, one every minute, one of them refused."""
    rows = rows_of(stories(tell_session(18).events))
    told = [rows.told[0]] * count
    columns = {name: np.full(count, np.nan) for name in rows.columns}
    columns |= {"fit_A": np.full(count, 4.0), "merit": np.full(count, 0.1), **changes}
    is_refused = np.arange(count) == refused
    acquired = START + 60.0 * np.arange(count)
    return Rows(told=told, acquired=acquired, columns=columns, is_refused=is_refused)


def test_a_refused_micrograph_is_a_cross_at_its_time() -> None:
    rows = flat_rows(11, refused=7)
    rows.columns["merit"][:] = np.nan  # only the upper panel
    rows.columns["merit"][[0, 10]] = 0.1
    image = timelines.fits(rows, Clock(at=rows.acquired), None)
    blue, cross = pixels(image, BLUE), pixels(image, VERMILION)
    height = blue[:, 0].max()
    legend = 0.15 * height  # the key above the panels has both marks too
    blue, cross = (found[found[:, 0] > legend] for found in (blue, cross))
    left, right = blue[:, 1].min(), blue[:, 1].max()
    assert (cross[:, 1].mean() - left) / (right - left) == pytest.approx(0.7, abs=0.02)


def test_the_limit_is_drawn_at_its_height() -> None:
    values = np.asarray([2.0, 6.0, 2.0, 6.0, 2.0, 6.0])
    rows = flat_rows(6, fit_A=values, merit=np.full(6, np.nan))
    rows.columns["merit"][0] = 1.0
    clock = Clock(at=rows.acquired)
    line = pixels(timelines.fits(rows, clock, 4.0), VERMILION)
    down = np.bincount(line[:, 0])
    dots = pixels(timelines.fits(rows, clock, 4.0), BLUE)
    upper = dots[(dots[:, 0] > 60) & (dots[:, 0] < 330)]
    # Half way between the dots at 2 and at 6.
    middle = (upper[:, 0].min() + upper[:, 0].max()) / 2
    assert int(down.argmax()) == pytest.approx(middle, abs=3)
    assert not len(pixels(timelines.fits(rows, clock, None), VERMILION))


def test_an_alarm_is_shaded_over_its_time() -> None:
    picks = np.full(60, 40.0)
    rows = flat_rows(60, picks=picks)
    clock = Clock(at=rows.acquired)
    alarm = Alarm(since=float(rows.acquired[45]), until=None, measure="particles")
    without = np.asarray(Image.open(io.BytesIO(timelines.picks(rows, clock, []) or b"")))
    shaded = np.asarray(Image.open(io.BytesIO(timelines.picks(rows, clock, [alarm]) or b"")))
    assert without.shape == shaded.shape
    changed = np.argwhere((without != shaded).any(axis=2))
    inside = changed[changed[:, 0] > 0.3 * shaded.shape[0]]
    green = pixels(timelines.picks(rows, clock, []), (0, 158, 115))
    green = green[green[:, 0] > 0.2 * shaded.shape[0]]
    left, right = green[:, 1].min(), green[:, 1].max()
    assert (inside[:, 1].min() - left) / (right - left) == pytest.approx(45 / 59, abs=0.03)


def test_alarms_are_paired_on_the_time_of_acquisition() -> None:
    journal = tell_session(10)
    for index, active in ((3, True), (6, False), (8, True)):
        drifted = PickingDrifted(
            movie=movie_name(index),
            measure="particles",
            active=active,
            value=20.0,
            low=30.0,
            expected=40.0,
            high=50.0,
        )
        journal.add(900.0 + index, "proc", drifted)
    rows = rows_of(stories(journal.events))
    at = {story.movie: when for story, when in zip(rows.told, rows.acquired, strict=True)}
    found = figures.alarms_of(journal.events, rows)
    assert [(alarm.since, alarm.until) for alarm in found] == [
        (at[movie_name(3)], at[movie_name(6)]),
        (at[movie_name(8)], None),
    ]
    said = list(summary.notices(ReportFacts(session="s", events=()), [], rows, found))
    assert said == ["The number of picks has left its usual range, since movie 8."]


def test_rows_are_in_the_order_of_acquisition_with_their_units() -> None:
    journal = tell_session(8)
    body = next(e.body for e in journal.events if isinstance(e.body, MicrographCtf))
    rows = rows_of(list(reversed(stories(journal.events))))
    assert (np.diff(rows.acquired) > 0).all()
    first = rows.told.index(next(s for s in rows.told if s.movie == body.movie))
    assert rows["defocus_u_um"][first] == pytest.approx(body.defocus_u_A / 1e4)
    assert rows["astigmatism_A"][first] == pytest.approx(180.0)
    assert rows["ice_peak"][first] == body.ice_peak_sigma
    moved = next(e.body for e in journal.events if isinstance(e.body, MicrographCorrected))
    assert rows["late_A"][0] == pytest.approx(0.7 * moved.motion_total_px * 1.5)
    assert np.isnan(rows["thickness_A"]).all() and not rows.has("thickness_A")


def test_one_wild_value_does_not_stretch_an_axis() -> None:
    values = np.append(np.linspace(9.0, 11.0, 200), 900.0)
    assert 11.0 < plots.reach(values) < 20.0
    assert plots.reach(np.asarray([3.0, 5.0])) > 5.0
    assert plots.reach(np.asarray([np.nan])) > 0


def test_numbers_on_the_axis_keep_apart() -> None:
    # 1,000 movies at once, a pause of ten times as long, and 1,000 more.
    at = np.concatenate([np.linspace(0, 1, 1000), np.linspace(11, 12, 1000)])
    shown = plots._spaced(at, (0.0, 12.0))
    assert shown[0] == 0 and 2 <= len(shown) <= 8
    assert (np.diff(at[shown]) > 0.08 * 12).all()
    assert all((index + 1) % 500 == 0 for index in shown[1:])


def test_places_have_their_own_medians_and_the_worst_come_first() -> None:
    journal = tell_session(60)
    rows = rows_of(stories(journal.events))
    squares = places.places(rows, places.square_of)
    assert [square.name for square in squares] == ["7912000", "7912001", "7912002"]
    assert sum(square.movies for square in squares) == len(rows)
    assert sum(square.particles for square in squares) == np.nansum(rows["particles"])
    for square in squares:
        own = rows["fit_A"][square.members]
        assert square.medians["fit_A"] == pytest.approx(np.nanmedian(own))
        assert square.refused == rows.is_refused[square.members].sum() > 0
    holes = places.places(rows, places.hole_of)
    assert len(holes) == 15
    worst = places.worst(holes, 3)
    limit = sorted(hole.medians["fit_A"] for hole in holes)[-3]
    assert all(hole.medians["fit_A"] >= limit for hole in worst)
    # Three squares with three medians each; letters are of other colours.
    assert len(pixels(places.strips(rows, squares, "grid square"), (35, 48, 59))) > 9 * 20
    assert places.stage_map(rows) is not None


def notices(journal: Journal, **changes: object) -> list[str]:
    facts = ReportFacts(session="s", events=journal.events, written_at=START + 60.0)
    facts = replace(facts, **changes)  # type: ignore[arg-type]
    told = stories(facts.events)
    rows = rows_of(told)
    return summary.notices(facts, told, rows, figures.alarms_of(facts.events, rows))


def changed(journal: Journal, kind: type, last: int, **values: object) -> Journal:
    """Return a session in which the results of the last movies have other values."""
    found = [n for n, event in enumerate(journal.events) if type(event.body) is kind][-last:]
    for number in found:
        event = journal.events[number]
        body = msgspec.structs.replace(event.body, **values)
        journal.events[number] = msgspec.structs.replace(event, body=body)
    return journal


def test_an_even_session_needs_no_look() -> None:
    assert notices(tell_session(120)) == []


def test_what_gets_worse_is_said() -> None:
    (said,) = notices(changed(tell_session(120), MicrographCtf, 30, max_resolution_A=8.0))
    assert said.startswith("CTF fits got worse: 8.0 Å over the last 20, ")
    (said,) = notices(changed(tell_session(120), MicrographCorrected, 30, motion_total_px=40.0))
    assert said.startswith("Motion got worse: 60.0 Å over the last 20, ")


def test_refusals_silence_and_waits_are_said() -> None:
    journal = tell_session(100)
    for index in range(75, 99):
        refused = MicrographRefused(
            movie=movie_name(index), stage="select_mics", code="CTF_RESOLUTION", detail="bad"
        )
        journal.add(2000.0 + index, "proc", refused)
    (said,) = notices(journal)
    assert "of the last 50 micrographs were refused" in said
    (said,) = notices(tell_session(100), written_at=START + 100 * 15 + 2 * 3600)
    assert said == "No new movie for 2.0 h; one came every 15 s before."
    wait = WaitStarted(subject="session", code="NO_ROOT", detail="the raw folder is not there")
    journal = tell_session(20)
    journal.add(500.0, "mdcatch", wait)
    assert notices(journal) == ["Waiting: the raw folder is not there (NO_ROOT)."]


def test_figures_of_nothing_are_none() -> None:
    rows = rows_of([])
    for section in figures.sections(Path("/nowhere"), [], rows, [], 6.0):
        assert all(figure.image is None for figure in section.figures)


def test_a_phase_plate_has_its_figure() -> None:
    journal = changed(tell_session(20), MicrographCtf, 10, phase_shift_deg=60.0)
    rows = rows_of(stories(journal.events))
    clock = Clock(at=rows.acquired)
    assert len(pixels(timelines.phase(rows, clock), (204, 121, 167))) > 50
    assert timelines.phase(rows_of(stories(tell_session(5).events)), clock) is None
