"""A Scheme in its project: job options as they apply, job folders, and `scheme.star` on disk."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from algorithms.formats.atomic import atomic_write
from schemer import starfile
from schemer.jobs import JobFile, JobType, find
from schemer.machine import State
from schemer.project import Project
from schemer.resolve import fill_options
from schemer.scheme import Scheme
from schemer.world import ProjectWorld
from services.kit.faults import crash_point
from services.kit.options import Options

# Values that a service fills in from the data when a job is made: option -> text.
Measured = Callable[[Any, str], Mapping[str, str]]


class ViewWorld:
    """The project folder, with our own tables counted from the state instead of from disk.

    A view on disk may lag behind the state by its writing interval; what operators ask about it
    has to be right at once.

    Parameters
    ----------
    project
        Root of the RELION project.
    """

    def __init__(self, project: Path):
        self._disk = ProjectWorld(project)
        self.rows: Mapping[str, int] = {}

    def file_exists(self, path: str) -> bool:
        """Return whether a file is there, or is a view that has rows."""
        return self.rows.get(path, 0) > 0 or self._disk.file_exists(path)

    def count_images(self, path: str, table: str) -> int:
        """Return the number of rows of a table."""
        known = self.rows.get(path)
        return self._disk.count_images(path, table) if known is None else known

    def column(self, path: str, table: str, label: str) -> Sequence[str]:
        """Return the values of a column."""
        return self._disk.column(path, table, label)

    def glob(self, pattern: str) -> Sequence[str]:
        """Return the paths that match."""
        return self._disk.glob(pattern)

    def job_table(self, scheme: str) -> Mapping[str, str] | None:
        """Return another Scheme's job names."""
        return self._disk.job_table(scheme)


class SchemeShell:
    """What a service asks of its Scheme's folder.

    Parameters
    ----------
    project
        Root of the RELION project.
    name
        Scheme name, `prep` or `proc`.
    measured
        Option values that the service fills in when a job is made, for people to read.
    """

    def __init__(self, project: Path, name: str, measured: Measured):
        self.project = project
        self.folder = project / "Schemes" / name
        self.scheme: Scheme = starfile.load(self.folder)
        self.world = ViewWorld(project)
        self._relion = Project(project)
        self._measured = measured
        self._files = {
            job: JobFile.load(self.folder / job / "job.star") for job in self.scheme.jobs
        }
        self._filled: dict[tuple[str, tuple[str, ...]], Options] = {}

    def digest(self, *more: str) -> str:
        """Return a digest of all job options and of `more`: changes when any setting does."""
        digest = hashlib.sha256()
        for job, file in sorted(self._files.items()):
            digest.update(repr((job, file.label, sorted(file.options.items()))).encode())
        digest.update(repr(more).encode())
        return digest.hexdigest()

    def given(self, node: str) -> Mapping[str, str]:
        """Return the options of a job node as the Scheme has them; none where it has no such."""
        return self._files[node].options if node in self._files else {}

    def options(self, state: Any, node: str) -> Options:
        """Return the options of a job node: variables substituted, paths resolved."""
        machine: State = state.machine
        key = (node, tuple(row.current_name for row in machine.jobs.values()))
        if key not in self._filled:
            file = self._files[node]
            filled = fill_options(
                file.options,
                find(file.label).kinds,
                self.scheme.name,
                machine,
                self.world,
            )
            self._filled[key] = Options(f"{self.scheme.name}{node}", filled.options)
        return self._filled[key]

    def make_job(self, state: Any, node: str, visit: str = "") -> tuple[str, str]:
        """Return (process, label) of a node's job, made or found after a crash.

        `visit` tells the visits of a node apart each of which is a job of its own.
        """
        crash_point("before-job-folder")
        kind, label, complete = self._job(state, node)
        outputs = [o for o in kind.output_nodes(complete) if not o[0].endswith(".pdf")]
        inputs = kind.input_nodes(complete)
        process = self._relion.create_job(
            self.scheme.name, node, label, complete, inputs, outputs, visit=visit
        )
        self._relion.set_status(process, "Running", command=f"coldstream {self.scheme.name}{node}")
        crash_point("after-job-folder-before-commit")
        return process, label

    def job(self, state: Any, node: str) -> tuple[str, dict[str, str]]:
        """Return label and complete options of a node's job, for a program that does it."""
        _, label, complete = self._job(state, node)
        return label, dict(complete)

    def show_status(self, process: str, status: str) -> None:
        """Show how a single job is, `Running`, `Succeeded`, `Failed` or `Aborted`."""
        self._relion.set_status(process, status)

    def _job(self, state: Any, node: str) -> tuple[JobType, str, Mapping[str, str]]:
        file = self._files[node]
        kind = find(file.label)
        options = {**self.options(state, node).values, **self._measured(state, node)}
        complete, _ = kind.complete(options)
        return kind, kind.process_label(complete, file.label), complete

    def show_running(self, state: Any) -> None:
        """Show the jobs as running: their service is there and takes what comes."""
        for row in state.machine.jobs.values():
            if row.has_started and row.mode != "new":
                self._relion.set_status(row.current_name, "Running")

    def show_finished(self, state: Any) -> None:
        """Show a job as succeeded where no movie is undecided; the others stay running.

        Jobs of mode `new` end by themselves, and are shown so by whoever does them.
        """
        for node, row in state.machine.jobs.items():
            if row.has_started and row.mode != "new" and not state.inside.get(node):
                self._relion.set_status(row.current_name, "Succeeded")


def output_root(process: str, path: str) -> str:
    """Return the path, without suffix, of what a job makes from `path`.

    The input path is kept below the job folder; dots before the suffix become underscores
    (preprocessing.md 2.11).
    """
    inside = PurePosixPath(path)
    if len(inside.parts) > 2 and inside.parts[1].startswith("job"):
        inside = PurePosixPath(*inside.parts[2:])
    return process + str(inside.with_suffix("")).replace(".", "_")


def write_scheme(project: Path, scheme: Scheme, state: State) -> None:
    """Write `scheme.star` as the machine stands, for people, RELION and other Schemes."""
    text = starfile.dump(scheme, state)
    atomic_write(project / scheme.name / "scheme.star", text, durable=False)
