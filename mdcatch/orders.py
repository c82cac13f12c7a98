"""What people decide about exposures, taken from a folder of commands while the session runs.

A command is durable before its sender goes on. It is answered only when the decision stands in the
journal: killed before that, the daemon finds it again, and telling it twice changes nothing.

Source: acquisition.md section 8; architecture.md section 3.
"""

import threading
from collections.abc import Callable
from typing import Any

import msgspec

from mdcatch.ledger import State, Status
from mdcatch.patience import Watching
from mdcatch.stimuli import Override, Stimulus
from services.kit.commands import Command, Inbox, Mailbox, Reply
from services.kit.errors import Misuse
from services.kit.paths import Layout

KIND = "movie.override"
LOOK_S = 1.0  # between looks at the folder: one listing of an empty folder


def mailbox(layout: Layout) -> Mailbox:
    """Return where the commands for a project's mdcatch are put."""
    return Mailbox(layout.hidden / "orders")


class Orders:
    """A source, and the commands that people send to it.

    Parameters
    ----------
    source
        Gets the decisions with its next poll, so that nothing changes under a poll that hangs.
    box
        Where the commands are.
    """

    def __init__(self, source: Watching, box: Mailbox):
        self._source, self._box = source, box
        self._inbox = Inbox(box, self._answer)
        self._told = ""  # the command that is under way
        self._woken = threading.Event()
        self._due = float("-inf")
        self._state = State()

    def open(self, wake: Callable[[], None]) -> None:
        """Start; `wake` may be called from another thread.

        Raises
        ------
        Misuse
            Another process does the commands of this project.
        """

        def woken() -> None:
            self._woken.set()
            wake()

        self._inbox.__enter__()
        self._source.open(woken)

    def close(self) -> None:
        """Stop; commands that come now wait for the next start."""
        self._source.close()
        self._inbox.__exit__()

    def tell(self, order: Stimulus) -> None:
        """Take a decision that came another way."""
        self._source.tell(order)

    def poll(self, now: float, state: Any) -> tuple[list[Stimulus], float]:
        """Return what is new and when to be asked again.

        Parameters
        ----------
        now
            Monotonic time, s.
        state
            The ledger.
        """
        self._state = state
        for command_id in self._box.waiting():
            if not self._take(command_id):
                break  # one after the other: the next may take it back
        stimuli: list[Stimulus] = []
        if now >= self._due or self._woken.is_set():
            self._woken.clear()
            stimuli, self._due = self._source.poll(now, state)
        return stimuli, min(self._due, now + LOOK_S)

    def _take(self, command_id: str) -> bool:
        """Tell a decision, or answer one that stands; return whether it is answered."""
        command = self._box.command(command_id)
        try:
            order = None if command is None else order_of(command, self._state)
        except Misuse:
            order = None  # the answer says why
        if order is None or _is_in_force(order, self._state):
            self._inbox.do(command_id)
            return True
        if command_id != self._told:
            self._told = command_id
            self._source.tell(order)
        return False

    def _answer(self, command: Command, _: int) -> Reply:
        order = order_of(command, self._state)
        entry = self._state.exposures[order.movie]
        facts = {"movie": order.movie, "status": str(entry.status)}
        if entry.status is Status.SETTLED:
            return Reply(f"noted; {order.movie} is published already, as {entry.path}", facts)
        return Reply(f"decided: {order.movie}", facts)


def order_of(command: Command, state: State) -> Override:
    """Return what a command asks for.

    Raises
    ------
    Misuse
        It is another command, or names an exposure that is not known.
    """
    if command.kind != KIND:
        raise Misuse(f"not done: {command.kind} is no command of mdcatch; {KIND} is")
    try:
        order = msgspec.convert(command.arguments, Override)
    except msgspec.ValidationError as error:
        raise Misuse(f"not done: {error}") from None
    if order.movie not in state.exposures:
        raise Misuse(f"not done: no exposure {order.movie} is known; see `coldstream status`")
    return order


def _is_in_force(order: Override, state: State) -> bool:
    found = state.overrides.get(order.movie)
    return found is not None and all(
        value is None or getattr(found, name) == value
        for name, value in msgspec.structs.asdict(order).items()
    )
