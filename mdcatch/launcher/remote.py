"""The launcher's side of the commands: sent once, never lost, answered when a daemon comes.

A command is on disk before `send` returns; whether a daemon runs, ends or starts does not matter.
"""

import time
from typing import Any, NamedTuple

from mdcatch.launch.request import KIND
from services.kit.commands import Answer, Command, Mailbox, new_id


class Line(NamedTuple):
    """What the connection looks like at this moment."""

    served: bool  # a daemon does the commands
    waiting: int  # commands without an answer
    text: str


class Remote:
    """Sends commands and finds their answers.

    Parameters
    ----------
    mailbox
        Where the commands go.
    """

    def __init__(self, mailbox: Mailbox):
        self.mailbox = mailbox
        # Sent by an earlier window and not done yet: they are looked after all the same.
        self.pending = mailbox.waiting()

    def send(self, kind: str, arguments: dict[str, Any]) -> str:
        """Send a command; return its id. When this returns, it is on disk.

        Raises
        ------
        Misuse, OSError
            It could not be written down, so nothing was sent.
        """
        command = Command(id=new_id(), kind=kind, arguments=arguments, sent_at=time.time())
        self.mailbox.send(command)
        self.pending.append(command.id)
        return command.id

    def answers(self) -> list[Answer]:
        """Return the answers that have come since the last call."""
        found = [answer for one in self.pending if (answer := self.mailbox.answer(one))]
        done = {answer.id for answer in found}
        self.pending = [one for one in self.pending if one not in done]
        return found

    def opened(self) -> dict[str, str]:
        """Return the projects of the sessions that were opened by command, by their folders."""
        found = {}
        for exchange in self.mailbox.exchanges():
            command, answer = exchange.command, exchange.answer
            if answer.done and command is not None and command.kind == KIND:
                found[str(command.arguments.get("raw"))] = str(answer.facts.get("project", ""))
        return found

    def line(self) -> Line:
        """Return the state of the connection."""
        served = self.mailbox.served_by() is not None
        waiting = len(self.pending)
        commands = f"{waiting} command{'s' if waiting > 1 else ''}"
        if served and not waiting:
            return Line(True, 0, "connected")
        if served:
            begun = any(self.mailbox.is_begun(one) for one in self.pending)
            return Line(True, waiting, f"{commands} {'being done' if begun else 'sent'} ...")
        if waiting:
            return Line(
                False, waiting, f"reconnecting ... {commands} kept, done as soon as a daemon runs"
            )
        return Line(False, 0, "reconnecting ... no daemon runs (coldstream session serve)")
