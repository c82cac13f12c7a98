"""Other people's programs: whether they are here, and starting them apart from this process."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from mdcatch.launch.request import OpenRequest
from services.kit.errors import Misuse
from services.kit.faults import crash_point
from services.kit.sitetables import Programs

POINTS = ("before-start", "after-start")
# A program that cannot run ends at once: for a missing library, or options it does not know.
AT_ONCE_S = 0.7
END_S = 5.0
LOOKS = 10
_INSTALL = "install it and put it on the PATH, or name it in the site's [programs]"


class Started:
    """A program that runs.

    Parameters
    ----------
    name
        What a person calls it.
    process
        None if it ran already.
    errors
        Its `run.err`, and how long that was before.
    """

    def __init__(
        self, name: str, process: subprocess.Popen[bytes] | None, errors: tuple[Path, int]
    ):
        self.name, self.process, self._errors = name, process, errors

    @property
    def text(self) -> str:
        """Say it in a few words."""
        return f"{self.name} runs" + (f" (process {self.process.pid})" if self.process else "")

    def check(self, deadline: float) -> None:
        """Wait until a monotonic time; raise Misuse if the program ends with an error before."""
        if self.process is None:
            return
        try:
            code = self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return
        path, begin = self._errors
        if code != 0:
            raise Misuse(f"{self.name} ended at once with exit code {code}: {_last(path, begin)}")

    def end(self) -> None:
        """End the program and what it has started; wait for it."""
        if self.process is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(END_S)
                    return


def schemer_of(programs: Programs) -> str:
    """Return the name or path of `relion_schemer`: it lies beside RELION's other programs."""
    folder = os.path.dirname(programs.relion)
    return os.path.join(folder, "relion_schemer") if folder else "relion_schemer"


def needed(request: OpenRequest, programs: Programs) -> dict[str, str]:
    """Return the programs that a request needs on this host, with what to do about each."""
    if request.pipeline == "native":
        return {}
    if request.pipeline == "scipion":
        return {programs.scipion: "the workflow is written; take it where Scipion is"}
    found: dict[str, str] = {}
    if request.runner == "relion_schemer":
        found[schemer_of(programs)] = (
            "install RELION 4 or 5, let coldstream's schemer run the Schemes, or make the project "
            "without a start"
        )
    elif request.executor != "native":
        found[programs.relion] = _INSTALL
    if request.picker == "topaz":
        found[programs.topaz] = _INSTALL
    if request.picker == "cryolo":
        found[programs.cryolo] = _INSTALL
    return found


def missing(request: OpenRequest, programs: Programs) -> dict[str, str]:
    """Return those of the programs needed that are not here."""
    wanted = needed(request, programs)
    return {name: remedy for name, remedy in wanted.items() if shutil.which(name) is None}


def start(name: str, command: Sequence[str], project: Path, output: Path) -> Started:
    """Start a program in a session of its own, once; it goes on when this process ends.

    A lock that the program inherits tells whether it still runs, so that a command that is
    repeated after a crash does not start it again.

    Parameters
    ----------
    name
        What a person calls it.
    command
        Argument list.
    project
        Working directory.
    output
        Folder of `run.out` and `run.err`, which are appended to.

    Raises
    ------
    Misuse
        It cannot be started.
    """
    lock, errors = project / ".coldstream" / "run" / f"{name}.lock", output / "run.err"
    lock.parent.mkdir(parents=True, exist_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    with open(lock, "a") as held:
        if not _taken(held):
            return Started(name, None, (errors, 0))
        crash_point("before-start")
        try:
            with open(output / "run.out", "ab") as out, open(errors, "ab") as err:
                begin = err.tell()
                process = subprocess.Popen(
                    list(command),
                    cwd=project,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                    pass_fds=(held.fileno(),),
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                )
        except OSError as error:
            raise Misuse(f"{command[0]} cannot be started: {error.strerror}") from error
    crash_point("after-start")
    return Started(name, process, (errors, begin))


def _taken(file: IO[str]) -> bool:
    """Take the lock of a program, unless it runs; one who only looks holds it for a moment."""
    for _ in range(LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False


def is_running(project: Path, name: str) -> bool:
    """Tell whether a program that `start` has started still runs."""
    try:
        with open(project / ".coldstream" / "run" / f"{name}.lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def native_command(project: Path) -> list[str]:
    """Return the command line that processes a project's session."""
    return [sys.executable, "-m", "services", "up", "--project", str(project)]


def _last(path: Path, begin: int) -> str:
    """Return the last line that was added to a file."""
    with open(path, "rb") as file:
        file.seek(max(begin, file.seek(0, os.SEEK_END) - 4000))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "it said nothing"
