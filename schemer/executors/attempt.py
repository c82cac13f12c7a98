"""The processes of one job: started once, found again after a crash, never two at a time.

Each command runs below a tiny shell (POSIX `sh`, given the command as arguments, never as text)
that leaves the exit code in a file, in a session of its own. So the job survives the death of
whoever started it, and the next one to come learns how it ended. A lock that the processes
inherit tells whether any of them is still alive. Source: schemes.md sections 7 and 9.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from schemer.errors import SchemeError

# $1 the file for the exit code, $2 the key; the rest is the command. A SIGTERM for the group is
# for the command: the shell waits for its end and tells it.
_SCRIPT = (
    'trap : TERM; file=$1; key=$2; shift 2; "$@"; code=$?; '
    'printf "%s %s\\n" "$key" "$code" >"$file.new" && mv -f "$file.new" "$file"'
)
_KILL_AFTER_S = 10.0


class Attempt:
    """The commands of one visit of a job, run one after another in the project folder.

    Parameters
    ----------
    project, process
        Project folder, and the job's folder below it.
    key
        Names the visit: the same key after a crash finds what the former attempt left.
    commands
        Argument lists; the next one runs when the one before has ended with 0.
    environment
        Variables for the commands, in addition to those of this process.
    """

    def __init__(
        self,
        project: Path,
        process: str,
        key: str,
        commands: list[list[str]],
        environment: Mapping[str, str] | None = None,
    ):
        self.project, self.folder = project, project / process
        self.key, self.commands = key, commands
        self._environment = {**os.environ, **(environment or {})}
        self._hidden = self.folder / ".coldstream"
        self._exit_file = self._hidden / "exit"
        # The lock file of the command that a former attempt was at, if there was one.
        former = next(iter(self._hidden.glob(f"lock.{key}.*")), None)
        self._is_former = former is not None
        self._number = int(former.suffix[1:]) if former is not None else 0
        self._child: subprocess.Popen[bytes] | None = None
        self._group: int | None = None
        self._asked_to_stop_at: float | None = None

    def is_known(self) -> bool:
        """Return whether a former process has begun this attempt, or even ended it."""
        return self._is_former

    @property
    def was_stopped(self) -> bool:
        """Return whether `stop` was called."""
        return self._asked_to_stop_at is not None

    def poll(self) -> int | None:
        """Start what has to be started; return the exit code at the end, None until then.

        A command that vanished without a word (killed with its shell) counts as 128 + SIGKILL if
        it was ours; one of a former process is started again.
        """
        while True:
            if self._child is None:
                code = self._recorded()
                if code is None and self._lives():
                    return None
                if code is None:
                    self._start()
                    return None
            else:
                if self._child.poll() is None:
                    return None
                self._child = None
                code = self._recorded()
                if code is None:
                    self._end(signal.SIGKILL)  # the shell died: nobody may be left behind it
                    code = 128 + signal.SIGKILL
            self._number += 1
            if code != 0 or self._number == len(self.commands):
                return code

    def stop(self) -> None:
        """End the commands by SIGTERM; called again later, by SIGKILL if they are still there."""
        if self._group is None:
            return
        now = time.monotonic()
        first = self._asked_to_stop_at is None
        if first:
            self._asked_to_stop_at = now
        late = not first and now - (self._asked_to_stop_at or now) > _KILL_AFTER_S
        if first or late:
            self._end(signal.SIGKILL if late else signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._group is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._group, number)

    def wait_s(self, seconds: float) -> None:
        """Wait for a change of the running command, at most so long."""
        if self._child is None:
            time.sleep(min(seconds, 0.05))
            return
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def _name(self) -> str:
        return f"{self.key}.{self._number}"

    def _recorded(self) -> int | None:
        try:
            key, code = self._exit_file.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(code) if key == self._name() else None

    def _lives(self) -> bool:
        """Return whether processes of a former attempt at this command are alive."""
        try:
            # Appending: a lock needs no more, and nothing is ever written.
            file = open(self._hidden / f"lock.{self._name()}", "a")
        except FileNotFoundError:
            return False
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._group = self._recorded_group()
                return True
        return False

    def _recorded_group(self) -> int | None:
        try:
            return int((self._hidden / f"group.{self._name()}").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _start(self) -> None:
        self._hidden.mkdir(exist_ok=True)
        for old in (*self._hidden.glob("lock.*"), *self._hidden.glob("group.*")):
            old.unlink()
        self._exit_file.unlink(missing_ok=True)
        command = self.commands[self._number]
        arguments = ["/bin/sh", "-c", _SCRIPT, "sh", str(self._exit_file.resolve()), self._name()]
        with open(self._hidden / f"lock.{self._name()}", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self._output("run.out") as out, self._output("run.err") as err:
                self._child = subprocess.Popen(
                    [*arguments, *command],
                    cwd=self.project,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                    pass_fds=(lock.fileno(),),
                )
        self._group = self._child.pid
        (self._hidden / f"group.{self._name()}").write_text(str(self._group))

    def _output(self, name: str) -> IO[bytes]:
        return open(self.folder / name, "ab")


def program(name: str, project: Path, remedy: str) -> str:
    """Return the path of a program, looked up as a shell in the project folder would.

    Raises
    ------
    SchemeError
        There is no such program, or it may not be run.
    """
    place = str(project / name) if "/" in name else name
    found = shutil.which(place)
    if found is None:
        raise SchemeError(f"there is no program {name!r} that can be run; {remedy}")
    return os.path.abspath(found)


def outcome(code: int) -> tuple[str, str]:
    """Return (status, detail) of an exit code: 0 succeeded, 2 aborted, all others failed."""
    if code == 0:
        return "Succeeded", ""
    if code == 2:
        return "Aborted", "the program stopped with exit code 2"
    if code > 128:
        try:
            return "Failed", f"the program was killed by {signal.Signals(code - 128).name}"
        except ValueError:
            pass
    return "Failed", f"the program ended with exit code {code}"
