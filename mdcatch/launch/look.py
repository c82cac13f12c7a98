"""What programs of ours print as JSON, and what files say, asked for in a process of its own.

A hostile or endless file then costs a child its life, and never the daemon or a window. A query is
started, looked at now and then, and stopped; nothing here waits unless it is told to.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args

from mdcatch.parsers.child import ParserChild
from mdcatch.parsers.fields import FIELDS
from mdcatch.parsers.record import Record, Source
from services.kit.errors import Misuse, Refused, Transient

# A share that sleeps takes seconds; what takes longer does not answer.
LIMIT_S = 30.0
MAX_BYTES = 64 << 20  # a list of all sessions of a site has some MB at most

_PROGRAM = "import sys; from mdcatch.cli import main; sys.argv[0] = 'mdcatch'; main()"


def mdcatch_command(*arguments: str) -> list[str]:
    """Return the command line of `mdcatch` in this environment."""
    return [sys.executable, "-c", _PROGRAM, *arguments]


class Query:
    """A program that prints one JSON document, and the document.

    Parameters
    ----------
    command
        Argument list.
    limit_s
        The program is ended after this time.

    Raises
    ------
    Misuse
        It cannot be started.
    """

    def __init__(self, command: Sequence[str], limit_s: float = LIMIT_S):
        self._deadline = time.monotonic() + limit_s
        self._limit_s = limit_s
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise Misuse(f"{command[0]} cannot be started: {error.strerror}") from error
        self._texts: dict[int, bytearray] = {}
        self._open = selectors.DefaultSelector()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None  # noqa: S101
            os.set_blocking(stream.fileno(), False)
            self._open.register(stream, selectors.EVENT_READ)
            self._texts[stream.fileno()] = bytearray()
        self._out, self._err = self._texts.values()

    def poll(self, wait_s: float = 0.0) -> Any:
        """Return the document when it is there, None until then.

        Parameters
        ----------
        wait_s
            How long to wait for news.

        Raises
        ------
        Misuse
            The program refused, printed no JSON, too much, or took too long; says which.
        """
        self._read(wait_s)
        if len(self._out) > MAX_BYTES:
            raise self._failure(f"printed more than {MAX_BYTES >> 20} MB")
        if time.monotonic() > self._deadline:
            raise self._failure(f"gave no answer within {self._limit_s:g} s")
        if self._open.get_map() or self._process.poll() is None:
            return None
        code = self._process.returncode
        self.close()
        if code != 0:
            raise Misuse(self._last_line() or f"ended with exit code {code}")
        try:
            return json.loads(self._out)
        except ValueError as error:
            raise Misuse(f"printed no JSON: {error}") from None

    def result(self) -> Any:
        """Wait for the document and return it; raises as `poll`."""
        try:
            while (found := self.poll(0.2)) is None:
                pass
        finally:
            self.close()
        return found

    def close(self) -> None:
        """End the program if it still runs, and let go of it."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with the children it may have
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._open.close()

    def _read(self, wait_s: float) -> None:
        for key, _ in self._open.select(wait_s) if self._open.get_map() else ():
            data = b""
            with suppress(BlockingIOError):
                data = os.read(key.fd, 1 << 16)
            if data:
                self._texts[key.fd] += data
            else:
                self._open.unregister(key.fileobj)
        if not self._open.get_map() and self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_s)

    def _failure(self, text: str) -> Misuse:
        self.close()
        return Misuse(text)

    def _last_line(self) -> str:
        lines = self._err[-4000:].decode(errors="replace").strip().splitlines()
        return lines[-1][:1000] if lines else ""


@contextmanager
def reader(*roots: Path) -> Iterator[Callable[[Path], Record]]:
    """Give a function that parses the files below some folders, in a child with limits.

    It raises Misuse for a file that is refused, and says why.
    """
    with ParserChild(roots) as child:

        def read(file: Path) -> Record:
            try:
                return child.parse(file)
            except (Refused, Transient) as error:
                raise Misuse(str(error)) from error

        yield read


def record_of(document: Mapping[str, Any]) -> Record:
    """Return the record that `mdcatch parse --json` printed; every value is checked again.

    Raises
    ------
    Misuse
        The document is none of a record.
    """
    sources = document.get("sources")
    if not isinstance(sources, dict):
        raise Misuse("`mdcatch parse --json` printed no sources: is another version installed?")
    record = Record(
        format=str(document.get("format", "")),
        kind=str(document.get("kind", "")),
        notes=[str(note) for note in document.get("notes") or ()],
        flags=[str(flag) for flag in document.get("flags") or ()],
        unknown={str(k): str(v) for k, v in (document.get("unknown") or {}).items()},
        sections=list(document.get("sections") or ()),
    )
    for key, source in sources.items():
        if key in FIELDS and source in get_args(Source):
            try:
                record.put(key, document.get(key), source)
            except Refused as error:
                raise Misuse(str(error)) from error
    return record
