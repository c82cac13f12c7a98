"""The jobs of a Scheme in its project: folders made, job.star filled in, programs run.

Used by the runner of Schemes and by `schemer job`. Source: schemes.md sections 5, 6, 9, 11, 12.
"""

import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, structs

from schemer.errors import ProjectError, ProjectLocked, SchemeError
from schemer.executors import Executor, JobRequest
from schemer.executors.attempt import Attempt, outcome
from schemer.executors.relion import is_queued
from schemer.faults import crash_point
from schemer.jobs import JobFile, JobType
from schemer.jobs.check import check_options
from schemer.project import Nodes, Project
from schemer.store import ABORT_NOW

_EXIT_FILES = {
    "RELION_JOB_EXIT_SUCCESS": "Succeeded",
    "RELION_JOB_EXIT_FAILURE": "Failed",
    "RELION_JOB_EXIT_ABORTED": "Aborted",
}
_POLL_S = 0.25


class Prepared(Struct, frozen=True):
    """A job with its options filled in; `pending` are paths to jobs that have not run yet."""

    label: str
    options: dict[str, str]
    inputs: Nodes
    outputs: Nodes
    pending: tuple[str, ...] = ()
    is_tomo: bool = False


def read_job(path: Path, *, strict: bool = False) -> tuple[JobType, JobFile, tuple[str, ...]]:
    """Return a job.star's type with the site's defaults, its content with all options, and notes.

    Raises
    ------
    SchemeError
        No such file, an unknown type, or (unless `strict`) a value that its option does not allow.
    """
    file = JobFile.load(path)
    kind = file.type.on(os.environ)
    notes = () if strict else check_options(file.options, kind, str(path))
    options, _ = kind.complete(file.options)
    return kind, structs.replace(file, options=options), notes


def prepared(
    kind: JobType,
    file: JobFile,
    *,
    pending: tuple[str, ...] = (),
    is_continue: bool = False,
) -> Prepared:
    """Return a job ready to be made; the file's options are complete and filled in."""
    options = file.options
    return Prepared(
        kind.process_label(options, file.label, is_continue=is_continue),
        options,
        kind.input_nodes(options),
        kind.output_nodes(options, is_continue=is_continue),
        pending,
        file.is_tomo,
    )


