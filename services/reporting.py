"""Keeps the report of a running session fresh, at a cost that is bounded."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from services.kit.paths import Layout

# A session that is over within a minute gets its report when somebody asks for it.
FIRST_S = 60.0
# Between two reports, in times of what the last one took: a thirtieth of one core at most.
REST = 29.0
LAST_S = 120.0


def command(layout: Layout) -> list[str]:
    """Return the command line of the process that writes the report."""
    python, project = sys.executable, str(layout.project)
    return [python, "-m", "services.report", "--project", project, "--parent", str(os.getpid())]


class LiveReport:
    """Has the report written again and again, by a process of its own, while there is news.

    Whatever becomes of it, the session goes on.

    Parameters
    ----------
    command
        Writes the report and ends.
    say
        Shows a sentence to the operator.
    first_s
        Seconds until the first report, and the fewest between two.
    """

    def __init__(
        self, command: Sequence[str], say: Callable[[str], None], first_s: float = FIRST_S
    ):
        self._command, self._say, self._least_s = list(command), say, first_s
        self._due = time.monotonic() + first_s
        self._begun = 0.0
        self._has_news = False
        self._has_begun = False
        self._said = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "LiveReport":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._collect()

    def turn(self, has_news: bool) -> None:
        """Look after it: start a report when one is due and there is news, take in its end.

        Parameters
        ----------
        has_news
            Whether anything has happened since the last turn.
        """
        self._has_news = self._has_news or has_news
        if self._process is not None and self._process.poll() is not None:
            self._collect()
        if self._process is None and self._has_news and time.monotonic() >= self._due:
            self._start()

    def finish(self, limit_s: float = LAST_S) -> None:
        """Bring a report that was begun in this run up to date; wait for it."""
        if not self._has_begun:
            return
        deadline = time.monotonic() + limit_s
        self._wait(deadline)  # one that runs now has not seen the end
        if self._process is None:
            self._start()
            self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        while self._process is not None and time.monotonic() < deadline:
            if self._process.poll() is not None:
                self._collect()
            else:
                time.sleep(0.05)

    def _start(self) -> None:
        self._has_news, self._has_begun, self._begun = False, True, time.monotonic()
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches only us
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            self._rest(f"it could not be started: {error}")

    def _collect(self) -> None:
        """Take in the end of a process."""
        assert self._process is not None  # noqa: S101
        _, said = self._process.communicate()
        code, self._process = self._process.returncode, None
        lines = said.strip().splitlines()
        self._rest(lines[-1] if code > 0 and lines else "")

    def _rest(self, trouble: str) -> None:
        """Set when the next one is due; say what went wrong, once."""
        took_s = time.monotonic() - self._begun
        self._due = time.monotonic() + max(self._least_s, REST * took_s)
        if trouble and trouble != self._said:
            self._say(f"the report was not written: {trouble}")
        self._said = trouble
