"""The loop every service runs in: replay, follow, decide, commit, then act.

A service is three functions over its state: `apply` folds one of its own events, `decide` turns a
stimulus into new events, `want` says which tasks should be running. The host does the rest. What a
service wants is a function of its state, and its state is a fold of its journal: whatever moment
it is killed at, after a restart it wants the same tasks again.
Source: style.md section 3.4, reliability.md sections 2.4 to 2.8.
"""

import os
import signal
import time
from collections.abc import Callable, Container, Iterable
from typing import Any, NamedTuple, Protocol, TypeVar

import zmq

from services.kit import snapshot
from services.kit.bus import CREDIT, Follower, Producer
from services.kit.errors import Bug
from services.kit.events import Body, Event
from services.kit.faults import crash_point
from services.kit.journal import Cursor, Draft, Journal
from services.kit.logs import Log
from services.kit.paths import Layout
from services.kit.runner import MAX_FAILURES, Outcome, Runner
from services.kit.watchdog import notify
from services.kit.work import CODE_VERSION, Reply, Task

# Longest time between two turns, so that a stop, a heartbeat and the watchdog are never late.
TURN_S = 0.5
# Views (STAR files) are rewritten at most this often, and never take more than a tenth of the time.
RENDER_S = 0.5
RENDER_SHARE = 0.1
# What the services fold into their states: raise it whenever a fold or a state changes.
STATE_VERSION = "2"

S = TypeVar("S")


class Arrived(NamedTuple):
    """Stimulus: an event of another producer."""

    event: Event


class Finished(NamedTuple):
    """Stimulus: a task delivered its result."""

    task: Task
    token: int
    reply: Reply


class Failed(NamedTuple):
    """Stimulus: a task will not be tried again."""

    task: Task
    attempts: int
    story: str


class Ticked(NamedTuple):
    """Stimulus: time has passed; comes about once a second."""

    at: float


class Started(NamedTuple):
    """Stimulus: the service has replayed its journal and starts."""

    at: float


class Paused(NamedTuple):
    """Stimulus: all that had happened was handled; time to act on it together."""

    at: float


class Service(Protocol[S]):
    """What a service provides; everything but `perform` and `render` is pure."""

    name: str
    consumes: tuple[str, ...]
    state_type: type[S]

    def empty(self) -> S:
        """Return the state before any event."""
        ...

    def apply(self, state: S, body: Body, at: float) -> None:
        """Fold one own event into the state, in place."""
        ...

    def decide(self, state: S, stimulus: Any) -> Iterable[Body]:
        """Yield the events a stimulus leads to; each is folded before the next is asked for."""
        ...

    def want(self, state: S, room: int, running: Container[str]) -> list[Task]:
        """Return up to `room` tasks to begin, most urgent first; none whose id is in `running`."""
        ...

    def still_wanted(self, state: S, task: Task) -> bool:
        """Say whether a running task's result would be used."""
        ...

    def perform(self, state: S) -> Iterable[Any]:
        """Do the small local deeds the state asks for; returns stimuli that say they are done."""
        ...

    def render(self, state: S, *, everything: bool) -> None:
        """Write the views of the state; `everything` False: only what must never be stale."""
        ...

    def begin(self, state: S) -> None:
        """Make the project look as it should while the service is running."""
        ...

    def finish(self, state: S) -> None:
        """Leave the project as it should look while the service is not running."""
        ...

    def explain(self, body: Body) -> tuple[str, dict[str, object]] | None:
        """Return (level, fields) of the log line of an event, or None for no line."""
        ...


class Source(Protocol):
    """Where a service's stimuli come from when not from other producers: a watcher."""

    def open(self, wake: Callable[[], None]) -> None:
        """Start; `wake` may be called from any thread and makes the host poll soon."""
        ...

    def poll(self, now: float, state: Any) -> tuple[list[Any], float]:
        """Return the stimuli since the last call, and when to be called next (monotonic)."""
        ...

    def close(self) -> None:
        """Stop."""
        ...


