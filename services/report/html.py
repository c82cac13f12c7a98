"""One self-contained HTML file about a session: no network, no scripts, fit to print."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from algorithms.formats.atomic import atomic_write
from services.kit.events import (
    MicrographCorrected,
    MicrographCtf,
    MovieSettled,
    OpticsGrouped,
    ParticlesExtracted,
    SessionOpened,
)
from services.report import figures, gallery
from services.report.facts import Line, ReportFacts, SetAside, Story, ledger, set_aside, stories

ROWS_SHOWN = 200
ROOM_MEANS = {
    "mdcatch": "movies complete, paired with their metadata",
    "prep": "movies aligned, CTF fitted",
    "proc": "micrographs picked, particles extracted",
}


def write_report(project: Path, out: Path, facts: ReportFacts) -> Path:
    """Write the report of a session and return its path.

    Parameters
    ----------
    project
        RELION project folder; what is missing in it is left out or replaced by a placeholder.
    out
        HTML file to write, or an existing folder, which gets `report.html`.
    facts
        Events of the session; none at all gives a page that says so.

    Raises
    ------
    OSError
        When `out` cannot be written.
    """
    told = stories(facts.events)
    lines, aside = ledger(told), set_aside(told)
    cards = gallery.cards(project, told, facts.particle_diameter_A)
    page = _template().render(
        session=facts.session,
        simulated=facts.is_simulated,
        written=_utc(facts.written_at),
        conditions=conditions(facts, told),
        tiles=tiles(told, lines),
        ledger=lines,
        room_means=ROOM_MEANS,
        aside=aside[:ROWS_SHOWN],
        aside_counts=_reasons(aside),
        aside_left_out=max(0, len(aside) - ROWS_SHOWN),
        figures=figures.draw(project, told),
        latencies=figures.latency_table(told),
        cards=cards,
        particles=gallery.particle_sheet(project, told),
    )
    target = out / "report.html" if out.is_dir() else out
    atomic_write(target, page)
    return target


def _template() -> Any:
    # Movie names come from a microscope's disk: autoescape keeps a hostile one from being markup.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = breakable
    return environment.from_string(files("services.report").joinpath("report.html").read_text())


def breakable(name: str) -> Markup:
    """Return a file name, escaped, that a browser may break after its separators."""
    return Markup(re.sub(r"([/_])", r"\1<wbr>", str(escape(name))))  # noqa: S704 - escaped here


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def conditions(facts: ReportFacts, told: Sequence[Story]) -> list[tuple[str, str]]:
    """Return how the data were taken: label and value, the commonest value first."""
    found: list[tuple[str, str]] = []
    opened = [event.body for event in facts.events if isinstance(event.body, SessionOpened)]
    if opened:
        found.append(("Raw data", opened[-1].raw))
        found.append(("Software", opened[-1].software))
    if facts.events:
        times = [event.at for event in facts.events]
        found.append(("First event", _utc(min(times))))
        found.append(
            ("Last event", f"{_utc(max(times))}, {duration(max(times) - min(times))} later")
        )
    settled = [body for story in told if (body := story.get(MovieSettled))]
    if settled:
        found += [
            ("Voltage", _commonest(f"{body.voltage_kV:g} kV" for body in settled)),
            ("Cs", _commonest(f"{body.spherical_aberration_mm:g} mm" for body in settled)),
            ("Pixel", _commonest(f"{body.pixel_size_A:.4g} Å" for body in settled)),
            (
                "Movie",
                _commonest(
                    f"{body.width_px} × {body.height_px} × {body.n_frames}, {body.format}"
                    for body in settled
                ),
            ),
            (
                "Dose",
                _commonest(
                    f"{body.dose_e_A2:.3g} e/Å², {body.dose_per_frame_e_A2:.3g} per frame"
                    for body in settled
                ),
            ),
        ]
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


def tiles(told: Sequence[Story], lines: Sequence[Line]) -> list[tuple[str, str, str]]:
    """Return the headline figures: label, value, and what it counts."""
    ctf = [body for story in told if (body := story.get(MicrographCtf))]
    corrected = [story for story in told if story.get(MicrographCorrected)]
    extracted = [body for story in told if (body := story.get(ParticlesExtracted))]
    drift_A = [figures.motion_A(story)[0] for story in corrected]
    defocus_um = [(body.defocus_u_A + body.defocus_v_A) / 2e4 for body in ctf]
    fits_A = [body.max_resolution_A for body in ctf]
    n_particles = sum(body.n_particles for body in extracted)
    return [
        ("movies", f"{lines[0].seen:,}", f"{lines[0].done:,} complete"),
        ("micrographs", f"{len(ctf):,}", f"of {lines[1].seen:,} movies"),
        ("particles", f"{n_particles:,}", f"from {len(extracted):,} micrographs"),
        ("drift", _median(drift_A, ".1f"), "Å, median"),
        ("defocus", _median(defocus_um, ".2f"), "µm, median"),
        ("CTF fit", _median(fits_A, ".1f"), "Å, median"),
        ("throughput", *_rate(told)),
    ]


def _median(values: Sequence[float], form: str) -> str:
    finite = np.asarray(values)[np.isfinite(values)] if len(values) else np.zeros(0)
    return format(float(np.median(finite)), form) if len(finite) else "–"


def _rate(told: Sequence[Story]) -> tuple[str, str]:
    """Return micrographs per hour between the first and the last fit, and how it was counted."""
    at = [moment for story in told if (moment := story.at(MicrographCtf)) is not None]
    span_s = max(at, default=0.0) - min(at, default=0.0)
    if len(at) < 2 or span_s <= 0:
        return "–", "movies/h"
    per_hour = (len(at) - 1) / span_s * 3600
    return f"{per_hour:,.0f}", f"movies/h over {duration(span_s)}"


def duration(seconds: float) -> str:
    """Return a duration in its handiest unit."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _reasons(aside: Sequence[SetAside]) -> list[tuple[str, str, int]]:
    """Return state, code and count, the commonest first."""
    counts = Counter((item.state, item.code) for item in aside)
    ordered = sorted(counts.items(), key=lambda item: (item[0][0] != "refused", -item[1]))
    return [(state, code, count) for (state, code), count in ordered]
