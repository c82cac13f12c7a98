"""Heavy work goes to Dask; attempts, fencing tokens and limits stay here.

Before a task is submitted its attempt is counted in the journal, so a task that kills its worker,
or us, is known to have been begun. A worker that dies or a task that raises costs a failure; after
MAX_FAILURES the item is refused as POISON with its story. An attempt cut short because the service
or the cluster stopped is no failure of the task, and is limited separately.
Source: reliability.md section 2.5, architecture.md section 6.
"""

import os
import queue
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
from distributed import Client, Future
from distributed.scheduler import KilledWorker

from services.kit.errors import Fatal
from services.kit.faults import crash_point
from services.kit.journal import Attempt, Journal
from services.kit.paths import Layout
from services.kit.work import Reply, Task, execute, private_folder

MAX_FAILURES = 3
# Interruptions are not the task's fault, but a task that always ends with everything dead is.
MAX_BEGUN = 25
# Enough to keep a worker from waiting for the next task, few enough that a priority change and a
# worker's death touch little.
AHEAD = 2


class Outcome(NamedTuple):
    """How an attempt ended."""

    task: Task
    token: int
    reply: Reply | None  # None: the worker died or the task raised
    story: str = ""


class ClusterFile(msgspec.Struct, frozen=True):
    """Where the scheduler of a project is."""

    address: str
    pid: int
    workers: int


class Runner:
    """Submits tasks of one service and collects their outcomes.

    Parameters
    ----------
    project
        Root of the RELION project.
    address
        Dask scheduler.
    journal
        Where attempts are counted.
    """

    def __init__(self, project: Path, address: str, journal: Journal):
        self._project, self._journal = str(project), journal
        self._done: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        try:
            self._client = Client(address, timeout=20, set_as_default=False, name="coldstream")
            self.slots = self._count_slots()
        except OSError as error:
            raise Fatal(f"no Dask scheduler answers at {address}: {error}") from error
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._running: dict[str, tuple[Task, int, Future]] = {}
        self._attempts = journal.attempts()

    def _count_slots(self) -> int:
        threads: dict[str, int] = self._client.nthreads()  # pyright: ignore[reportAssignmentType]
        return max(1, sum(threads.values()))

    @property
    def running(self) -> dict[str, Task]:
        """Tasks begun and not ended, by id."""
        return {name: task for name, (task, _, _) in self._running.items()}

    def room(self) -> int:
        """Return how many more tasks may be begun now."""
        return self.slots + AHEAD - len(self._running)

    def begin(self, tasks: Iterable[Task]) -> list[Outcome]:
        """Count and submit tasks; returns those that may not be begun again, as outcomes."""
        accepted, poisoned, rows = [], [], []
        for task in tasks:
            before = self._attempts.get(task.key) or Attempt(task.key, 0, 0, 0, "new")
            if before.failures >= MAX_FAILURES or before.n >= MAX_BEGUN:
                story = f"begun {before.n} times, failed {before.failures} times: {before.state}"
                poisoned.append(Outcome(task, before.token, None, story))
                continue
            row = before._replace(n=before.n + 1, token=before.token + 1, state="running")
            rows.append(row)
            accepted.append((task, row.token))
        if rows:
            self._journal.commit([], attempts=rows)
            self._attempts.update((row.key, row) for row in rows)
            crash_point("after-attempt-before-submit")
        for task, token in accepted:
            self._submit(task, token)
        return poisoned

    def _submit(self, task: Task, token: int) -> None:
        future = self._client.submit(
            execute,
            self._project,
            msgspec.msgpack.encode(task),
            token,
            key=f"{task.stage}-{task.key[:16]}-{token}-{os.getpid()}",
            pure=False,
            retries=0,
            priority=task.urgency,  # equal ones in the order of submission
        )
        self._running[task.id] = (task, token, future)
        future.add_done_callback(lambda _, name=task.id, t=token: self._note(name, t))

    def _note(self, name: str, token: int) -> None:
        # Called on Dask's thread: only hand over and wake the loop.
        self._done.put((name, token))
        os.eventfd_write(self.wake_fd, 1)

    def outcomes(self) -> list[Outcome]:
        """Return the attempts that ended since the last call.

        Raises
        ------
        Fatal
            The scheduler is gone: this service restarts, finds the new one and goes on.
        """
        try:
            os.eventfd_read(self.wake_fd)
        except BlockingIOError:
            pass
        ended = []
        while True:
            try:
                name, token = self._done.get_nowait()
            except queue.Empty:
                break
            entry = self._running.get(name)
            if entry is None or entry[1] != token:
                continue  # cancelled, or an attempt that was replaced
            task, _, future = entry
            if future.status in ("cancelled", "lost") or self._client.status != "running":
                raise Fatal("the Dask scheduler is gone")
            del self._running[name]
            ended.append(self._outcome(task, token, future))
        if not ended and self._client.status != "running":
            # Not waited for: another scheduler comes up at another address, and a restart is quick.
            raise Fatal("the Dask scheduler is gone")
        return ended

    def _outcome(self, task: Task, token: int, future: Future) -> Outcome:
        if future.status == "finished":
            reply = msgspec.msgpack.decode(future.result(), type=Reply)
            return Outcome(task, token, reply)
        error = future.exception()
        story = "a worker died" if isinstance(error, KilledWorker) else f"{error!r}"
        if isinstance(error, KilledWorker) and not self._left_a_folder(task, token):
            # Dask names every task that the dead worker had been given, also those in line.
            return Outcome(task, token, None, "a worker died before it began")
        row = self._attempts[task.key]
        row = row._replace(failures=row.failures + 1, state=story[:500])
        self._journal.commit([], attempts=[row])
        self._attempts[task.key] = row
        return Outcome(task, token, None, story)

    def _left_a_folder(self, task: Task, token: int) -> bool:
        folder = private_folder(Layout(self._project), task.key, token)
        begun = folder.exists()
        shutil.rmtree(folder, ignore_errors=True)
        return begun

    def failures(self, key: str) -> int:
        """Return how often the work of `key` failed."""
        row = self._attempts.get(key)
        return row.failures if row else 0

    def forget(self, keys: Iterable[str]) -> None:
        """Drop the attempts of work whose event is committed."""
        for key in keys:
            self._attempts.pop(key, None)

    def token(self, key: str) -> int:
        """Return the token that may deliver the result of `key`."""
        row = self._attempts.get(key)
        return row.token if row else 0

    def cancel(self, names: Iterable[str]) -> None:
        """Withdraw tasks that are no longer wanted."""
        for name in names:
            _, _, future = self._running.pop(name)
            future.cancel()

    def close(self) -> None:
        """Withdraw everything and leave the cluster."""
        self.cancel(list(self._running))
        self._client.close(timeout=2)
        os.close(self.wake_fd)