class Host:
    """Runs one service.

    Parameters
    ----------
    service
        What to run.
    layout
        The project's folders.
    session
        Session name, stored in every event.
    runner_address
        Dask scheduler for services that want tasks.
    source
        The service's own source of stimuli.
    log
        Where log lines go.
    """

    def __init__(
        self,
        service: Service,
        layout: Layout,
        session: str,
        log: Log,
        runner_address: str | None = None,
        source: Source | None = None,
    ):
        self.service, self.layout, self.log, self.source = service, layout, log, source
        layout.make()
        self.journal = Journal(layout.journal(service.name), service.name, session)
        self._code = f"{CODE_VERSION}.{STATE_VERSION}:{service.state_type.__qualname__}"
        self.state = self._replay()
        self._context = zmq.Context()
        self._producer = Producer(
            self._context, self.journal, layout.bell(service.name), layout.desk(service.name)
        )
        cursors = self.journal.cursors()
        self._followers = [
            Follower(self._context, name, layout.bell(name), layout.desk(name), cursors.get(name))
            for name in service.consumes
        ]
        self.runner = (
            Runner(layout.project, runner_address, self.journal) if runner_address else None
        )
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        self._snapshot_at = self.journal.head
        # What the views lack: anything, and what must never be stale.
        self._dirty = self._moved = True
        self._render_at, self._tick_at = 0.0, 0.0
        self._poll_at = 0.0

    # ---- start and stop

    def _replay(self) -> Any:
        service, journal = self.service, self.journal
        found = snapshot.load(
            self.layout, service.name, journal.epoch, journal.head, self._code, service.state_type
        )
        seq, state = found or (0, service.empty())
        for event in journal.read(seq + 1):
            service.apply(state, event.body, event.at)
        return state

    def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        poller = self._poller()
        in_order = False
        try:
            if self.source is not None:
                self.source.open(self.wake)
            self._handle([(Started(time.time()), None, "")])
            self.service.begin(self.state)
            self.log.line("service.started", head=self.journal.head)
            notify(READY="1")
            while not self._stopping:
                self.turn(poller)
            in_order = True
        finally:
            self.close(in_order=in_order)

    def stop(self) -> None:
        """End the loop after this turn."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """Make the loop turn now; safe from any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def close(self, *, in_order: bool = True) -> None:
        """Write the views a last time, leave the cluster, close the journal.

        Not `in_order`: the state may hold events that were never committed, so nothing is written.
        """
        if self.source is not None:
            self.source.close()
        if self.runner is not None:
            self.runner.close()
        if in_order:
            self._render(time.monotonic(), force=True)
            self.service.finish(self.state)
            self._save_snapshot()
        for part in (*self._followers, self._producer):
            part.close()
        self._context.term()
        self.journal.close()
        os.close(self._wake_fd)
        self.log.line("service.stopped", head=self.journal.head)

    def _poller(self) -> zmq.Poller:
        poller = zmq.Poller()
        poller.register(self._producer.desk, zmq.POLLIN)
        poller.register(self._wake_fd, zmq.POLLIN)
        for follower in self._followers:
            poller.register(follower.bell, zmq.POLLIN)
            poller.register(follower.desk, zmq.POLLIN)
        if self.runner is not None:
            poller.register(self.runner.wake_fd, zmq.POLLIN)
        return poller

    # ---- one turn

    def turn(self, poller: zmq.Poller) -> None:
        """Wait for something to happen, then handle all of it."""
        now = time.monotonic()
        due = min(self._producer.beat(now), self._poll_at if self.source else now + TURN_S)
        if self._dirty:
            due = min(due, self._render_at)
        poller.poll(int(max(0.0, min(TURN_S, due - now)) * 1000))
        try:
            os.eventfd_read(self._wake_fd)
            self._poll_at = 0.0
        except BlockingIOError:
            pass
        self._producer.serve()
        self._handle(self._gather())
        self._act()
        self._render(time.monotonic())
        if self.journal.head - self._snapshot_at >= snapshot.EVERY_EVENTS:
            self._save_snapshot()

    def _gather(self) -> list[tuple[Any, Cursor | None, str]]:
        """Return (stimulus, cursor it moves, producer) for all that has happened."""
        now = time.monotonic()
        found: list[tuple[Any, Cursor | None, str]] = []
        for follower in self._followers:
            follower.listen()
            for event in follower.receive():
                found.append((Arrived(event), follower.cursor(event), follower.producer))
            follower.patience(now)
        if self.runner is not None:
            found += [(s, None, "") for s in self._settle(self.runner.outcomes())]
        if self.source is not None and now >= self._poll_at:
            stimuli, self._poll_at = self.source.poll(now, self.state)
            found += [(stimulus, None, "") for stimulus in stimuli]
        if now >= self._tick_at:
            self._tick_at = now + 1.0
            found.append((Ticked(time.time()), None, ""))
            notify(WATCHDOG="1", STATUS=f"live, head {self.journal.head}, lag {self.lag}")
        return found

    @property
    def lag(self) -> int:
        """Events of other producers not yet handled."""
        return sum(follower.lag for follower in self._followers)

    def _settle(self, outcomes: list[Outcome]) -> list[Any]:
        """Turn outcomes into stimuli; a failed attempt that may be repeated leads to none."""
        assert self.runner is not None  # noqa: S101
        stimuli: list[Any] = []
        for outcome in outcomes:
            if outcome.reply is not None:
                if outcome.token != self.runner.token(outcome.task.key):
                    continue  # a late result of an attempt that was replaced
                stimuli.append(Finished(outcome.task, outcome.token, outcome.reply))
            elif self.runner.failures(outcome.task.key) >= MAX_FAILURES:
                stimuli.append(self._given_up(outcome))
            else:
                self.log.line(
                    "task.repeated", "WARNING", task=outcome.task.id, because=outcome.story
                )
        return stimuli

    def _given_up(self, outcome: Outcome) -> Failed:
        assert self.runner is not None  # noqa: S101
        return Failed(outcome.task, self.runner.failures(outcome.task.key), outcome.story)

    def _handle(self, found: list[tuple[Any, Cursor | None, str]]) -> None:
        """Decide on stimuli; commit events, cursors and finished work in transactions."""
        for start in range(0, len(found), CREDIT):
            part = found[start : start + CREDIT]
            part.append((Paused(time.time()), None, ""))
            drafts: list[Draft] = []
            cursors: dict[str, Cursor] = {}
            closed: list[str] = []
            for stimulus, cursor, producer in part:
                cause = stimulus.event.uid if isinstance(stimulus, Arrived) else None
                for body in self.service.decide(self.state, stimulus):
                    at = time.time()
                    self.service.apply(self.state, body, at)
                    drafts.append(Draft(body, at, cause))
                if cursor is not None:
                    cursors[producer] = cursor
                if isinstance(stimulus, Finished | Failed):
                    closed.append(stimulus.task.key)
            if drafts or cursors or closed:
                self.journal.commit(drafts, cursors, closed=closed)
                self._tell(drafts)
                if self.runner is not None:
                    self.runner.forget(closed)

    def _tell(self, drafts: list[Draft]) -> None:
        if not drafts:
            return
        self._producer.ring()
        self._dirty = self._moved = True
        for draft in drafts:
            line = self.service.explain(draft.body)
            if line is not None:
                level, fields = line
                self.log.line(_kind(draft.body), level, **fields)

    def _act(self) -> None:
        """Make the world match the state: local deeds first, then tasks."""
        for _ in range(100):
            deeds = list(self.service.perform(self.state))
            if not deeds:
                break
            self._handle([(deed, None, "") for deed in deeds])
        else:
            raise Bug(f"{self.service.name} asks for local deeds without end")
        if self._moved:
            self.service.render(self.state, everything=False)
            self._moved = False
        if self.runner is None:
            return
        running = self.runner.running
        still = self.service.still_wanted
        self.runner.cancel([name for name, t in running.items() if not still(self.state, t)])
        room = self.runner.room()
        if room > 0:
            poisoned = self.runner.begin(self.service.want(self.state, room, running))
            self._handle([(self._given_up(outcome), None, "") for outcome in poisoned])

    def _render(self, now: float, *, force: bool = False) -> None:
        if not force and (not self._dirty or now < self._render_at):
            return
        crash_point("before-render")
        self.service.render(self.state, everything=True)
        crash_point("after-render")
        self._dirty = False
        end = time.monotonic()
        self._render_at = end + max(RENDER_S, (end - now) / RENDER_SHARE)

    def _save_snapshot(self) -> None:
        head = self.journal.head
        if head > self._snapshot_at:
            snapshot.save(
                self.layout, self.service.name, self.journal.epoch, head, self._code, self.state
            )
            self._snapshot_at = head


def _kind(body: Body) -> str:
    return str(body.__struct_config__.tag)
