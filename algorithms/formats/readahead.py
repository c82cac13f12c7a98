"""Frames made by threads while the frames before them are being used, in order, a few at a time."""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

# Of frames that are made and not yet used: enough for eight threads and the largest counting
# camera, little beside a movie.
AHEAD_BYTES = 256 * 2**20


class Job(NamedTuple):
    """One frame to be made: parts that any threads do, and what joins their answers."""

    parts: list[Callable[[], Any]]
    join: Callable[[list[Any]], np.ndarray]


def usual_threads() -> int:
    """Return how many threads torch may use here, or one: workers are processes side by side."""
    torch = sys.modules.get("torch")
    return 1 if torch is None else int(torch.get_num_threads())


def depth_and_parts(threads: int, frame_bytes: int) -> tuple[int, int]:
    """Return how many frames to have at work at once, and into how many parts to divide each."""
    depth = max(2, min(threads + 1, AHEAD_BYTES // max(1, frame_bytes)))
    return depth, -(-threads // (depth - 1))


def run(
    indices: Iterable[int], make: Callable[[int], Job], threads: int, depth: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, frame) in order; what is made does not depend on the number of threads.

    Parameters
    ----------
    indices
        Of the frames.
    make
        Returns the job of a frame; called from the caller's thread.
    threads
        One is the caller's own.
    depth
        Frames at work or made and not yet taken, at most.
    """
    if threads == 1:
        for index in indices:
            job = make(index)
            yield index, job.join([part() for part in job.parts])
        return
    waiting: deque[tuple[int, Job, list[Future[Any]]]] = deque()

    def taken() -> tuple[int, np.ndarray]:
        index, job, parts = waiting.popleft()
        return index, job.join([part.result() for part in parts])

    with ThreadPoolExecutor(threads, thread_name_prefix="frames") as pool:
        try:
            for index in indices:
                job = make(index)
                waiting.append((index, job, [pool.submit(part) for part in job.parts]))
                if len(waiting) == depth:
                    yield taken()
            while waiting:
                yield taken()
        finally:
            for _, _, parts in waiting:
                for part in parts:
                    part.cancel()
