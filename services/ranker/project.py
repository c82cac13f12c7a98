"""The ranker's side of the RELION project: a job folder for each selection, and how it stands."""

from contextlib import suppress
from pathlib import Path

from schemer.errors import ProjectError
from schemer.jobs import find
from schemer.jobs.jobtype import Nodes
from schemer.project import Project
from services.kit.events import SelectionDue
from services.kit.faults import crash_point

SCHEME = "Schemes/proc/"


class Jobs:
    """Makes and shows the jobs of a project that select classes.

    Parameters
    ----------
    project
        Root of the RELION project.
    """

    def __init__(self, project: Path):
        self._relion = Project(project)
        self._shown: dict[str, str] = {}
        self._described: dict[str, tuple[str, str]] = {}

    def make(self, asked: SelectionDue, of: str) -> str:
        """Return the job folder of the selection `of`, made or found after a crash.

        Which iteration it selects from is described when that is known.
        """
        crash_point("before-job-folder")
        _, options, outputs = _described(asked, "")
        process = self._relion.create_job(
            SCHEME, asked.node, asked.label, options, (), outputs, visit=of
        )
        crash_point("after-job-folder-before-commit")
        return process

    def describe(self, process: str, asked: SelectionDue, optimiser: str) -> None:
        """Show the options of a job, and which iteration of a classification it selects from."""
        if self._described.get(process) == (asked.key, optimiser):
            return
        inputs, options, outputs = _described(asked, optimiser)
        with suppress(ProjectError):
            self._relion.update_job(process, asked.label, options, inputs, outputs)
        self._described[process] = asked.key, optimiser

    def show(self, process: str, status: str) -> None:
        """Show how a job is, where it is not shown so already; a deleted one is left alone."""
        with suppress(ProjectError):
            if process not in self._shown:
                self._shown[process] = self._relion.pipeline().status(process) or ""
            if self._shown[process] == status:
                return
            command = f"coldstream {SCHEME}select_parts" if status == "Running" else ""
            self._relion.set_status(process, status, command=command)
            self._shown[process] = status


def _described(asked: SelectionDue, optimiser: str) -> tuple[Nodes, dict[str, str], Nodes]:
    """Return inputs, options and outputs of a selection from an iteration."""
    kind = find("relion.select")
    given = asked.options | ({"fn_model": optimiser} if optimiser else {})
    options, _ = kind.complete(given)
    return kind.input_nodes(options), options, kind.output_nodes(options)
