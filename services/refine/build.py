"""Puts refine together: Scheme, project, and who selects the particles."""

from schemer import templates
from schemer.errors import SchemeError
from services.kit.errors import Misuse
from services.kit.host import Source
from services.kit.jobprocess import JobProcess
from services.kit.paths import Layout
from services.kit.session import Session, scheme_settings
from services.refine.lane import NICE, RefineLane
from services.refine.service import Refine
from services.refine.shell import RefineShell, selects_particles


def build(layout: Layout, session: Session) -> tuple[Refine, Source | None]:
    """Return the refine service of a project.

    A project that was made before there was a Scheme refine gets it.

    Raises
    ------
    Misuse
        A Scheme of the project cannot be used.
    """
    try:
        return _built(layout, session)
    except SchemeError as error:
        raise Misuse(str(error)) from error


def _built(layout: Layout, session: Session) -> tuple[Refine, Source | None]:
    if not (layout.project / "Schemes" / "refine" / "scheme.star").exists():
        templates.install(layout.project, "refine", scheme_settings(session))
    shell, active = RefineShell(layout.project), session.classify and session.refine
    service = Refine(shell, selects=selects_particles(layout.project), active=active)
    # Where it is switched off, a job that was begun stays as it is.
    return service, RefineLane(shell, JobProcess(layout.project, NICE)) if active else None
