"""What people decide while a session runs: a folder of commands as the source of a service.

A command is durable before its sender goes on; it is answered only when the decision stands in the
journal. Killed before that, the service finds it again, and telling it twice changes nothing: a
decision carries the id of its command. Source: architecture.md section 3, decision 8.
"""

from collections.abc import Callable
from typing import Any

from services.kit.commands import Command, Inbox, Mailbox, Reply
from services.kit.errors import Misuse

LOOK_S = 1.0  # between looks at the folder: one listing of an empty folder


class Rulings:
    """A source whose stimuli are decisions, one after the other.

    Parameters
    ----------
    box
        Where the commands are.
    read
        Returns what a command decides, given the state; raises Misuse when it cannot be done.
    stands
        Says whether a decision is in the state already.
    say
        Returns the answer to a decision that stands.
    """

    def __init__(
        self,
        box: Mailbox,
        read: Callable[[Command, Any], Any],
        stands: Callable[[Any, Any], bool],
        say: Callable[[Any], Reply],
    ):
        self._box, self._read, self._stands, self._say = box, read, stands, say
        self._inbox = Inbox(box, self._answer)
        self._state: Any = None

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
                ruling = None if command is None else self._read(command, state)
            except Misuse:
                ruling = None  # the answer says why
            if ruling is not None and not self._stands(ruling, state):
                # The next command may take it back: it waits until this one is answered.
                return [ruling], now
            self._inbox.do(command_id)
        return [], now + LOOK_S

    def _answer(self, command: Command, _: int) -> Reply:
        return self._say(self._read(command, self._state))
