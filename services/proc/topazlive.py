"""A Topaz that stays: its model is loaded once, and then it picks micrograph after micrograph.

`topaz extract` without file names reads them from its input, one a line, and says with `-v` how
many particles it has found in each. It ends when its input ends, so it does not outlive the worker
whose child it is, however that ends. One that does not know `-v` is called for every micrograph.
Source: preprocessing.md section 4.2; the command line of Topaz 0.3.
"""

import atexit
import os
import re
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from services.kit.errors import Code, Refused
from services.proc.topazask import INSTALL

_FOUND = re.compile(r"Extracted (\d+) particles from (\S+)$")
_WRONG_WORDS = 2  # how Python programs end when they do not know an argument
END_S = 10.0  # to finish a micrograph when there are no more


class Unable(Exception):
    """Topaz does not read the names of files from its input, or does not tell what it finds."""


class Ended(Exception):
    """Topaz has ended; the message is what it said last."""


class Topaz:
    """One running Topaz.

    Parameters
    ----------
    command
        `topaz extract` with all its options, without files.
    digest
        Of the model's file: what was loaded is not what stands there later.

    Raises
    ------
    Refused
        The program cannot be run.
    """

    def __init__(self, command: Sequence[str], digest: str):
        self.identity = (tuple(command), digest)
        # PYTHONPATH of this environment is none of Topaz's; what it says has to come at once.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment["PYTHONUNBUFFERED"] = "1"
        self._said: deque[str] = deque(maxlen=20)
        self._has_picked = False
        try:
            self._process = subprocess.Popen(
                [*command, "-v"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environment,
            )
        except OSError as error:
            why = f"{command[0]} cannot be run: {error.strerror}"
            raise Refused(Code.READ_ERROR, f"{why}; {INSTALL}") from error

    def pick(self, image: Path) -> list[str]:
        """Return the lines `name, x, y, score` of an image, divided by tabs.

        Raises
        ------
        Ended
            It has ended instead.
        Unable
            It does not work in this way.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101
        try:
            stdin.write(f"{image}\n")
            stdin.flush()
        except OSError:  # it reads no more; why is in what it said
            pass
        rows: list[str] = []
        count: int | None = None
        while count is None or len(rows) < count:
            line = stdout.readline()
            if not line:
                raise self._why()
            line = line.rstrip("\n")
            if count is not None and line.startswith(f"{image.stem}\t"):
                rows.append(line)
                continue
            self._said.append(line)
            found = _FOUND.search(line)
            if found is not None and found[2] == image.stem:
                count = int(found[1])
        self._has_picked = True
        return rows

    def _why(self) -> Exception:
        code = self._process.wait()
        if code == _WRONG_WORDS and not self._has_picked:
            return Unable()
        last = next((line for line in reversed(self._said) if line.strip()), "it said nothing")
        return Ended(f"Topaz ended with exit code {code}: {last.strip()[:300]}")

    def end(self) -> None:
        """Let it end, and see that it does."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # it has ended with a name unread
                    pass
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_running: list[Topaz] = []
_unable: set[str] = set()  # programs


def pick_streamed(command: Sequence[str], digest: str, image: Path) -> list[str] | None:
    """Return the lines of an image from the running Topaz; None where none can be kept running.

    One with another model or other sizes is ended before this one is started. One that dies over
    an image is started once more for it.

    Parameters
    ----------
    command, digest
        See `Topaz`.
    image
        A small micrograph; its name without suffix is that in the lines.

    Raises
    ------
    Refused
        It died twice, or cannot be run.
    """
    if command[0] in _unable:
        return None
    why = ""
    for _ in range(2):
        if not _running or _running[0].identity != (tuple(command), digest):
            end_topaz()
            _running.append(Topaz(command, digest))
        try:
            return _running[0].pick(image)
        except Unable:
            end_topaz()
            _unable.add(command[0])
            return None
        except Ended as ended:
            end_topaz()
            why = str(ended)
    raise Refused(Code.READ_ERROR, why)


@atexit.register
def end_topaz() -> None:
    """End the Topaz that is running, if there is one."""
    while _running:
        _running.pop().end()
