"""Commands to a daemon: a folder of files, so that none is lost and none is done twice.

A sender puts a command into `new/` in one step, and it is on disk before `send` returns. The
daemon does it, writes command and answer to `done/` in one step, and only then takes it out of
`new/`. Killed at any moment, it finds the command again; a command whose answer stands is never
begun again, and sending an id again changes nothing: the first answer stays.

What a command does has to be repeatable by its id: killed between the deed and the answer, the
daemon does it again, and must find what it did. `done/` is kept, as the record of all commands.

Only processes of one person on one host use the folder: it is open to nobody else (mode 0700).
Source: architecture.md section 3, reliability.md section 2.4 (6).
"""

import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple, Self

import msgspec
from msgspec import Meta

from services.kit.errors import Fatal, Misuse, Refused
from services.kit.faults import crash_point
from services.kit.paths import atomic_write, sync_folder

# A command that has ended the daemon so often would do it again.
MAX_ATTEMPTS = 5
# What a person can ask for fits many times into this; more is no command of ours.
MAX_BYTES = 1 << 20
# A daemon takes up its lock within this time although clients look at it.
LOCK_PATIENCE_S = 2.0
# What a killed sender has left in `tmp/` is removed after this time.
STALE_S = 86_400.0
POINTS = ("command-counted", "command-done", "command-answered")

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be done: kind in the imperative (`session.open`), arguments by name."""

    id: str
    kind: Annotated[str, Meta(min_length=1, max_length=100)]
    arguments: dict[str, Any] = {}
    sent_at: float = 0.0  # Unix time, s; information, and the order of doing


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a command: one sentence for a person, facts for a program."""

    id: str
    done: bool
    text: str
    facts: dict[str, Any] = {}
    at: float  # Unix time, s


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """A file of `done/`; the command is None where the file in `new/` was none."""

    command: Command | None
    answer: Answer


class Reply(NamedTuple):
    """What a handler says: one sentence for a person, facts for a program."""

    text: str
    facts: dict[str, Any] = {}


# Does a command, or raises Misuse or Refused; the number counts the attempts at it from 1.
Handler = Callable[[Command, int], Reply]


def new_id(now: float | None = None) -> str:
    """Return an id that no other command has; ids sort by time."""
    millis = int((time.time() if now is None else now) * 1000)
    return f"{millis:014d}-{secrets.token_hex(6)}"


