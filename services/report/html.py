"""One self-contained HTML file about a session: no network, no scripts, fit to print."""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from services.report import figures, flow, gallery, places, refinement, summary
from services.report.facts import ReportFacts, Story, ledger, set_aside, stories
from services.report.files import ReportFiles, write
from services.report.thumbnails import uri
from services.report.values import UNITS, Rows, rows_of

ROWS_SHOWN, PLACES_SHOWN = 200, 60
ROOM_MEANS = {
    "mdcatch": "movies complete, paired with their metadata",
    "prep": "movies aligned, CTF fitted",
    "proc": "micrographs picked, particles extracted",
}
FORMS = {"fit_A": ".1f", "defocus_um": ".2f", "total_A": ".1f", "astigmatism_A": ".0f"}


def write_report(
    project: Path, out: Path, facts: ReportFacts, patience_s: float | None = None
) -> Path:
    """Write the report of a session, with its figures as PNG beside it; return its path.

    Parameters
    ----------
    project
        RELION project folder; what is missing in it is left out or replaced by a placeholder.
    out
        HTML file to write, or an existing folder, which gets `report.html`.
    facts
        Events of the session; none at all gives a page that says so.
    patience_s
        How long new thumbnails may take; None: as long as they need.

    Raises
    ------
    Misuse
        `out` cannot be written.
    """
    target = out / "report.html" if out.is_dir() else out
    made = ReportFiles(target.with_suffix(""), patience_s)
    told = stories(facts.events)
    rows, aside, lines = rows_of(told), set_aside(told), ledger(told)
    alarms, (latest, spread) = figures.alarms_of(facts.events, rows), gallery.choose(rows)
    sections = figures.sections(project, told, rows, alarms, facts.fit_limit_A)
    sections += filter(None, [refinement.section(project, facts.events)])
    _write_figures(made, [figure for section in sections for figure in section.figures])
    page = render(
        "report.html",
        session=facts.session,
        simulated=facts.is_simulated,
        written=summary.utc(facts.written_at),
        notices=summary.notices(facts, told, rows, alarms),
        conditions=summary.conditions(facts, told),
        tiles=summary.tiles(told, rows, lines),
        ledger=lines,
        room_means=ROOM_MEANS,
        aside=aside[:ROWS_SHOWN],
        aside_counts=summary.reasons(aside),
        aside_left_out=max(0, len(aside) - ROWS_SHOWN),
        sections=sections,
        latencies=flow.latency_table(told),
        tables=_tables(rows),
        units=UNITS,
        columns=places.MEDIANS,
        forms=FORMS,
        galleries=[
            (title, gallery.cards(project, chosen, made, facts.particle_diameter_A))
            for title, chosen in (("The latest", latest), ("Over the session", spread))
        ],
        particles=gallery.particle_sheet(project, told),
        **gallery.class_sheets(project, facts.events),
    )
    _reserve(made, [*latest, *spread], target, facts)
    write(target, page)
    return target


def _write_figures(made: ReportFiles, drawn: Sequence[figures.Figure]) -> None:
    for figure in drawn:
        if figure.image is not None:
            write(made.figure(figure.name), figure.image)
        else:
            made.figure(figure.name).unlink(missing_ok=True)  # of another session, or of before


def _tables(rows: Rows) -> list[tuple[str, str, list[places.Place], int]]:
    """Return title, note, rows and how many were left out, of each table of places."""
    squares = places.places(rows, places.square_of)
    holes = places.places(rows, places.hole_of)
    groups = places.places(rows, places.group_of)
    worst = "The holes whose CTF fits reach least far."
    parts = (
        ("By grid square", "In the order of acquisition.", squares[-PLACES_SHOWN:], len(squares)),
        ("Holes to look at", worst, places.worst(holes), len(holes)),
        ("By optics group", "", groups[-PLACES_SHOWN:], len(groups)),
    )
    return [
        (title, note, shown, count - len(shown)) for title, note, shown, count in parts if shown
    ]


def _reserve(made: ReportFiles, shown: Sequence[Story], target: Path, facts: ReportFacts) -> None:
    """Put a page where the gallery's links lead, that says how to make the one that is missing."""
    for story in shown:
        made.reserve(story.movie, placeholder(story.movie, facts.project_name, target.name))


def placeholder(movie: str, project: str, report: str) -> str:
    """Return the page of a micrograph that nobody has asked for yet."""
    name = movie.rsplit("/", 1)[-1]
    return render("placeholder.html", name=name, movie=movie, project=project, report=report)


def render(template: str, **values: Any) -> str:
    """Return a page from its template."""
    # Movie names come from a microscope's disk: autoescape keeps a hostile one from being markup.
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda asked: files("services.report").joinpath(asked).read_text()),
    )
    environment.filters["breakable"] = breakable
    environment.filters["uri"] = uri
    return environment.get_template(template).render(**values)


def breakable(name: str) -> Markup:
    """Return a file name, escaped, that a browser may break after its separators."""
    return Markup(re.sub(r"([/_])", r"\1<wbr>", str(escape(name))))  # noqa: S704 - escaped here
