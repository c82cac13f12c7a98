"""The process of the job that is due: started, looked after, started again, asked how far it is."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from algorithms.formats.atomic import atomic_write
from schemer.errors import ProjectError, ProjectLocked
from services.kit import iterations
from services.kit.jobprocess import ENDS, JobProcess, last_error, rest_s
from services.refine import results
from services.refine.shell import RefineShell
from services.refine.state import Ended, RefineState, Told, Wanted, Work

# Movies come first, then the classes, then the map of them.
NICE = 12
LOOK_S = 1.0
KEPT = ".coldstream/particles.star"
STATUS = {"": "Succeeded", "failed": "Failed", "aborted": "Aborted"}


class RefineLane:
    """Source of refine: one job at a time, in a process of its own.

    Parameters
    ----------
    shell
        The Scheme in its project.
    process
        Runs the job.
    """

    def __init__(self, shell: RefineShell, process: JobProcess):
        self._shell, self._process = shell, process
        self._job = ""
        self._attempt: int | None = None  # that was counted before we asked for one more
        self._rests_until = 0.0
        self._shown = ""

    def open(self, wake: Callable[[], None]) -> None:
        """Start: nothing to do before a job is due."""

    def close(self) -> None:
        """Stop the process; its job goes on when the service does."""
        self._process.kill()

    def poll(self, now: float, state: RefineState) -> tuple[list[Any], float]:
        """Look after the process; return what has happened."""
        work = state.work
        if self._job and (work is None or work.process != self._job):
            self._leave()
        self._show_given_up(state.given_up)
        if work is None or now < self._rests_until:
            return [], now + LOOK_S
        self._job = work.process
        if self._process.pid is None and (self._attempt is None or work.attempt <= self._attempt):
            self._attempt = work.attempt
            return [Wanted(work.process)], now + LOOK_S / 10
        try:
            if self._process.pid is None:
                try:
                    self._start(state, work)
                except ProjectLocked:  # RELION has the pipeline: it is tried again
                    return [], now + LOOK_S
            return self._news(now, work), now + LOOK_S
        except ProjectError as error:  # somebody has deleted the job
            self._process.kill()
            return [Ended(work.process, "aborted", str(error), time.time())], now + LOOK_S

    def _leave(self) -> None:
        """Stop the process of a job that is not due any more."""
        self._process.kill()
        self._job, self._attempt, self._rests_until = "", None, 0.0

    def _show_given_up(self, process: str) -> None:
        """Show that a job was given up by us; its process has not said so."""
        if process != self._shown:
            self._shown = process
            with suppress(ProjectError):
                self._shell.show_status(process, "Aborted")

    def _start(self, state: RefineState, work: Work) -> None:
        """Start the process; that it is begun stands in the journal."""
        folder = self._folder(work.process)
        if not folder.is_dir():
            raise ProjectError(f"somebody has deleted {work.process}")
        self._shell.show_status(work.process, "Running")
        label, options = self._shell.job(state, work.node)
        options = self._keep_particles(work.process, options)
        told = {
            "type": label,
            "options": options,
            "inputs": [options[name] for name in ("fn_img", "fn_ref", "fn_in") if name in options],
            "continue": work.iteration > 0,
        }
        atomic_write(folder / "job.json", msgspec.json.encode(told))
        self._process.start(work.process)
        self._attempt = None

    def _keep_particles(self, process: str, options: dict[str, str]) -> dict[str, str]:
        """Return options that name particles which stay the same, whatever is selected later."""
        kept = self._folder(process) / KEPT
        table = self._shell.project / options.get("fn_img", "")
        if not kept.exists() and table.is_file():
            kept.parent.mkdir(exist_ok=True)
            # Tables are replaced as a whole and never written to: a second name is a copy.
            try:
                os.link(table, kept)
            except OSError:  # a file system without second names
                atomic_write(kept, table.read_bytes())
        return {**options, "fn_img": f"{process}{KEPT}"} if kept.exists() else options

    def _folder(self, process: str) -> Path:
        return self._shell.project / process

    def _news(self, now: float, work: Work) -> list[Any]:
        """Return the iterations that the process has told of, and its end."""
        code = self._process.end()
        folder = self._folder(work.process)
        told = (one for one in iterations.read(folder) if one.iteration > work.iteration)
        found: list[Any] = [Told(work.process, one) for one in told]
        if code is None:
            return found
        if code not in ENDS:  # it was killed, or the disk is full: it goes on
            self._rests_until = now + rest_s(work.attempt)
            return found
        return [*found, self._end(work, ENDS[code])]

    def _end(self, work: Work, reason: str) -> Ended:
        process, result = work.process, None
        detail = last_error(self._folder(process)) if reason else ""
        if not reason:
            result = results.read(self._shell.project, process, self._shell.label(work.node))
        status = STATUS[reason] if reason or result is not None else "Failed"
        self._shell.show_status(process, status)
        return Ended(process, reason, detail, time.time(), result)
