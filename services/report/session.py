"""The facts of a project's session, from its journals, and its report."""

from pathlib import Path

from algorithms.formats import star
from services.kit import session as sessions
from services.kit.ledger import Ledger
from services.kit.paths import Layout
from services.report.facts import ReportFacts

LABEL = "rlnCtfMaxResolution"


def facts_of(layout: Layout, *, simulated: bool = False) -> tuple[ReportFacts, Ledger]:
    """Return what is known of a project's session, and the ledger it was read from.

    The journals are enough: a session that has ended, or lies on another computer, is read as one
    that runs. The caller closes the ledger.

    Raises
    ------
    Misuse
        The project has no session.
    """
    ledger = Ledger(layout, keep_events=True)
    ledger.update()
    diameter_A = None
    if layout.session_file.exists() or ledger.session is None:
        session = sessions.load(layout)  # says what to do when there is no session
        name, diameter_A = session.name, session.particle_diameter_A
    else:
        name = ledger.session.name
    facts = ReportFacts(
        session=name,
        events=ledger.events or [],
        simulated=simulated,
        particle_diameter_A=diameter_A,
        fit_limit_A=_limit(layout.project),
        project_name=str(layout.project),
    )
    return facts, ledger


def _limit(project: Path) -> float | None:
    """Return the limit on the CTF's fit that the session's selection has, or None."""
    try:
        table = star.load(project / "Schemes/proc/select_mics/job.star")["joboptions_values"]
        columns = [table.columns[f"rlnJobOption{name}"] for name in ("Variable", "Value")]
        options = dict(zip(*columns, strict=True))
        return float(options["select_maxval"]) if options["select_label"] == LABEL else None
    except (OSError, ValueError, KeyError):
        return None


def make_report(
    layout: Layout,
    out: Path | None = None,
    *,
    simulated: bool = False,
    patience_s: float | None = None,
) -> Path:
    """Write the report of a project and return its path.

    Parameters
    ----------
    layout
        The project's folders.
    out
        HTML file or folder; None: `report.html` in the project.
    simulated
        The data were made by a simulator.
    patience_s
        How long new thumbnails may take; None: as long as they need.

    Raises
    ------
    Misuse
        The project has no session, or `out` cannot be written.
    """
    from services.report.html import write_report

    facts, ledger = facts_of(layout, simulated=simulated)
    ledger.close()
    return write_report(layout.project, out or layout.project / "report.html", facts, patience_s)
