"""Ctrl-C and SIGTERM as a request to stop in good order."""

import signal
from collections.abc import Callable
from types import FrameType


class Interrupts:
    """While it lasts, Ctrl-C and SIGTERM ask for an abort; a second Ctrl-C ends at once."""

    def __init__(self, ask: Callable[[], object]):
        self._ask, self._former = ask, {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._former[number] = signal.signal(number, self._handle)
            except ValueError:  # not the main thread: its owner handles signals
                return

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._ask()
        signal.signal(signal.SIGINT, signal.default_int_handler)
