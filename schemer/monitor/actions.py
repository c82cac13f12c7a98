"""What a person may do to a Scheme from a monitor; both monitors call these.

Each action returns a sentence that says what was done, and raises SchemeError if it is not
possible now. Only `abort` and `unlock` reach a Scheme that runs. Source: schemes.md section 18.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from algorithms.formats.atomic import atomic_write
from schemer import edit, overview, relionit, starfile, store
from schemer.errors import ProjectError, SchemeError
from schemer.jobs import JobFile, find

_EXPECTED = (0, 2, 3)  # done, aborted, stopped by exit_maxtime
# What is asked before it is done.
QUESTIONS = {
    "Abort": "Stop {name}? The job at work is asked to stop, too.",
    "Unlock": "Remove RELION's lock of {name}? Only if no relion_schemer runs this Scheme, on any "
    "computer: two at once would spoil the project.",
    "Reset": "Reset {name}? All variables get their reset values, and it forgets which jobs ran. "
    "The job folders stay.",
}


class Option(NamedTuple):
    """A job option of a Scheme: its value, and the one that RELION takes where none is given."""

    name: str
    value: str
    default: str


class Actions:
    """Acts on one Scheme.

    Parameters
    ----------
    project, name
        Project folder, and the Scheme's folder in `Schemes/`.
    run_options
        Further words for the command line of `schemer run` at a restart.
    """

    def __init__(self, project: Path, name: str, run_options: Sequence[str] = ()):
        self.project, self.name = project, name
        self.folder = project / "Schemes" / name
        self._run_options = tuple(run_options)
        self._started: subprocess.Popen[bytes] | None = None

    def abort(self) -> str:
        """Ask the running Scheme, and the job it is at, to stop."""
        if not overview.is_running(self.project, self.name):
            raise SchemeError(f"{self.name} is not running, so there is nothing to abort")
        return f"asked to abort at {store.request_abort(self.project, self.folder)}"

    def unlock(self) -> str:
        """Remove the lock that a relion_schemer left behind when it died."""
        lock = overview.relion_lock(self.project, self.name)
        if not lock.is_dir():
            raise SchemeError(f"{lock} is not there: RELION does not lock {self.name}")
        shutil.rmtree(lock)
        return f"removed {lock.name}"

    def reset(self) -> str:
        """Put all variables to their reset values and forget which jobs ran."""
        scheme = store.edit(self.folder, edit.reset)
        return f"reset; the next run begins at {scheme.current_node}"

    def restart(self, node: str = "") -> str:
        """Run the Scheme from a node on (empty: where it stands), apart from this process.

        Its output is appended to `run.out` and `run.err` in the Scheme's folder; it goes on when
        the monitor ends.
        """
        self._need_stopped()
        if node:
            store.edit(self.folder, lambda scheme: edit.set_current_node(scheme, node))
        starfile.load(self.folder)  # what is wrong with it is better said here than in run.err
        place = ("--project", str(self.project.resolve()), "--scheme", self.name)
        command = [sys.executable, "-m", "schemer", "run", *place, *self._run_options]
        with (
            open(self.folder / "run.out", "ab") as output,
            open(self.folder / "run.err", "ab") as errors,
        ):
            self._started = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=self.project,
                start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        return f"started at {node or 'the current node'} (process {self._started.pid})"

    def set_variable(self, name: str, value: str) -> str:
        """Give a variable this value, and the same reset value; relion_it learns of it, too."""
        store.edit(self.folder, lambda scheme: edit.set_variable(scheme, name, value, value))
        relionit.record(self.project, {f"{self.name}__{name}": value})
        return f"{name} is {value} now, also after a reset"

    def options(self, job: str) -> tuple[Option, ...]:
        """Return the options of a job node with their values, sorted."""
        found = JobFile.load(self._job_star(job))
        try:
            defaults = {name: one.default for name, one in find(found.label).options.items()}
        except SchemeError:
            defaults = {}
        values = defaults | found.options
        return tuple(Option(name, values[name], defaults.get(name, "")) for name in sorted(values))

    def set_option(self, job: str, option: str, value: str) -> str:
        """Give a job an option; the next visit makes a new folder and does it all again."""
        self._need_stopped()
        path = self._job_star(job)
        changed = edit.set_job_option(JobFile.load(path), option, value, str(path))
        store.edit(self.folder, lambda scheme: edit.set_has_started(scheme, job, False))
        atomic_write(path, changed.dumps())
        relionit.record(self.project, {f"{self.name}__{job}__{option}": value})
        return f"{option} of {job} is {changed.options[option]} now; {job} begins anew"

    def reap(self) -> str:
        """Return what became of a run that `restart` started; empty while there is no news."""
        if self._started is None or self._started.poll() is None:
            return ""
        code, self._started = self._started.returncode, None
        hint = "; see run.err" if code not in _EXPECTED else ""
        return f"the run has ended with exit code {code}{hint}"

    def _job_star(self, job: str) -> Path:
        return self.folder / job / "job.star"

    def _need_stopped(self) -> None:
        if store.running(self.folder) is not None:
            raise store.busy(self.folder)
        store.refuse_relion(self.project, self.folder)


def attempt(action: Callable[[], str]) -> str:
    """Do an action; return what it says, or why it was not done."""
    try:
        return action()
    except (SchemeError, ProjectError) as error:
        return f"Not done: {error}"
    except OSError as error:
        return f"Not done: {error.filename}: {error.strerror}"
