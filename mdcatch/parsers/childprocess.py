"""The parser child as a process: start, messages within a time, end without a zombie.

Source: reliability.md sections 2.11, 3 (F10, F25).
"""

import contextlib
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGALRM

from mdcatch.parsers.childmain import LENGTH, frame, whole
from services.kit.errors import Transient

START_S = 30.0  # for the interpreter to start on a loaded machine
GRACE_S = 1.0  # for a killed child to be gone; one that hangs in a dead share takes longer
MAX_MESSAGE = 64 * 2**20  # bytes; the record of the largest square has some 10 MB
# What the interpreter needs; everything else of the parent's environment stays with it.
_KEPT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV")


class Slow(Exception):
    """The child does not answer; `disk` tells that it waits for the file, not for its parser."""

    def __init__(self, disk: bool):
        super().__init__(disk)
        self.disk = disk


class Ended(Exception):
    """The child is gone."""


class Child:
    """One running `childmain`.

    Parameters
    ----------
    memory_MB
        Address space it may take.
    limit_s
        After which it ends itself, per file.

    Raises
    ------
    Transient
        It does not start.
    """

    def __init__(self, memory_MB: int, limit_s: float):
        module = "mdcatch.parsers.childmain"
        source, self._to = os.pipe2(os.O_CLOEXEC)
        self._from, target = os.pipe2(os.O_CLOEXEC)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(memory_MB * 2**20), str(limit_s)],
                stdin=source,
                stdout=target,
                cwd="/",
                env={key: os.environ[key] for key in _KEPT if key in os.environ},
                start_new_session=True,  # what a person types at a terminal is for the parent
            )
        except OSError as error:
            self._close()
            raise Transient(f"the parser process does not start: {error}") from None
        finally:
            os.close(source)
            os.close(target)
        os.set_blocking(self._to, False)
        try:
            self.receive(START_S)
        except (Slow, Ended) as error:
            self.end()
            raise Transient(f"the parser process does not start: {error}") from None

    def send(self, content: bytes, seconds: float) -> None:
        """Write one message."""
        view, limit = memoryview(frame(content)), time.monotonic() + seconds
        while view:
            self._wait(self._to, select.POLLOUT, limit)
            try:
                view = view[os.write(self._to, view) :]
            except BrokenPipeError:
                raise Ended(self._status()) from None

    def receive(self, seconds: float) -> bytes:
        """Return the next message."""
        limit = time.monotonic() + seconds

        def read(length: int) -> bytes:
            self._wait(self._from, select.POLLIN, limit)
            return os.read(self._from, length)

        head = whole(read, LENGTH.size)
        length = 0 if head is None else LENGTH.unpack(head)[0]
        if length > MAX_MESSAGE:
            raise Ended(f"a message of {length} bytes")
        content = None if head is None else whole(read, length)
        if content is None:
            raise Ended(self._status())
        return content

    def end(self) -> bool:
        """Kill it; return whether it is gone. Safe to repeat."""
        self.process.kill()
        self._close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        return self.process.poll() is not None

    def _close(self) -> None:
        for pipe in (self._to, self._from):
            if pipe >= 0:
                os.close(pipe)
        self._to = self._from = -1

    def _wait(self, pipe: int, what: int, limit: float) -> None:
        poll = select.poll()
        poll.register(pipe, what)
        if not poll.poll(max(0.0, limit - time.monotonic()) * 1e3):
            raise Slow(self._waits_for_disk())

    def _waits_for_disk(self) -> bool:
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] == "D"

    def _status(self) -> str:
        """Return how it ended, now that its pipe is closed; `Slow` if its own alarm did it."""
        try:
            status = self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        if status == -SIGALRM:
            raise Slow(disk=False)
        return f"signal {-status}" if status < 0 else f"exit code {status}"
