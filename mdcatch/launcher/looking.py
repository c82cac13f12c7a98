"""Looking something up again and again, in a program of its own, without ever waiting for it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from mdcatch.launch.look import Query
from services.kit.errors import Misuse


class News(NamedTuple):
    """What a look has brought: a document, or why there is none."""

    document: Any = None
    problem: str = ""


class Lookup:
    """A look that is repeated, and made anew when what it is about changes.

    Parameters
    ----------
    start
        Begins a look, or raises Misuse.
    every_s
        Between two looks.
    """

    def __init__(self, start: Callable[[], Query], every_s: float):
        self._start, self._every_s = start, every_s
        self._query: Query | None = None
        self._pause_s: float | None = None  # asked for, after so long without another wish
        self._at: float | None = None
        self.is_current = False  # the last look was begun after the last wish

    def ask(self, pause_s: float = 0.0) -> None:
        """Wish for a look, after a pause in which nobody wishes again."""
        self._pause_s, self._at, self.is_current = pause_s, None, False

    def tick(self, now: float) -> News | None:
        """Begin a look if one is due; return what one has brought, None while there is nothing.

        Parameters
        ----------
        now
            Monotonic time, s.
        """
        if self._pause_s is not None:
            self.close()  # it answers what nobody asks any more
            self._pause_s, self._at = None, now + self._pause_s
        if self._query is None:
            if self._at is None or now < self._at:
                return None
            try:
                self._query = self._start()
            except Misuse as error:
                return self._done(now, News(problem=str(error)))
        try:
            document = self._query.poll()
        except Misuse as error:
            return self._done(now, News(problem=str(error)))
        return None if document is None else self._done(now, News(document))

    def close(self) -> None:
        """End a look that is being made."""
        if self._query is not None:
            self._query.close()
            self._query = None

    def _done(self, now: float, news: News) -> News:
        self.close()
        self._at, self.is_current = now + self._every_s, True
        return news
