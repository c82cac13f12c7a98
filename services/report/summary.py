"""What a report says in words and numbers: headline figures, conditions, what needs a look."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from services.kit.events import (
    MicrographCtf,
    OpticsGrouped,
    ParticlesExtracted,
    SessionClosed,
    SessionOpened,
    WaitEnded,
    WaitStarted,
)
from services.report.facts import Line, ReportFacts, SetAside, Story
from services.report.timelines import Alarm
from services.report.values import Rows, described

LAST = 50
# A session is called quiet after so many usual intervals, and not for a short breath.
QUIET_INTERVALS, QUIET_S = 3.0, 300.0
FORGOTTEN_S = 48 * 3600.0


def conditions(facts: ReportFacts, told: Sequence[Story]) -> list[tuple[str, str]]:
    """Return how the data were taken: label and value, the commonest value first."""
    found: list[tuple[str, str]] = []
    opened = [event.body for event in facts.events if isinstance(event.body, SessionOpened)]
    if opened:
        found.append(("Raw data", opened[-1].raw))
        found.append(("Software", opened[-1].software))
    if facts.events:
        times = [event.at for event in facts.events]
        found.append(("First event", utc(min(times))))
        found.append(
            ("Last event", f"{utc(max(times))}, {duration(max(times) - min(times))} later")
        )
    settled = [body for story in told if (body := described(story))]
    if settled:
        values = {
            "Voltage": (f"{body.voltage_kV:g} kV" for body in settled),
            "Cs": (f"{body.spherical_aberration_mm:g} mm" for body in settled),
            "Pixel": (f"{body.pixel_size_A:.4g} Å" for body in settled),
            "Movie": (
                f"{body.width_px} × {body.height_px} × {body.n_frames}, {body.format}"
                for body in settled
            ),
            "Dose": (
                f"{body.dose_e_A2:.3g} e/Å², {body.dose_per_frame_e_A2:.3g} per frame"
                for body in settled
            ),
        }
        found += [(label, _commonest(texts)) for label, texts in values.items()]
        detectors = [body.detector for body in settled if body.detector]
        if detectors:
            found.append(("Detector", _commonest(iter(detectors))))
    groups = {e.body.optics_group for e in facts.events if isinstance(e.body, OpticsGrouped)}
    if groups:
        found.append(("Optics groups", str(len(groups))))
    return found


def _commonest(values: Any) -> str:
    """Return the commonest value, and how many others there are."""
    counts = Counter(values)
    value, count = counts.most_common(1)[0]
    others = counts.total() - count
    return f"{value} ({count} of {counts.total()})" if others else str(value)


def tiles(told: Sequence[Story], rows: Rows, lines: Sequence[Line]) -> list[tuple[str, str, str]]:
    """Return the headline figures: label, value, and what it counts."""
    fitted = int(np.isfinite(rows["fit_A"]).sum())
    extracted = int(np.isfinite(rows["particles"]).sum())
    return [
        ("movies", f"{lines[0].seen:,}", f"{lines[0].done:,} complete"),
        ("micrographs", f"{fitted:,}", f"of {lines[1].seen:,} movies"),
        ("particles", f"{int(np.nansum(rows['particles'])):,}", f"from {extracted:,} micrographs"),
        ("drift", _median(rows["total_A"], ".1f"), "Å, median"),
        ("defocus", _median(rows["defocus_um"], ".2f"), "µm, median"),
        ("CTF fit", _median(rows["fit_A"], ".1f"), "Å, median"),
        ("throughput", *_rate(told)),
    ]


def _median(values: np.ndarray, form: str) -> str:
    finite = values[np.isfinite(values)]
    return format(float(np.median(finite)), form) if len(finite) else "–"


def _rate(told: Sequence[Story]) -> tuple[str, str]:
    """Return micrographs per hour between the first and the last fit, and how it was counted."""
    at = [moment for story in told if (moment := story.at(MicrographCtf)) is not None]
    span_s = max(at, default=0.0) - min(at, default=0.0)
    if len(at) < 2 or span_s <= 0:
        return "–", "movies/h"
    per_hour = (len(at) - 1) / span_s * 3600
    return f"{per_hour:,.0f}", f"movies/h over {duration(span_s)}"


def notices(
    facts: ReportFacts, told: Sequence[Story], rows: Rows, alarms: Sequence[Alarm]
) -> list[str]:
    """Return what an operator should look at now, one sentence each; none is good."""
    return [
        *_waits(facts),
        *_quiet(facts, rows),
        *_drifted(rows, alarms),
        *_many_refused(rows),
        *_worse(rows),
        *_late(told),
    ]


def _waits(facts: ReportFacts) -> Iterator[str]:
    movies, waiting = set(), {}
    for event in facts.events:
        if isinstance(event.body, WaitStarted):
            waiting[event.body.subject] = event.body
        elif isinstance(event.body, WaitEnded):
            waiting.pop(event.body.subject, None)
        elif (movie := getattr(event.body, "movie", None)) is not None:
            movies.add(movie)
    for subject, body in waiting.items():
        if subject not in movies:
            yield f"Waiting: {body.detail} ({body.code})."


def _quiet(facts: ReportFacts, rows: Rows) -> Iterator[str]:
    written = [body.mtime_ns / 1e9 for story in rows.told if (body := described(story))]
    last = [event.body for event in facts.events if event.producer == "mdcatch"][-1:]
    if len(written) < 10 or (last and isinstance(last[0], SessionClosed)):
        return
    usual_s = float(np.median(np.diff(np.sort(written))[-LAST:]))
    silent_s = facts.written_at - max(written)
    if max(QUIET_S, QUIET_INTERVALS * usual_s) < silent_s < FORGOTTEN_S:
        yield f"No new movie for {duration(silent_s)}; one came every {duration(usual_s)} before."


def _drifted(rows: Rows, alarms: Sequence[Alarm]) -> Iterator[str]:
    names = {"particles": "The number of picks", "nearest_neighbour_A": "The distance of picks"}
    for alarm in alarms:
        if alarm.until is None:
            number = int(np.searchsorted(rows.acquired, alarm.since)) + 1
            what = names.get(alarm.measure, alarm.measure)
            yield f"{what} has left its usual range, since movie {number:,}."


def _many_refused(rows: Rows) -> Iterator[str]:
    judged = rows.is_refused[np.isfinite(rows["fit_A"]) | rows.is_refused]
    last = judged[-LAST:]
    if len(last) >= 20 and last.mean() > max(0.2, 1.5 * judged.mean()):
        yield f"{int(last.sum())} of the last {len(last)} micrographs were refused."


def _worse(rows: Rows) -> Iterator[str]:
    for name, what, unit in (("fit_A", "CTF fits", "Å"), ("total_A", "Motion", "Å")):
        values = rows[name][np.isfinite(rows[name])]
        if len(values) < 60:
            continue
        before, now = values[:-20], float(np.median(values[-20:]))
        usual = float(np.median(before))
        # 1.25 / sqrt(20): standard error of a median of 20; 1.4826: of a MAD, that of a normal.
        error = 1.4826 * float(np.median(np.abs(before - usual))) * 1.25 / np.sqrt(20)
        if now > max(usual + 5 * error, 1.1 * usual):
            yield f"{what} got worse: {now:.1f} {unit} over the last 20, {usual:.1f} before."


def _late(told: Sequence[Story]) -> Iterator[str]:
    found = []
    for story in told:
        at, available = story.at(ParticlesExtracted), story.available_at()
        if at is not None and available is not None:
            found.append((at, at - available))
    seconds = np.asarray([wait for _, wait in sorted(found)])
    if len(seconds) < 60:
        return
    now, usual = float(np.median(seconds[-20:])), float(np.median(seconds[:-20]))
    if now > max(3 * usual, 60.0):
        yield f"Particles come {duration(now)} after their movie; before it was {duration(usual)}."


def reasons(aside: Sequence[SetAside]) -> list[tuple[str, str, int]]:
    """Return state, code and count, the commonest first."""
    counts = Counter((item.state, item.code) for item in aside)
    ordered = sorted(counts.items(), key=lambda item: (item[0][0] != "refused", -item[1]))
    return [(state, code, count) for (state, code), count in ordered]


def utc(at: float) -> str:
    """Return a moment as text."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration(seconds: float) -> str:
    """Return a duration in its handiest unit."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
