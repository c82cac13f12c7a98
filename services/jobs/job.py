"""A job as it was handed over: its folder, its options, and whether it is to stop.

Source: schemes.md sections 7 and 9.
"""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from services.kit.errors import ColdstreamError, Misuse
from services.kit.options import Options
from services.kit.paths import Layout

ABORT_FILE = "RELION_JOB_ABORT_NOW"
HIDDEN = ".coldstream"  # folder in the job folder
# What is being worked on is waited for so long; it is lost then, and done anew by the next call.
PATIENCE_S = 10.0
LOOK_S = 0.05  # between looks at a lock that another program holds


class Failed(ColdstreamError):
    """The job cannot be done; the message says why."""


class Aborted(ColdstreamError):
    """The job was told to stop, and has."""


class JobFile(msgspec.Struct, frozen=True, kw_only=True):
    """What `job.json` holds.

    `type` is the process label, `options` are RELION's by name, complete and with variables and
    paths filled in, `inputs` are the files it reads.
    """

    type: str
    options: dict[str, str]
    inputs: tuple[str, ...] = ()
    is_continue: bool = msgspec.field(default=False, name="continue")


class Stop:
    """Tells whether the job is to stop.

    Parameters
    ----------
    folder
        The job folder, where the request appears as a file.
    """

    def __init__(self, folder: Path):
        self._file = folder / ABORT_FILE
        self._signalled = False
        self._asked_at: float | None = None

    def watch_signals(self) -> None:
        """Take SIGTERM and SIGINT as requests to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self._signalled = True

    def asked(self) -> bool:
        """Return whether to stop: nothing more is to be begun."""
        if self._asked_at is None and (self._signalled or self._file.exists()):
            self._asked_at = time.monotonic()
        return self._asked_at is not None

    def at_once(self) -> bool:
        """Return whether not even what was begun is to be waited for."""
        is_late = self._asked_at is not None and time.monotonic() - self._asked_at > PATIENCE_S
        return self._signalled or is_late


class Job:
    """One job of the project in the working directory.

    Parameters
    ----------
    project
        Root of the RELION project.
    folder
        The job folder, absolute or below the project.

    Raises
    ------
    Misuse
        The folder or its `job.json` is not usable.
    """

    def __init__(self, project: Path, folder: str):
        self.project = project.absolute()
        self.folder = Path(os.path.normpath(self.project / folder))
        try:
            inside = self.folder.relative_to(self.project)
        except ValueError:
            raise Misuse(
                f"the job folder {folder} is not in the project {self.project}: "
                "run this in the project folder"
            ) from None
        self.process = f"{PurePosixPath(inside)}/"
        self.layout = Layout(self.project)
        path = self.folder / "job.json"
        try:
            file = msgspec.json.decode(path.read_bytes(), type=JobFile)
        except (OSError, msgspec.MsgspecError) as error:
            raise Misuse(f"{path} does not describe a job: {error}") from error
        self.label, self.is_continue = file.type, file.is_continue
        self.options = Options(f"{self.process} ({file.type})", file.options)
        self.stop = Stop(self.folder)

    @contextmanager
    def alone(self, patience_s: float = 0.0) -> Iterator[None]:
        """Keep a second program from working on the same job.

        Raises
        ------
        Misuse
            One already does, and still does after `patience_s`.
        """
        (self.folder / HIDDEN).mkdir(exist_ok=True)
        deadline = time.monotonic() + patience_s
        with open(self.folder / HIDDEN / "items.lock", "w") as file:
            while not _locked(file):
                if time.monotonic() >= deadline:
                    raise Misuse(f"another program is at work on {self.process}: wait for it")
                time.sleep(LOOK_S)
            yield

    def say(self, line: str) -> None:
        """Tell people something, in run.out."""
        print(f" {line}", flush=True)

    def warn(self, line: str) -> None:
        """Tell people of something that went wrong, in run.err."""
        print(f" {line}", file=sys.stderr, flush=True)

    def need(self, option: str) -> str:
        """Return an option that names a file of the project; it must be there.

        Raises
        ------
        Misuse
            The option is empty or the file is missing.
        """
        name = self.options.text(option)
        if name in ("", "None"):
            raise Misuse(f"option {option} of {self.options.job} is empty: it must name a file")
        if not (self.project / name).exists():
            raise Misuse(f"{name}, option {option} of {self.options.job}, does not exist")
        return name

    def refuse_options(self, reasons: dict[str, str]) -> None:
        """Fail when an option asks for what this program does not do.

        Parameters
        ----------
        reasons
            Option -> what is not done, for options that are switched on or filled in.
        """
        for option, what in reasons.items():
            value = self.options.text(option)
            if value not in ("", "None", "No"):
                raise Misuse(
                    f"option {option} of {self.options.job} is {value!r}: {what} is not done by "
                    "the native executor; leave it empty, or run the job with the executor relion"
                )

    def extra_arguments(self, known: dict[str, str]) -> dict[str, str]:
        """Return the additional arguments of the job, name -> value; see `Options.arguments`."""
        return self.options.arguments(known)


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
