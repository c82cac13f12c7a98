"""Worker processes for the items of one job.

They are forked from a server process that has loaded the algorithms once: the second worker costs
nothing, and one that dies takes only its own item with it. A job has a few items and one caller,
so this is all that it needs of a scheduler; the services use Dask.
"""

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Self

import msgspec

from services.jobs.job import Failed, Stop
from services.kit.errors import Code
from services.kit.process import die_with_parent, show_name
from services.kit.work import Reply, Task, execute, prepare_worker

MAX_DEATHS = 3  # of workers with the same item, before the item is refused
POLL_S = 0.2  # how soon a request to stop is noticed

# Set before the server starts. One arithmetic thread a worker, as under Dask; and freed memory is
# kept for the next item: fetching the pages again takes more than half of motion correction.
# Without the allocator's lists of small pieces what is freed grows together again: they kept large
# arrays, which torch has aligned, out of the places of their equals.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
}
PRELOAD = ["services.jobs.pool", "services.prep.tasks", "services.proc.tasks"]


class _Answer(msgspec.Struct, frozen=True):
    """What a worker sends back: an encoded Reply, or what kept it from having one."""

    reply: bytes = b""
    problem: str = ""
    everybodys: bool = False  # disk or memory: no item can be done


class _Worker:
    """One process and the item it works on."""

    def __init__(self, project: Path, token: int):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self.connection, theirs = context.Pipe()
        self.process: ForkServerProcess = context.Process(
            target=serve, args=(theirs, str(project), token), daemon=True
        )
        self.process.start()
        theirs.close()
        self.task: Task | None = None

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.connection.close()
        self.process.terminate()
        self.process.join()
        self.process.close()


class Pool:
    """The workers of one job; a context manager.

    Parameters
    ----------
    project
        Root of the RELION project.
    size
        How many items are worked on at the same time.
    token
        Names the private folders of this job's items.
    """

    def __init__(self, project: Path, size: int, token: int):
        self._project, self._size, self._token = project, size, token
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        os.environ.update(ENVIRONMENT)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def run(self, tasks: Iterable[Task], stop: Stop) -> Iterator[tuple[Task, Reply]]:
        """Yield each item with its result or refusal, as they end.

        When told to stop, no further item is begun; those begun are waited for, for a while.

        Raises
        ------
        Failed
            No item can be done: no memory, no room on the disk.
        """
        line, deaths = deque(tasks), Counter[str]()
        while not stop.at_once():
            if not stop.asked():
                self._begin(line)
            busy = [worker for worker in self._workers if worker.task is not None]
            if not busy:
                return
            for connection in wait([worker.connection for worker in busy], POLL_S):
                worker = next(w for w in busy if w.connection is connection)
                task, answer = self._answer_of(worker)
                if answer is None:
                    deaths[task.key] += 1
                    if deaths[task.key] < MAX_DEATHS:
                        line.append(task)
                        continue
                yield task, _reply(task, answer)

    def _begin(self, line: deque[Task]) -> None:
        free = [worker for worker in self._workers if worker.task is None]
        while line and (free or len(self._workers) < self._size):
            if not free:
                free.append(_Worker(self._project, self._token))
                self._workers.append(free[0])
            worker = free.pop()
            worker.task = line.popleft()
            try:
                worker.connection.send_bytes(msgspec.msgpack.encode(worker.task))
            except OSError:
                pass  # it has died; reading from it tells

    def _answer_of(self, worker: _Worker) -> tuple[Task, _Answer | None]:
        """Return what a worker answers, None when it has died."""
        task = worker.task
        assert task is not None  # noqa: S101
        try:
            data = worker.connection.recv_bytes()
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.end()
            return task, None
        worker.task = None
        return task, msgspec.msgpack.decode(data, type=_Answer)


def _reply(task: Task, answer: _Answer | None) -> Reply:
    if answer is None:
        detail = f"the process that worked on it died {MAX_DEATHS} times"
        return Reply(code=Code.POISON, detail=detail)
    if answer.everybodys:
        raise Failed(f"{task.movie}: {answer.problem}")
    if answer.problem:
        return Reply(code=Code.POISON, detail=answer.problem)
    return msgspec.msgpack.decode(answer.reply, type=Reply)


def serve(connection: Connection, project: str, token: int) -> None:
    """Do what comes through the pipe; the life of a worker."""
    die_with_parent(os.getppid())
    show_name("coldstream-work")
    # Ctrl-C goes to all processes of a terminal; the job decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    prepare_worker()
    while True:
        try:
            data = connection.recv_bytes()
            connection.send_bytes(msgspec.msgpack.encode(_answer(project, data, token)))
        except (EOFError, OSError):
            return  # the job has ended


def _answer(project: str, data: bytes, token: int) -> _Answer:
    try:
        return _Answer(reply=execute(project, data, token))
    except (OSError, MemoryError) as error:
        return _Answer(problem=f"{error}" or type(error).__name__, everybodys=True)
    except Exception as error:  # noqa: BLE001
        # A bug that this item brings out must not keep the others from being done.
        return _Answer(problem=f"{type(error).__name__}: {error}")
