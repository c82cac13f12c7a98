"""Work spread over threads whose number never shows in the result.

Every piece of work is one item with its own output, done by one thread from beginning to end, and
torch's own threads are off meanwhile: sums are in the same order on one core and on sixty-four.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Threads:
    """A number of threads; use `working` to make one.

    Parameters
    ----------
    count
        How many; 1 does everything in the caller's thread.
    executor
        Where the work goes; None with one thread.
    """

    def __init__(self, count: int, executor: ThreadPoolExecutor | None):
        self.count, self._executor = count, executor

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return the results of all items, in their order."""
        if self._executor is None:
            return [function(item) for item in items]
        return list(self._executor.map(function, items))

    def start(self, function: Callable[..., Result], *arguments: Any) -> "Future[Result]":
        """Begin one piece of work; with one thread it is done at once."""
        if self._executor is not None:
            return self._executor.submit(function, *arguments)
        done: Future[Result] = Future()
        done.set_result(function(*arguments))
        return done


@contextmanager
def working(count: int | None) -> Iterator[Threads]:
    """Give threads for the time of a calculation; None takes as many as torch has."""
    before = torch.get_num_threads()
    count = max(1, before if count is None else count)
    torch.set_num_threads(1)
    try:
        if count == 1:
            yield Threads(1, None)
            return
        with ThreadPoolExecutor(count, "motion") as executor:
            yield Threads(count, executor)
    finally:
        torch.set_num_threads(before)
