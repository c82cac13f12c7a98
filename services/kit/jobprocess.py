"""A job that a service keeps running in a process of its own, as `services.jobs.live` does it.

The process ends with the service, and its memory, also that of a GPU, is free then. Started again
it goes on with the last iteration. Source: architecture.md section 6, reliability.md section 2.5.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

PROGRAM = (sys.executable, "-P", "-m", "services.jobs.live")
ENDS = {0: "", 1: "failed", 2: "aborted"}  # any other end is not the job's
# After a process has died, twice as long each time: what killed it may pass.
REST_S, LONGEST_REST_S = 2.0, 120.0


class JobProcess:
    """The process of one job at a time.

    Parameters
    ----------
    project
        Root of the RELION project.
    nice
        How much it gives way.
    program
        Does the job of a folder.
    """

    def __init__(self, project: Path, nice: int, program: Sequence[str] = PROGRAM):
        self._project, self._nice, self._program = project, nice, tuple(program)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id, None where there is no process."""
        return None if self._child is None else self._child.pid

    def start(self, process: str) -> None:
        """Start the process of a job; what it says is added to its run.out and run.err."""
        folder = self._project / process
        command = [*self._program, process]
        command += ["--parent", str(os.getpid()), "--nice", str(self._nice)]
        with open(folder / "run.out", "ab") as out, open(folder / "run.err", "ab") as err:
            self._child = subprocess.Popen(
                command,
                cwd=self._project,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def end(self) -> int | None:
        """Return the exit code of a process that has ended since, once; None while it runs."""
        code = None if self._child is None else self._child.poll()
        if code is not None:
            self._child = None
        return code

    def kill(self) -> None:
        """End the process now; its job goes on with the next start."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


def rest_s(attempt: int) -> float:
    """Return how long to wait after a process has died that was started so many times."""
    return min(LONGEST_REST_S, REST_S * 2.0 ** max(0, attempt - 1))


def last_error(folder: Path) -> str:
    """Return the last line of what a job said of its errors."""
    with suppress(OSError):
        lines = (folder / "run.err").read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("ERROR: ") if lines else ""
    return ""