class Workbench:
    """Runs jobs in a project, one at a time.

    Parameters
    ----------
    project
        The project folder.
    executors
        Ways of doing a job; the first that can do it does it.
    strict
        Wait for an aborted job as long as it takes, as RELION does.
    grace_s
        Otherwise, how long a job may take to notice that it is to stop.
    """

    def __init__(
        self,
        project: Project,
        executors: tuple[Executor, ...],
        *,
        strict: bool = False,
        grace_s: float = 30.0,
    ):
        self.project, self.executors = project, executors
        self._strict, self._grace_s = strict, grace_s

    def refuse(self, name: str, job: Prepared) -> None:
        """Raise SchemeError if no executor can do a job, before anything is made for it."""
        options = job.options | ({"do_queue": "No"} if "do_queue" in job.options else {})
        self._executor(_request(name, structs.replace(job, options=options), is_continue=False))

    def make(self, owner: str, node: str, job: Prepared, visit: str) -> str:
        """Return the folder of a new job; the same one when called again for the same visit."""
        crash_point("job-before-folder")
        process = self.project.create_job(
            owner,
            node,
            job.label,
            job.options,
            job.inputs,
            job.outputs,
            visit=visit,
            is_tomo=job.is_tomo,
        )
        crash_point("job-after-folder-before-write")
        return process

    def renew(self, process: str, job: Prepared) -> None:
        """Write what a job has now that goes on in its folder."""
        self.project.update_job(
            process, job.label, job.options, job.inputs, job.outputs, is_tomo=job.is_tomo
        )

    def missing(self, job: Prepared) -> str:
        """Return the first input file that does not exist, empty if all do."""
        return next((p for p, _ in job.inputs if not (self.project.root / p).exists()), "")

    def run(
        self,
        process: str,
        job: Prepared,
        key: str,
        *,
        is_continue: bool,
        look: Callable[[], bool],
    ) -> tuple[str, str]:
        """Run a job to its end; return its status and what there is to say about it.

        Parameters
        ----------
        process, job
            The job's folder below the project, and its content.
        key
            Names this visit: after a crash the same key finds the running or finished programs.
        is_continue
            Whether the job goes on with what its folder holds.
        look
            Called several times a second; returns whether the job shall stop.

        Raises
        ------
        SchemeError
            No executor can do the job, or its program is missing.
        """
        root = self.project.root
        request = _request(process, job, is_continue=is_continue)
        executor = self._executor(request)
        folder = root / process
        attempt = Attempt(root, process, key, executor.commands(request))
        if not attempt.is_known():
            crash_point("job-before-running")
            text = json.dumps(_job_json(request), indent=2)
            (folder / "job.json").write_text(text, encoding="utf-8")
            command = "\n".join(map(shlex.join, attempt.commands))
            self.project.set_status(process, "Running", command=command, is_continue=is_continue)
            crash_point("job-before-start")
        code = self._watch(attempt, folder, look)
        if executor.name == "relion" and is_queued(request) and code == 0:
            code = self._await_queue(folder, look)
        crash_point("job-after-end-before-status")
        status, detail = _verdict(executor, folder, code)
        try:
            self.project.set_status(process, status)
        except ProjectLocked:
            raise
        except ProjectError as error:  # outputs that it declares in a file nobody can read
            status, detail = "Failed", str(error)
            self.project.set_status(process, status)
        crash_point("job-after-status-before-write")
        return status, detail

    def _watch(self, attempt: Attempt, folder: Path, look: Callable[[], bool]) -> int:
        asked_at: float | None = None
        started = False
        while (code := attempt.poll()) is None:
            if not started:
                crash_point("job-after-start")
                started = True
            if look() or (folder / ABORT_NOW).exists():
                asked_at = asked_at or time.monotonic()
                if not self._strict and time.monotonic() - asked_at > self._grace_s:
                    attempt.stop()
            attempt.wait_s(_POLL_S)
        return 2 if attempt.was_stopped else code

    def _await_queue(self, folder: Path, look: Callable[[], bool]) -> int:
        """Wait for a queued job, which says by RELION's exit files that it has ended."""
        asked_at: float | None = None
        while not any((folder / name).exists() for name in _EXIT_FILES):
            if look() or (folder / ABORT_NOW).exists():
                asked_at = asked_at or time.monotonic()
                if not self._strict and time.monotonic() - asked_at > self._grace_s:
                    return 2
            time.sleep(_POLL_S)
        return 0

    def _executor(self, request: JobRequest) -> Executor:
        reasons = []
        for executor in self.executors:
            try:
                executor.commands(request)
            except SchemeError as error:
                reasons.append(str(error))
            else:
                return executor
        raise SchemeError("; ".join(dict.fromkeys(reasons)))


def _request(process: str, job: Prepared, *, is_continue: bool) -> JobRequest:
    return JobRequest(
        process=process,
        label=job.label,
        options=job.options,
        inputs=tuple(path for path, _ in job.inputs),
        is_continue=is_continue,
    )


def _job_json(request: JobRequest) -> dict[str, object]:
    return {
        "type": request.label,
        "options": request.options,
        "inputs": list(request.inputs),
        "continue": request.is_continue,
    }


def _verdict(executor: Executor, folder: Path, code: int) -> tuple[str, str]:
    """Return (status, detail); RELION's programs say it by a file, all others by their code."""
    if executor.name == "relion":
        for name, status in _EXIT_FILES.items():
            if (folder / name).exists():
                return status, "" if status == "Succeeded" else _last_words(folder)
    status, detail = outcome(code)
    return status, detail if status == "Succeeded" else f"{detail}; {_last_words(folder)}"


def _last_words(folder: Path) -> str:
    """Return the last line of run.err that a program wrote, or where to look."""
    path = folder / "run.err"
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    # The shell's own word about a signal is no news: the exit code says it.
    lines = [line for line in lines if line.strip() not in ("", "Killed", "Terminated")]
    return f"{path.parent.name}/run.err: {lines[-1].strip()}" if lines else f"see {folder}/run.out"