class Mailbox:
    """The folder, as senders see it.

    Parameters
    ----------
    folder
        Made if missing, with mode 0700.

    Raises
    ------
    Misuse
        Others could read or write there.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.new, self.done = self.folder / "new", self.folder / "done"
        self.begun, self.tmp = self.folder / "begun", self.folder / "tmp"
        self.lock_file = self.folder / "daemon.lock"
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(exist_ok=True, mode=0o700)
        _refuse_shared(self.folder)
        for inner in (self.new, self.done, self.begun, self.tmp):
            inner.mkdir(exist_ok=True, mode=0o700)
        sync_folder(self.folder)

    def send(self, command: Command) -> None:
        """Put a command in, durably; one whose id was sent before changes nothing.

        Raises
        ------
        Misuse
            The id cannot be a file's name, or the command cannot be written down.
        """
        path = self.new / f"{_checked(command.id)}.json"
        if self.exchange(command.id) is not None:
            return
        try:
            content = msgspec.json.format(msgspec.json.encode(command))
        except (TypeError, ValueError) as error:
            raise Misuse(f"command {command.kind}: {error}") from error
        if len(content) > MAX_BYTES:
            raise Misuse(f"command {command.kind}: {len(content)} bytes are more than {MAX_BYTES}")
        temporary = self.tmp / secrets.token_hex(12)
        try:
            _write(temporary, content)
            # Unlike a rename, a link never takes the place of a command that is there.
            with suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(self.new)

    def answer(self, command_id: str) -> Answer | None:
        """Return the answer to a command, None while there is none."""
        found = self.exchange(command_id)
        return None if found is None else found.answer

    def wait(self, command_id: str, timeout_s: float, poll_s: float = 0.05) -> Answer | None:
        """Return the answer to a command as soon as it is there, None if it is late."""
        deadline = time.monotonic() + timeout_s
        while (found := self.answer(command_id)) is None and time.monotonic() < deadline:
            time.sleep(poll_s)
        return found

    def waiting(self) -> list[str]:
        """Return the ids of the commands without an answer, in the order of their sending."""
        found = []
        for path in self.new.glob("*.json"):
            if _ID.fullmatch(path.stem) and not (self.done / path.name).exists():
                command = self.command(path.stem)
                found.append((0.0 if command is None else command.sent_at, path.stem))
        return [command_id for _, command_id in sorted(found)]

    def is_begun(self, command_id: str) -> bool:
        """Say whether the daemon has begun with a command that has no answer yet."""
        return (self.begun / _checked(command_id)).exists()

    def command(self, command_id: str) -> Command | None:
        """Return a waiting command, None if it is not there or is none."""
        path = self.new / f"{_checked(command_id)}.json"
        try:
            with open(path, "rb") as file:
                content = file.read(MAX_BYTES + 1)
            command = msgspec.json.decode(content, type=Command)
        except (OSError, msgspec.MsgspecError):
            return None
        return command if command.id == command_id else None

    def exchange(self, command_id: str) -> Exchange | None:
        """Return a command with its answer, None while there is no answer.

        Raises
        ------
        Fatal
            The file of the answer is damaged: without it the command would be done again.
        """
        path = self.done / f"{_checked(command_id)}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Exchange)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise Fatal(f"{path} is damaged ({error}): restore it, or move it away") from error

    def exchanges(self) -> list[Exchange]:
        """Return all answered commands, the oldest first."""
        stems = (path.stem for path in self.done.glob("*.json"))
        found = (self.exchange(stem) for stem in stems if _ID.fullmatch(stem))
        return sorted((one for one in found if one is not None), key=lambda one: one.answer.at)

    def served_by(self) -> int | None:
        """Return the process that takes the commands at this moment, None if none does."""
        try:
            with open(self.lock_file, "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    text = file.read(20)
                    return int(text) if text.isdigit() else 0
        except FileNotFoundError:
            pass
        return None


class Inbox:
    """The folder, as the one daemon sees it that does the commands; use it in a `with`.

    Parameters
    ----------
    mailbox
        The folder.
    handle
        Does a command, repeatably by its id.

    Raises
    ------
    Misuse
        Another process does the commands of this folder; at `with`.
    """

    def __init__(self, mailbox: Mailbox, handle: Handler):
        self.mailbox, self._handle = mailbox, handle
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Self:
        lock = open(self.mailbox.lock_file, "a+b")
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    lock.close()
                    raise Misuse(
                        f"process {self.mailbox.served_by() or 'of somebody'} does the commands of "
                        f"{self.mailbox.folder}: stop it first"
                    ) from None
                time.sleep(0.02)
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        self._lock = lock
        self._sweep()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def turn(self) -> list[Answer]:
        """Do all commands that wait; return their answers."""
        return [self.do(command_id) for command_id in self.mailbox.waiting()]

    def do(self, command_id: str) -> Answer:
        """Do one command that waits, unless it is answered; return its answer."""
        box = self.mailbox
        found = box.exchange(command_id)
        if found is None:
            command = box.command(command_id)
            answer = self._answer(command_id, command)
            crash_point("command-done")
            content = msgspec.json.encode(Exchange(command=command, answer=answer))
            atomic_write(box.done / f"{command_id}.json", msgspec.json.format(content))
        else:
            answer = found.answer
        crash_point("command-answered")
        (box.new / f"{command_id}.json").unlink(missing_ok=True)
        (box.begun / command_id).unlink(missing_ok=True)
        return answer

    def forget(self, command_id: str) -> None:
        """Take a command out that is not answered and whose sender has changed their mind."""
        (self.mailbox.new / f"{_checked(command_id)}.json").unlink(missing_ok=True)
        (self.mailbox.begun / command_id).unlink(missing_ok=True)
        sync_folder(self.mailbox.new)

    def _answer(self, command_id: str, command: Command | None) -> Answer:
        if command is None:
            text = "not done: the file is no command of this version"
            return Answer(id=command_id, done=False, text=text, at=time.time())
        attempt = self._count(command_id)
        crash_point("command-counted")
        if attempt > MAX_ATTEMPTS:
            text = f"not done: it has ended the daemon {MAX_ATTEMPTS} times; see the daemon's log"
            return Answer(id=command_id, done=False, text=text, at=time.time())
        try:
            reply, done = self._handle(command, attempt), True
        except (Misuse, Refused) as error:
            reply, done = Reply(str(error)), False
        return Answer(id=command_id, done=done, text=reply.text, facts=reply.facts, at=time.time())

    def _count(self, command_id: str) -> int:
        """Note durably that an attempt begins; return which it is."""
        path = self.mailbox.begun / command_id
        try:
            number = int(path.read_text()) + 1
        except (FileNotFoundError, ValueError):
            number = 1
        atomic_write(path, str(number))
        return number

    def _sweep(self) -> None:
        """Finish what a killed process has left: answered commands, stale temporary files."""
        box = self.mailbox
        for path in box.new.glob("*.json"):
            if (box.done / path.name).exists():
                path.unlink(missing_ok=True)
                (box.begun / path.stem).unlink(missing_ok=True)
        for path in (*box.tmp.iterdir(), *box.done.glob(".*.tmp"), *box.begun.glob(".*.tmp")):
            with suppress(FileNotFoundError):
                if abs(time.time() - path.stat().st_mtime) > STALE_S:
                    path.unlink()


def _checked(command_id: str) -> str:
    if not _ID.fullmatch(command_id):
        raise Misuse(
            f"command id {command_id!r}: use 1 to 64 letters, digits, '_', '.' and '-', "
            "not first '.' or '-'"
        )
    return command_id


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _refuse_shared(folder: Path) -> None:
    status = folder.lstat()
    is_open = status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or is_open:
        raise Misuse(
            f"{folder} has to be a folder of yours that nobody else can open: chmod 700 {folder}, "
            "or choose another one"
        )
