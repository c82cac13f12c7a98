"""Puts proc together: Scheme, project, options, particle diameter."""

from typing import Any

from services.kit.host import Source
from services.kit.paths import Layout
from services.kit.schemes import SchemeShell
from services.kit.session import Session
from services.proc import plan, ranking
from services.proc.classlane import ClassLane, Sources
from services.proc.decisions import Decisions, mailbox
from services.proc.service import Proc
from services.proc.views import Views


def build(layout: Layout, session: Session) -> tuple[Proc, Source]:
    """Return the proc service of a project."""
    # A box size given by hand is taken as it is; otherwise it follows from the diameter.
    auto_box = "proc__extract__extract_size" not in session.settings
    shell: SchemeShell

    def diameter_A(state: Any) -> float:
        if session.particle_diameter_A is not None:
            return session.particle_diameter_A
        return shell.options(state, "autopick").number("log_diam_max", 180.0, 1.0, 1e5)

    def measured(state: Any, node: str) -> dict[str, str]:
        """Show in the extract job the box that its particles have."""
        first = next(iter(state.imported.values()), None)
        if node != "extract" or first is None or not auto_box:
            return {}
        options = shell.options(state, node)
        box = plan.box_of(first.pixel_size_A, diameter_A(state), options, auto=True)
        return {
            "extract_size": str(box.box_px),
            "do_rescale": "Yes",
            "rescale": str(box.scaled_px),
        }

    shell = SchemeShell(layout.project, "proc", measured)
    service = Proc(
        shell,
        shell.digest(f"{session.particle_diameter_A}", f"{auto_box}"),
        Views(layout.project),
        diameter_A=diameter_A,
        auto_box=auto_box,
        classify=session.classify,
        rank=shell.given(ranking.NODE).get("do_class_ranker") == "Yes",
    )
    # Also where nothing is classified: a run that was switched off is shown as ended.
    return service, Sources(Decisions(mailbox(layout)), ClassLane(layout, shell))
