"""Puts refine together: Scheme, project, and who selects the particles."""

from services.kit.host import Source
from services.kit.jobprocess import JobProcess
from services.kit.paths import Layout
from services.kit.session import Session
from services.refine.lane import NICE, RefineLane
from services.refine.service import Refine
from services.refine.shell import RefineShell, selects_particles


def build(layout: Layout, session: Session) -> tuple[Refine, Source | None]:
    """Return the refine service of a project."""
    shell, active = RefineShell(layout.project), session.classify and session.refine
    service = Refine(shell, selects=selects_particles(layout.project), active=active)
    # Where it is switched off, a job that was begun stays as it is.
    return service, RefineLane(shell, JobProcess(layout.project, NICE)) if active else None
