"""A progress bar for run.out: plain text, carriage returns, few lines."""

import sys
import time

WIDTH = 30
EVERY_S = 1.0


class Progress:
    """Tells how far a job is.

    Parameters
    ----------
    total
        Number of items.
    noun
        What they are, in plural.
    """

    def __init__(self, total: int, noun: str):
        self._total, self._noun = total, noun
        self._start = time.monotonic()
        self._shown = -EVERY_S
        self._open = False
        self.done = 0

    def step(self) -> None:
        """Count one more item; the bar is drawn once a second at most."""
        self.advance(self.done + 1)

    def advance(self, done: int) -> None:
        """Set how many items are done."""
        self.done = done
        elapsed = time.monotonic() - self._start
        if elapsed - self._shown >= EVERY_S or self.done == self._total:
            self._shown, self._open = elapsed, True
            left_s = elapsed / self.done * (self._total - self.done)
            filled = "#" * (WIDTH * self.done // self._total)
            sys.stdout.write(
                f"\r {self.done:6d} of {self._total} {self._noun} [{filled:.<{WIDTH}}] "
                f"{_clock(elapsed)}, {_clock(left_s)} left "
            )
            sys.stdout.flush()

    def end(self) -> float:
        """End the bar's line, so that other lines can follow; return the seconds so far."""
        if self._open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._open = False
        return time.monotonic() - self._start


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
        if minutes > 59
        else f"{minutes}:{rest:02d}"
    )
