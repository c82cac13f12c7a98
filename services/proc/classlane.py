"""The process that classifies: kept running while a run is due, at a lower priority than the rest.

A run goes on from its last iteration whenever its process is started again, so it may be killed at
any moment: when the service stops, when it dies, when the machine does.

Source: architecture.md section 6, reliability.md section 2.5.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from algorithms.formats.atomic import atomic_write
from schemer.errors import ProjectError
from services.kit import iterations
from services.kit.host import Source
from services.kit.jobprocess import ENDS, JobProcess, last_error, rest_s
from services.kit.paths import Layout
from services.kit.schemes import SchemeShell
from services.proc import gathering
from services.proc.classes import NODE, Ended, Told, Wanted, available
from services.proc.state import Classes, ProcState
from services.proc.views import particle_tables

# Extraction comes first; a classification takes what is left of the machine.
NICE = 10
LOOK_S = 1.0


class Sources:
    """Several sources as one."""

    def __init__(self, *sources: Source):
        self._sources = sources

    def open(self, wake: Callable[[], None]) -> None:
        """Start all."""
        for source in self._sources:
            source.open(wake)

    def poll(self, now: float, state: Any) -> tuple[list[Any], float]:
        """Return the stimuli of all, and when the first of them wants to be asked again."""
        found = [source.poll(now, state) for source in self._sources]
        return [one for stimuli, _ in found for one in stimuli], min(at for _, at in found)

    def close(self) -> None:
        """Stop all."""
        for source in self._sources:
            source.close()


class ClassLane:
    """Source of proc: the process of the run that is due, and what it tells.

    Parameters
    ----------
    layout
        The project's folders.
    shell
        Where the options of the job are.
    """

    def __init__(self, layout: Layout, shell: SchemeShell):
        self._layout, self._shell = layout, shell
        self._job = JobProcess(layout.project, NICE)
        self._process = ""
        self._attempt: int | None = None  # that was counted before we asked for one more
        self._joined: tuple[int, int, int] | None = None
        self._shown = ""
        self._rests_until = 0.0

    def open(self, wake: Callable[[], None]) -> None:
        """Start: nothing to do before a run is due."""

    def close(self) -> None:
        """Stop the process; its run goes on when the service does."""
        self._job.kill()

    def poll(self, now: float, state: ProcState) -> tuple[list[Any], float]:
        """Look after the process; return what has happened."""
        classes = state.classes
        due = classes.process if classes.is_due else ""
        if self._process and self._process != due:
            self._leave()
        self._show_given_up(classes.given_up)
        if not due or now < self._rests_until:
            return [], now + LOOK_S
        self._process = due
        if self._job.pid is None and (self._attempt is None or classes.attempt <= self._attempt):
            self._attempt = classes.attempt
            return [Wanted(due)], now + LOOK_S / 10
        try:
            if self._job.pid is None:
                self._start(state)
            elif classes.streaming:
                self._join(state)
            return self._news(now, classes), now + LOOK_S
        except ProjectError as error:  # somebody has deleted the job
            return [Ended(due, "aborted", str(error), time.time())], now + LOOK_S

    def _show_given_up(self, process: str) -> None:
        """Show that a run was given up by us; its process has not said so."""
        if process != self._shown:
            self._shown = process
            with suppress(ProjectError):
                self._shell.show_status(process, "Aborted")

    def _leave(self) -> None:
        """Stop the process of a run that is not due any more."""
        self.close()
        self._process, self._attempt = "", None

    def _start(self, state: ProcState) -> None:
        """Start the process; that it is begun stands in the journal."""
        folder = self._layout.project / self._process
        self._joined = None
        self._join(state)
        self._describe(state, folder)
        self._shell.show_status(self._process, "Running")
        self._job.start(self._process)
        self._attempt = None

    def _describe(self, state: ProcState, folder: Path) -> None:
        label, options = self._shell.job(state, NODE)
        told = {
            "type": label,
            "options": {**options, "fn_img": f"{self._process}{gathering.TABLE}"},
            "inputs": [options["fn_img"]],
            "continue": state.classes.iteration > 0,
        }
        atomic_write(folder / "job.json", msgspec.json.encode(told))

    def _join(self, state: ProcState) -> None:
        """Tell the process which micrographs have particles for it."""
        classes = state.classes
        # The list is long, and this is asked every second: a look at what decides on it.
        now = len(classes.parts), len(state.extracted), len(state.refused)
        if now == self._joined:
            return
        parts = [movie for movie in classes.parts if movie in state.extracted]
        if classes.streaming:
            there = available(state)
            parts = [movie for movie in parts if movie in there]
        optics, joined = particle_tables(state, parts)
        gathering.ask(self._layout.project / self._process, optics, joined)
        self._joined = now

    def _news(self, now: float, classes: Classes) -> list[Any]:
        """Return the iterations that the process has told of, and its end."""
        code = self._job.end()
        folder = self._layout.project / self._process
        told = (one for one in iterations.read(folder) if one.iteration > classes.iteration)
        found: list[Any] = [Told(self._process, one) for one in told]
        if code is None:
            return found
        if code not in ENDS:
            # It was killed, or the disk is full: it goes on.
            self._rests_until = now + rest_s(classes.attempt)
            return found
        reason = ENDS[code]
        status = {"": "Succeeded", "failed": "Failed", "aborted": "Aborted"}[reason]
        self._shell.show_status(self._process, status)
        return [
            *found,
            Ended(self._process, reason, last_error(folder) if reason else "", time.time()),
        ]
