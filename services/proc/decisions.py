"""What people decide about micrographs, taken from a folder of commands while the session runs.

Source: preprocessing.md section 6.2, architecture.md section 3.
"""

import msgspec

from services.kit.commands import Command, Mailbox, Reply
from services.kit.errors import Misuse
from services.kit.paths import Layout
from services.kit.rulings import Rulings
from services.proc.state import ProcState

KIND = "micrograph.override"


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


class Decisions(Rulings):
    """The source of proc: commands become stimuli, one after the other.

    Parameters
    ----------
    box
        Where the commands are.
    """

    def __init__(self, box: Mailbox):
        super().__init__(box, ruling_of, _stands, _said)


def _said(ruling: Ruling) -> Reply:
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
