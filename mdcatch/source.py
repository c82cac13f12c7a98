"""From files on disk to stimuli: scan, settle, test, parse, pair. Never blocks for long.

Everything that decides is elsewhere and pure (`settle`, `pairing`, `gains`, `book`); this is the
shell that looks at the trees. Its memory is a cache: after a restart it finds everything again,
skips what the ledger calls settled, and tells the rest once more.

Source: acquisition.md section 8.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from mdcatch.config import MdcatchConfig
from mdcatch.disk import Disk, Tree
from mdcatch.examine import Examiner
from mdcatch.ground import Ground
from mdcatch.layouts import recognise
from mdcatch.ledger import State, Status
from mdcatch.meeting import Meeting
from mdcatch.pairing import PENDING
from mdcatch.parsers.child import ParserChild
from mdcatch.reporting import Reporter
from mdcatch.roots import FileSystem, RootConfig, file_system
from mdcatch.series import Series
from mdcatch.settle import Standing
from mdcatch.shelf import Shelf
from mdcatch.stimuli import Opened, Quiet, RootLost, Stimulus
from mdcatch.watcher import Rhythm

BUDGET_S = 0.25  # of file work in one poll, so that the host stays alive through a back-log
SHARE = 200  # an idle poll is followed by this many times its own duration of rest
AGEING = 20.0  # the pause of an idle watcher is this part of the time that nothing has happened
SWEEP_POLLS = 10  # polls between looks at all folders, not only the newest
QUIET_POLLS = 2
LOST_POLL_S = 1.0  # between looks at a root that is empty or not there
ROUND = 20  # settled files that an idle poll looks at again


class RawSource:
    """Watches the folders of a session.

    Parameters
    ----------
    config
        Values of the site and of the person.
    tree
        The file system of the raw folder; default: the folder of the configuration.
    trees
        Those of the other roots, by path.
    clock
        Monotonic time, for the budget of a poll only.
    """

    def __init__(
        self,
        config: MdcatchConfig,
        tree: Tree | None = None,
        trees: dict[str, Tree] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._config, self._clock = config, clock
        roots = [RootConfig(path=str(Path(config.raw)), role=config.role), *config.roots]
        self._child = ParserChild([root.path for root in roots])
        given = dict(trees or {}) | ({roots[0].path: tree} if tree is not None else {})
        self._grounds = [self._ground(root, given, is_raw=root is roots[0]) for root in roots]
        self._shelf = Shelf(config, self._grounds)
        self._series = Series(self._shelf)
        self._meeting = Meeting(self._shelf, self._series)
        self._examiner = Examiner(self._shelf, self._series, self._meeting, clock)
        self._reporter = Reporter(config, self._shelf)
        self._wake: Callable[[], None] | None = None
        self._orders: deque[Stimulus] = deque()
        self._is_open = self._is_complete = False
        self._quiet = 0
        self._news_at = float("-inf")  # when something was last found
        self._gains_at = float("-inf")
        self._decisions: dict[str, object] = {}
        self._round: Iterator[str] = iter(())

    def _ground(self, root: RootConfig, given: dict[str, Tree], *, is_raw: bool) -> Ground:
        rhythm = Rhythm(SWEEP_POLLS * self._config.poll_s, self._config.full_walk_s)
        tree = given.get(root.path)
        if tree is not None:
            return Ground(root, tree, FileSystem("", False), rhythm, is_raw=is_raw)
        path = Path(root.path)
        disk = Disk(path, self._child)
        return Ground(root, disk, file_system(path), rhythm, is_raw=is_raw)

    def open(self, wake: Callable[[], None]) -> None:
        """Start; `wake` may be called from another thread."""
        self._wake = wake

    def close(self) -> None:
        """Stop the threads of raw events and the parser's process."""
        for ground in self._grounds:
            ground.close()
        self._child.close()

    def tell(self, order: Stimulus) -> None:
        """Take what a person decided; safe from any thread."""
        self._orders.append(order)
        if self._wake is not None:
            self._wake()

    def poll(self, now: float, state: State) -> tuple[list[Stimulus], float]:
        """Return what is new and when to be asked again.

        Parameters
        ----------
        now
            Monotonic time, s.
        state
            The ledger.
        """
        begin = self._clock()
        stimuli = [self._orders.popleft() for _ in range(len(self._orders))]
        found, hurried = self._scan(now, state)
        took = self._clock() - begin
        stimuli += found
        self._stock_gains(now)
        stimuli += self._meeting.again(state, now)
        stimuli += self._examiner.run(now, begin + BUDGET_S, state)
        stimuli += self._examiner.gains(state)
        self._obey(state, now)
        stimuli += self._reporter.report(state, now)
        if stimuli or hurried:
            self._news_at = now
        if not self._examiner.is_done:
            return stimuli, now
        stimuli += self._audit(state, idle=not stimuli)
        stimuli += self._rest(stimuli)
        return stimuli, self._next(now, took)

    # ---- the roots

    def _scan(self, now: float, state: State) -> tuple[list[Stimulus], bool]:
        """Look at every root; return what is new, and whether raw events asked for it."""
        news: list[Stimulus] = []
        batches = []
        hurried = False
        for ground in self._grounds:
            hints, was_lost = ground.take(), ground.is_lost
            told, found = ground.look(now, hints)
            news += told
            if was_lost or ground.is_lost:
                self._shelf.hold(now)
            batches.append((ground, found))
            hurried |= self._examiner.hurry(ground, hints, state, now)
            self._meeting.survey(ground, found)
            if self._wake is not None and self._config.inotify and not ground.is_lost:
                ground.accelerate(self._wake)
        if not self._is_open:
            self._is_open = True
            news.insert(0, self._opened([one.path for _, batch in batches for one in batch]))
            for identity in state.exposures:
                self._shelf.book.learn(identity)
        for ground, found in batches:
            for one in reversed(found) if self._config.newest_first else found:
                news += self._meeting.meet(ground, one, state, now)
        if not self._grounds[0].is_lost:
            self._shelf.is_backlog = False
        if not self._is_complete and not any(ground.is_lost for ground in self._grounds):
            self._is_complete = True
            self._miss(state, now)
        return news, hurried

    def _miss(self, state: State, now: float) -> None:
        """Ask for what was under way when the daemon ended: its files may have gone meanwhile."""
        for identity, entry in state.exposures.items():
            if entry.status in (Status.SEEN, Status.WAITING):
                self._shelf.miss(identity, state, now)

    def _opened(self, paths: list[str]) -> Opened:
        name = self._config.name or self._grounds[0].name
        return Opened(name=name, raw=str(self._grounds[0].path), software=recognise(paths))

    def _stock_gains(self, now: float) -> None:
        """List the site's gain folders now and then; they are no part of the session."""
        if not self._config.gain_folders or now < self._gains_at:
            return
        self._gains_at = now + self._config.full_walk_s
        found = []
        for folder in self._config.gain_folders:
            try:
                with os.scandir(folder) as entries:
                    found += [entry.path for entry in entries if entry.is_file()]
            except OSError:
                continue  # what is not there has no gains; the movie says what it lacks
        self._shelf.gains.stock(found)

    # ---- what a person decided, and settled files

    def _obey(self, state: State, now: float) -> None:
        """Act on what a person decided since the last poll."""
        for identity, override in state.overrides.items():
            if self._decisions.get(identity) is not override:
                self._decisions[identity] = override
                for path in self._shelf.reconsider(identity, state, now):
                    self._series.forget(path)

    def _audit(self, state: State, *, idle: bool) -> list[Stimulus]:
        """Look again at settled movies that may have changed, and at some others when idle."""
        audits = self._shelf.audits
        if idle and not audits:
            some = list(islice(self._round, ROUND))
            if not some:
                self._round = iter(list(state.exposures))
            for identity in some:
                entry = state.exposures.get(identity)
                if entry is not None and entry.status is Status.SETTLED:
                    audits[entry.path] = identity
        return list(self._examiner.audit(state, self._clock() + BUDGET_S))

    # ---- rest

    def _rest(self, stimuli: list[Stimulus]) -> list[Stimulus]:
        """Close the session when nothing happens any more, if that was asked for."""
        shelf = self._shelf
        busy = any(watch.standing is Standing.SETTLING for _, watch in shelf.watches.values())
        undecided = any(
            exposure.said == PENDING
            and (exposure.announced or exposure.movie is not None or exposure.section is not None)
            for exposure in shelf.exposures.values()
        )
        news = any(not isinstance(stimulus, RootLost) for stimulus in stimuli)
        lost = any(ground.is_lost for ground in self._grounds)
        more = bool(shelf.audits or shelf.returns)
        self._quiet = 0 if news or busy or undecided or lost or more else self._quiet + 1
        if self._config.close_when_idle and self._quiet == QUIET_POLLS:
            return [Quiet()]
        return []

    def _next(self, now: float, took: float) -> float:
        """Return when to look again: soon after news, more and more seldom after that."""
        config, shelf = self._config, self._shelf
        if any(ground.is_lost for ground in self._grounds):
            return now + max(config.poll_s, LOST_POLL_S)
        ageing = min(config.idle_poll_s, (now - self._news_at) / AGEING)
        idle = now + max(config.poll_s, ageing, SHARE * took)
        looks = (watch.look_at for _, watch in shelf.watches.values())
        due = min(looks, default=idle)
        if shelf.audits or shelf.fresh or shelf.returns:
            due = now + config.poll_s
        return max(now, min(due, idle))
