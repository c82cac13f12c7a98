"""From files on disk to stimuli: scan, settle, test, parse, pair. Never blocks for long.

Everything that decides is elsewhere and pure (`settle`, `pairing`, `gains`); this is the shell that
looks at the tree. Its memory is a cache: after a restart it finds everything again, skips what the
ledger calls settled, and tells the rest once more.

Source: acquisition.md section 8.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from algorithms.formats.errors import FormatError
from algorithms.formats.movie import Structure
from mdcatch import names
from mdcatch.config import MdcatchConfig
from mdcatch.disk import Disk, Tree
from mdcatch.gains import Gains
from mdcatch.names import FileName, Role
from mdcatch.pairing import PENDING, Exposure, judge
from mdcatch.parsers.epuxml import EpuImage, parse_image
from mdcatch.parsers.limits import MAX_XML_BYTES
from mdcatch.service import State, Status
from mdcatch.settle import FileWatch, Pace, Standing
from mdcatch.stimuli import (
    Noticed,
    Opened,
    Quiet,
    Ready,
    Rejected,
    RootFound,
    RootLost,
    Stimulus,
    Waits,
)
from mdcatch.watcher import Accelerator, Scanner, Unavailable
from services.kit.errors import Code, Refused

BUDGET_S = 0.25  # of file work in one poll, so that the host stays alive through a back-log
SHARE = 20  # an idle poll is followed by this many times its own duration of rest: 5 % of a core
QUIET_POLLS = 2
REVIEW_S = 1.0  # between looks at all exposures that are not settled
LOST_POLL_S = 1.0  # between looks at a root that is empty or not there


class EpuSource:
    """Watches one EPU tree.

    Parameters
    ----------
    config
        Values of the site and of the person.
    tree
        The file system; default: the folder of the configuration.
    clock
        Monotonic time, for the budget of a poll only.
    """

    def __init__(
        self,
        config: MdcatchConfig,
        tree: Tree | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._config, self._clock = config, clock
        self._root = Path(config.raw)
        self._tree = Disk(self._root) if tree is None else tree
        self._scanner = Scanner(self._tree, config.full_walk_s)
        self._gains = Gains(config.gain)
        self._exposures: dict[str, Exposure] = {}
        self._watches: dict[str, tuple[FileName, FileWatch]] = {}
        self._wake: Callable[[], None] | None = None
        self._accelerator: Accelerator | None = None
        self._opened = False
        self._lost = False
        self._scanned = False  # the first scan is over: what comes now is new
        self._quiet = 0
        self._queue: list[str] = []  # paths still to be looked at, the next one last
        self._fresh: set[str] = set()  # exposures of which something may be new
        self._review_at = float("-inf")

    def open(self, wake: Callable[[], None]) -> None:
        """Start; `wake` may be called from another thread."""
        self._wake = wake

    def close(self) -> None:
        """Stop the accelerator's thread."""
        if self._accelerator is not None:
            self._accelerator.close()
            self._accelerator = None

    def poll(self, now: float, state: State) -> tuple[list[Stimulus], float]:
        """Return what is new and when to be asked again.

        Parameters
        ----------
        now
            Monotonic time, s.
        state
            The ledger.
        """
        stimuli: list[Stimulus] = []
        if not self._opened:
            self._opened = True
            name = self._config.name or self._root.name
            stimuli.append(Opened(name=name, raw=str(self._root)))
        begin = self._clock()
        try:
            found = self._scanner.poll(now)
        except Unavailable as error:
            return stimuli + self._lose(error), now + max(self._config.poll_s, LOST_POLL_S)
        took = self._clock() - begin
        if self._lost or state.unavailable:
            self._lost = False
            stimuli.append(RootFound())
        self._accelerate()
        for path, regular in found:
            stimuli += self._meet(path, regular, state, now)
        self._scanned = True
        hurry = self._accelerator is not None and self._accelerator.take()
        finished = self._examine(now, begin + BUDGET_S, hurry)
        stimuli += self._report(state, now)
        if not finished:
            return stimuli, now
        stimuli += self._rest(stimuli)
        looks = (watch.look_at for _, watch in self._watches.values())
        idle = now + max(self._config.poll_s, SHARE * took)
        return stimuli, max(now, min(min(looks, default=idle), idle))

    # ---- the root

    def _lose(self, error: Unavailable) -> list[Stimulus]:
        """Pause: an empty root is unavailable, never deleted."""
        self._quiet = 0
        if self._lost:
            return []
        self._lost = True
        self.close()
        return [RootLost(detail=f"raw folder {self._root} {error}")]

    def _accelerate(self) -> None:
        if self._accelerator is None and self._wake is not None and self._config.inotify:
            self._accelerator = Accelerator(self._root, self._wake)

    # ---- files

    def _meet(self, path: str, regular: bool, state: State, now: float) -> Iterator[Stimulus]:
        """Take in a file that was not there before."""
        name = names.classify(path)
        if name.role is Role.IGNORED:
            return
        if name.role is Role.GAIN:
            self._gains.add(path)
            return
        if not regular or not names.is_allowed(path):
            if name.role is Role.MOVIE:
                yield from self._bad_name(path, name, regular)
            return
        entry = state.exposures.get(name.identity)
        if entry is not None and entry.status is Status.SETTLED:
            if name.role is Role.MOVIE and path != entry.path:
                yield self._duplicate(path, entry.path)
            return
        if name.role is not Role.IMAGE:
            exposure = self._exposures.get(name.identity)
            if exposure is None:
                exposure = self._exposures[name.identity] = Exposure(name.identity, now)
            if name.role is Role.MOVIE and exposure.movie is not None:
                yield self._duplicate(path, exposure.movie.path)
                return
            if name.role is Role.METADATA and name.exposure:
                yield from self._announce(exposure, path)
        self._watch(path, name, now)

    def _watch(self, path: str, name: FileName, now: float) -> None:
        """Begin to watch a file; metadata need not settle, for a closed document is complete."""
        config = self._config
        quick = config.backlog and not self._scanned
        settle_s = config.poll_s if quick else config.settle_s
        stuck_s = min(config.stuck_s, config.settle_s) if quick else config.stuck_s
        pace = Pace(config.poll_s, 0.0 if name.role is Role.METADATA else settle_s, stuck_s)
        watch = FileWatch(path, pace, look_at=now, since=now)
        self._watches[path] = name, watch
        exposure = self._exposures.get(name.identity)
        if exposure is not None:
            wait_s = config.meta_wait_s
            exposure.wait_s = min(wait_s, config.settle_s) if quick else wait_s
            if name.role is Role.MOVIE:
                exposure.movie = watch
            elif name.role is Role.METADATA:
                exposure.metadata = watch

    def _announce(self, exposure: Exposure, path: str) -> Iterator[Stimulus]:
        if not exposure.announced:
            exposure.announced = True
            yield Noticed(movie=exposure.identity, path=path)

    def _bad_name(self, path: str, name: FileName, regular: bool) -> Iterator[Stimulus]:
        reason = (
            "only letters, digits, blank and . _ + - are let in, not first - or ."
            if regular
            else "it is a link or a device, not a file"
        )
        movie, shown = names.printable(name.identity), names.printable(path)
        yield Noticed(movie=movie, path=shown)
        yield Rejected(movie=movie, code=Code.BAD_NAME, detail=f"{shown}: {reason}")

    def _duplicate(self, path: str, first: str) -> Stimulus:
        """A second movie of one exposure is set aside under its own full name."""
        detail = f"{path}: the exposure already has the movie {first}"
        return Rejected(movie=path, code=Code.DUPLICATE, detail=detail)

    # ---- looks and tests

    def _examine(self, now: float, until: float, hurry: bool) -> bool:
        """Look at the files that are due; return False when the budget ran out first."""
        if hurry or not self._queue:
            self._queue = [
                path
                for path, (_, watch) in reversed(self._watches.items())
                if watch.look_at <= now or (hurry and watch.standing is not Standing.COMPLETE)
            ]
        while self._queue:
            if self._clock() > until:
                return False
            name, watch = self._watches.get(self._queue.pop(), (None, None))
            if name is not None and watch is not None:
                self._look(name, watch, now)
                self._fresh.add(name.identity)
        return True

    def _look(self, name: FileName, watch: FileWatch, now: float) -> None:
        try:
            facts = self._tree.facts(watch.path)
            if facts is None:
                self._vanished(name, watch)
            elif watch.observe(facts, now):
                result = self._test(name, watch.path)
                # A file that changed during its test is not what was tested.
                if self._tree.facts(watch.path) == facts:
                    watch.passed(result, now)
                    self._sort_out(name, watch, now)
        except (Refused, FormatError) as error:
            code = Code(error.code) if error.code in Code.__members__ else Code.BAD_HEADER
            watch.failed(code, error.detail, now)
        except OSError as error:
            watch.failed(Code.READ_ERROR, f"cannot be read: {error.strerror}", now)

    def _test(self, name: FileName, path: str) -> Structure | EpuImage:
        if name.role is Role.METADATA:
            return parse_image(self._tree.read(path, MAX_XML_BYTES + 1))
        return self._tree.structure(path)

    def _sort_out(self, name: FileName, watch: FileWatch, now: float) -> None:
        """Of what may be a sum or a movie, the number of sections decides."""
        if name.role is not Role.IMAGE:
            return
        del self._watches[watch.path]
        if watch.result.n_frames == 1:
            return
        exposure = self._exposures.setdefault(name.identity, Exposure(name.identity, now))
        if exposure.movie is None:
            exposure.movie = watch
            self._watches[watch.path] = FileName(Role.MOVIE, name.identity, True), watch

    def _vanished(self, name: FileName, watch: FileWatch) -> None:
        del self._watches[watch.path]
        self._scanner.forget(watch.path)
        exposure = self._exposures.get(name.identity)
        if exposure is not None:
            if exposure.movie is watch:
                exposure.movie = None
            elif exposure.metadata is watch:
                exposure.metadata = None

    # ---- what to say

    def _report(self, state: State, now: float) -> list[Stimulus]:
        """Say what changed; forget the exposures that are settled."""
        stimuli: list[Stimulus] = []
        if now >= self._review_at:  # waits become due without any file changing
            self._review_at = now + REVIEW_S
            self._fresh.update(self._exposures)
        fresh, self._fresh = self._fresh, set()
        for exposure in filter(None, map(self._exposures.get, sorted(fresh))):
            entry = state.exposures.get(exposure.identity)
            if entry is not None and entry.status is Status.SETTLED:
                self._forget(exposure)
                continue
            if exposure.movie is not None:
                stimuli += self._announce(exposure, exposure.movie.path)
            if exposure.announced:
                stimuli += self._say(exposure, state, now)
        return sorted(stimuli, key=_acquired)

    def _forget(self, exposure: Exposure) -> None:
        del self._exposures[exposure.identity]
        for watch in (exposure.movie, exposure.metadata):
            if watch is not None:
                self._watches.pop(watch.path, None)

    def _say(self, exposure: Exposure, state: State, now: float) -> list[Stimulus]:
        verdict = judge(exposure, now)
        told: tuple[object, ...] = verdict
        movie, metadata = exposure.movie, exposure.metadata
        if verdict.status == "ready" and movie is not None and metadata is not None:
            told = ("ready", movie.facts, metadata.facts)
        if told == exposure.said:
            return []
        stimuli: list[Stimulus] = []
        if verdict.status == "ready" and movie is not None and metadata is not None:
            ready = self._ready(exposure.identity, movie, metadata, state, now)
            if ready is None:
                return []
            stimuli.append(ready)
            self._fresh.add(exposure.identity)  # the answer stands in the ledger of the next poll
        elif verdict.code is not None:
            kind = Rejected if verdict.status == "refused" else Waits
            stimuli.append(kind(movie=exposure.identity, code=verdict.code, detail=verdict.detail))
        exposure.said = told
        return stimuli

    def _ready(
        self, identity: str, movie: FileWatch, metadata: FileWatch, state: State, now: float
    ) -> Ready | None:
        facts, structure = movie.facts, movie.result
        if facts is None:
            return None
        try:
            digest = self._tree.digest(movie.path, facts)
        except OSError:
            digest = None
        if digest is None:  # replaced since it was tested: look again
            movie.again(now)
            return None
        return Ready(
            movie=identity,
            path=movie.path,
            metadata_path=metadata.path,
            format=structure.format,
            size_bytes=facts.size,
            mtime_ns=facts.mtime_ns,
            digest=digest,
            width_px=structure.nx,
            height_px=structure.ny,
            n_frames=structure.n_frames,
            header_pixel_size_A=structure.pixel_size_A,
            image=metadata.result,
            gain_path=self._gains.choose(movie.path, state.gain_path),
        )

    def _rest(self, stimuli: list[Stimulus]) -> list[Stimulus]:
        """Close the session when nothing happens any more, if that was asked for."""
        busy = any(watch.standing is Standing.SETTLING for _, watch in self._watches.values())
        undecided = any(e.announced and e.said == PENDING for e in self._exposures.values())
        self._quiet = 0 if stimuli or busy or undecided else self._quiet + 1
        if self._config.close_when_idle and self._quiet == QUIET_POLLS:
            return [Quiet()]
        return []


def _acquired(stimulus: Stimulus) -> str:
    """Sort key: what becomes ready in one poll is told in the order of its acquisition."""
    return stimulus.image.acquired_at or "" if isinstance(stimulus, Ready) else ""
