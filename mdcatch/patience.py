"""A source that may hang, kept apart from the loop that must not.

A call on a dead share does not return, and nothing can end it. So the polls run on a thread of
their own; the host waits a moment for each, goes on without it if it takes longer, and says after
a while that the folders do not answer.

Source: reliability.md section 3 (F10).
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

from mdcatch.stimuli import RootFound, RootLost, Stimulus

PROMPT_S = 0.2  # how long the host waits for a poll; most take a thousandth of that
HANG_S = 20.0  # a poll that takes longer hangs: its budget is a quarter of a second
END_S = 2.0  # how long the end of the thread is waited for


class Watching(Protocol):
    """What is kept apart: a source of the host."""

    def open(self, wake: Callable[[], None]) -> None: ...  # noqa: D102
    def poll(self, now: float, state: Any) -> tuple[list[Stimulus], float]: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102
    def tell(self, order: Stimulus) -> None: ...  # noqa: D102


class Patient:
    """Asks a source on another thread.

    Between two answers nobody else changes the state that is lent to the source: mdcatch decides
    on nothing but what its source says.

    Parameters
    ----------
    source
        What may hang.
    prompt_s, hang_s
        See `PROMPT_S` and `HANG_S`.
    """

    def __init__(self, source: Watching, prompt_s: float = PROMPT_S, hang_s: float = HANG_S):
        self._source, self._prompt_s, self._hang_s = source, prompt_s, hang_s
        self._asked: SimpleQueue[tuple[float, Any] | None] = SimpleQueue()
        self._answer: tuple[list[Stimulus], float] | BaseException | None = None
        self._is_answered = threading.Event()
        self._thread: threading.Thread | None = None
        self._since: float | None = None  # when the poll under way was asked for
        self._hangs = False
        self._is_late = False
        self._wake: Callable[[], None] = lambda: None

    def open(self, wake: Callable[[], None]) -> None:
        """Start; `wake` may be called from another thread."""
        self._wake = wake
        self._source.open(wake)

    def tell(self, order: Stimulus) -> None:
        """Take what a person decided; safe from any thread."""
        self._source.tell(order)

    def poll(self, now: float, state: Any) -> tuple[list[Stimulus], float]:
        """Return what is new and when to be asked again; nothing while a poll is under way.

        Parameters
        ----------
        now
            Monotonic time, s.
        state
            The ledger.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="mdcatch-source", daemon=True)
            self._thread.start()
        if self._since is None:
            self._since = now
            self._is_answered.clear()
            self._asked.put((now, state))
        if not self._is_answered.wait(self._prompt_s):
            return self._waiting(now)
        back: list[Stimulus] = [RootFound()] if self._hangs else []
        self._since, self._hangs, self._is_late = None, False, False
        answer, self._answer = self._answer, None
        if isinstance(answer, BaseException):
            raise answer
        stimuli, due = answer or ([], now)
        return back + stimuli, due

    def close(self) -> None:
        """Stop; a poll that hangs is left behind."""
        if self._thread is not None:
            self._asked.put(None)
            self._thread.join(END_S)
            hangs, self._thread = self._thread.is_alive(), None
            if hangs:
                return  # it has the parser, which ends with this process
        self._source.close()

    def _waiting(self, now: float) -> tuple[list[Stimulus], float]:
        self._is_late = True
        since = self._since if self._since is not None else now
        if self._hangs or now - since < self._hang_s:
            return [], now + self._prompt_s
        self._hangs = True
        detail = f"the watched folders have not answered for {now - since:.0f} s"
        return [RootLost(detail=detail)], now + self._prompt_s

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            try:
                self._answer = self._source.poll(*asked)
            except BaseException as error:  # noqa: BLE001  (it is the host's to handle)
                self._answer = error
            self._is_answered.set()
            if self._is_late:
                self._wake()
