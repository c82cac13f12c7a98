"""What people decide about micrographs, taken from a folder of commands while the session runs.

A command is durable before its sender goes on; it is answered only when the decision stands in the
journal. Killed before that, proc finds it again, and telling it twice changes nothing: a decision
carries the id of its command. Source: preprocessing.md section 6.2, architecture.md section 3.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from services.kit.commands import Command, Inbox, Mailbox, Reply
from services.kit.errors import Misuse
from services.kit.paths import Layout
from services.proc.state import ProcState

KIND = "micrograph.override"
LOOK_S = 1.0  # between looks at the folder: one listing of an empty folder


class Ruling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stimulus: a person keeps or rejects a micrograph, or leaves it to the selection (None)."""

    movie: str
    keep: bool | None
    reason: str = ""
    user: str = ""
    command: str = ""


class _Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of a command; `name` is a movie's identity or a part of it."""

    name: str
    keep: bool | None
    reason: str = ""
    user: str = ""


def mailbox(layout: Layout) -> Mailbox:
    """Return where the commands for a project's proc are put."""
    return Mailbox(layout.hidden / "decisions")


class Decisions:
    """The source of proc: commands become stimuli, one after the other.

    Parameters
    ----------
    box
        Where the commands are.
    """

    def __init__(self, box: Mailbox):
        self._box = box
        self._inbox = Inbox(box, self._answer)
        self._state: ProcState | None = None

    def open(self, wake: Callable[[], None]) -> None:
        """Start.

        Raises
        ------
        Misuse
            Another process does the commands of this project.
        """
        self._inbox.__enter__()

    def close(self) -> None:
        """Stop; commands that come now wait for the next start."""
        self._inbox.__exit__()

    def poll(self, now: float, state: Any) -> tuple[list[Any], float]:
        """Return the decision that is next, and when to be asked again."""
        self._state = state
        for command_id in self._box.waiting():
            command = self._box.command(command_id)
            try:
                ruling = None if command is None else ruling_of(command, state)
            except Misuse:
                ruling = None  # the answer says why
            if ruling is not None and not _stands(ruling, state):
                # The next command may take it back: it waits until this one is answered.
                return [ruling], now
            self._inbox.do(command_id)
        return [], now + LOOK_S

    def _answer(self, command: Command, _: int) -> Reply:
        assert self._state is not None  # noqa: S101 - `poll` has set it
        ruling = ruling_of(command, self._state)
        words = {True: "kept", False: "rejected", None: "left to the selection"}[ruling.keep]
        return Reply(f"{ruling.movie} is {words}", {"movie": ruling.movie, "keep": ruling.keep})


def _stands(ruling: Ruling, state: ProcState) -> bool:
    found = state.overrides.get(ruling.movie)
    return found is not None and found.command == ruling.command


def ruling_of(command: Command, state: ProcState) -> Ruling:
    """Return what a command decides.

    Raises
    ------
    Misuse
        It is another command, or does not name exactly one micrograph.
    """
    if command.kind != KIND:
        raise Misuse(f"not done: {command.kind} is no command of proc; {KIND} is")
    try:
        asked = msgspec.convert(command.arguments, _Asked)
    except msgspec.ValidationError as error:
        raise Misuse(f"not done: {error}") from None
    found = [asked.name] if asked.name in state.imported else _matching(asked.name, state)
    if len(found) != 1:
        some = ", ".join(found[:5]) + (" ..." if len(found) > 5 else "")
        which = f"{len(found)} micrographs match: {some}" if found else "none is known by that name"
        raise Misuse(f"not done: {asked.name!r} must name one micrograph; {which}")
    return Ruling(
        movie=found[0],
        keep=asked.keep,
        reason=asked.reason[:1000],
        user=asked.user[:100],
        command=command.id,
    )


def _matching(name: str, state: ProcState) -> list[str]:
    if not name:
        return []
    known = state.imported.items()
    return [movie for movie, ctf in known if name in movie or name == ctf.micrograph]
