"""The files and exposures that are not settled yet: giving files to exposures, and losing them.

A cache: after a restart everything is found again, and what the ledger calls settled is skipped.

Source: acquisition.md sections 2.9 and 8.
"""

from collections import defaultdict
from collections.abc import Iterator

from mdcatch.book import Book
from mdcatch.config import MdcatchConfig
from mdcatch.gains import Gains
from mdcatch.ground import Ground
from mdcatch.ledger import Entry, State, Status
from mdcatch.names import FileName, Role
from mdcatch.pairing import Exposure, Patience
from mdcatch.settle import FileWatch, Pace
from mdcatch.stimuli import Moved, Noticed, Rejected, Stimulus
from services.kit.errors import Code

_AT_ONCE = frozenset({Role.METADATA, Role.FRACTIONS, Role.SESSION})


class Shelf:
    """Everything found that is not settled.

    Parameters
    ----------
    config
        Values of the site and of the person.
    grounds
        The watched folders, the raw folder first.
    """

    def __init__(self, config: MdcatchConfig, grounds: list[Ground]):
        self._config, self._grounds = config, grounds
        self.book = Book(grounds[0].name)
        self.gains = Gains(config.gain)
        self.defects: set[str] = set()
        self.exposures: dict[str, Exposure] = {}
        self.watches: dict[str, tuple[FileName, FileWatch]] = {}
        self.fresh: set[str] = set()  # exposures of which something may be new
        self.audits: dict[str, str] = {}  # settled movies that may have changed: path -> exposure
        self.returns: list[str] = []  # files to be met again in the next poll
        self.sums: set[str] = set()  # files that are no movies, as an mdoc says
        self.witnesses: dict[str, int] = {}  # exposures whose camera says that all is written
        self.is_backlog = config.backlog  # until the first scan is over
        self.saw_metadata = False
        self._spares: defaultdict[str, set[str]] = defaultdict(set)
        self._ignored: defaultdict[str, set[str]] = defaultdict(set)  # files of such exposures

    # ---- which root

    def place(self, path: str) -> tuple[Ground, str] | None:
        """Return the root of a path and the path below it; None when it is no longer watched."""
        for ground in self._grounds:
            inside = ground.inside(path)
            if inside is not None:
                return ground, inside
        return None

    def exists(self, path: str) -> bool:
        """Tell whether a file is there now."""
        place = self.place(path)
        try:
            return place is not None and place[0].tree.facts(place[1]) is not None
        except OSError:
            return False

    # ---- taking in

    def take(
        self, path: str, name: FileName, ground: Ground, state: State, now: float
    ) -> Iterator[Stimulus]:
        """Give a file to its exposure."""
        entry = state.exposures.get(name.identity)
        if entry is not None and entry.status is Status.SETTLED:
            yield from self._again(path, name, entry, ground, now)
            return
        override = state.overrides.get(name.identity)
        if override is not None and override.ignore:
            self._ignored[name.identity].add(path)
            return
        if name.role in (Role.IMAGE, Role.FRACTIONS):
            if path not in self.sums:
                self.watch(path, name, ground, now)
            return
        self.saw_metadata |= name.role is Role.METADATA
        exposure = self.exposure(name.identity, state, now)
        part = "movie" if name.role is Role.MOVIE else "metadata"
        chosen = override and (override.choose if part == "movie" else override.metadata_path)
        held: FileWatch | None = getattr(exposure, part)
        if held is not None and held.path != path:
            if chosen != path and (chosen == held.path or self.exists(held.path)):
                self._spares[name.identity].add(path)
                if part == "movie":
                    yield duplicate(path, held.path)
                return
            self.watches.pop(held.path, None)
            self._spares[name.identity].add(held.path)
        self.give(exposure, part, self.watch(path, name, ground, now))
        if name.exposure:
            yield from self.announce(exposure, path)

    def _again(
        self, path: str, name: FileName, entry: Entry, ground: Ground, now: float
    ) -> Iterator[Stimulus]:
        """A file of an exposure that is published already."""
        if name.role is Role.METADATA and entry.metadata == "inherited":
            self.watch(path, name, ground, now)
        if name.role is not Role.MOVIE:
            return
        if path == entry.path:
            self.audits[path] = name.identity
        elif self.exists(entry.path):
            yield duplicate(path, entry.path)
        else:
            yield Moved(movie=name.identity, path=path)

    def give(self, exposure: Exposure, part: str, watch: FileWatch | None) -> None:
        """Make a file part of an exposure, its movie or its metadata."""
        setattr(exposure, part, watch)
        if part == "metadata":
            exposure.section = exposure.expected = None
        if watch is not None:
            exposure.vanished = False
        self.fresh.add(exposure.identity)

    def exposure(self, identity: str, state: State, now: float) -> Exposure:
        """Return an exposure, a new one if need be."""
        found = self.exposures.get(identity)
        if found is None:
            override = state.overrides.get(identity)
            found = self.exposures[identity] = Exposure(
                identity,
                now,
                self.patience(),
                state.session_of(identity),
                accepted=bool(override and override.accept),
            )
            self.book.learn(identity)
        return found

    def patience(self) -> Patience:
        """Return how long exposures wait at present."""
        config, person = self._config, self._config.overrides
        known = None not in (person.pixel_size_A, person.voltage_kV, person.dose_e_A2)
        partner = config.meta_wait_s
        if self.is_backlog or (known and not self.saw_metadata):
            partner = min(partner, config.settle_s)
        short = min(config.short_wait_s, config.settle_s if self.is_backlog else config.stuck_s)
        return Patience(partner, short, known or (config.inherit and not config.close_when_idle))

    def announce(self, exposure: Exposure, path: str) -> Iterator[Stimulus]:
        """Say once that there is an exposure."""
        if not exposure.announced:
            exposure.announced = True
            yield Noticed(movie=exposure.identity, path=path, session=exposure.session)

    def watch(self, path: str, name: FileName, ground: Ground, now: float) -> FileWatch:
        """Begin to watch a file; XML need not settle, for a closed document is complete."""
        config, quick = self._config, self.is_backlog
        settle_s = config.poll_s if quick else config.settle_s
        if ground.system.is_network and not quick:
            settle_s = max(settle_s, config.network_settle_s)
        if name.role in _AT_ONCE:
            settle_s = 0.0
        stuck_s = min(config.stuck_s, config.settle_s) if quick else config.stuck_s
        pace = Pace(config.poll_s, settle_s, stuck_s, 2 if quick else 3)
        watch = FileWatch(path, pace, look_at=now, since=now)
        self.watches[path] = name, watch
        return watch

    def promote(self, name: FileName, watch: FileWatch, state: State, now: float) -> None:
        """Of what may be a sum or a movie, the number of sections decides, or an mdoc has."""
        self.watches.pop(watch.path, None)
        exposure = self.exposures.get(name.identity)
        named = exposure is not None and exposure.section is not None
        if watch.result.n_frames == 1 and not named:
            return
        exposure = self.exposure(name.identity, state, now)
        if exposure.movie is None:
            self.watches[watch.path] = FileName(Role.MOVIE, name.identity, not name.foreign), watch
            self.give(exposure, "movie", watch)

    def miss(self, identity: str, state: State, now: float) -> None:
        """Wait for the files of an exposure that is known of and not decided."""
        if identity not in self.exposures:
            exposure = self.exposure(identity, state, now)
            exposure.announced = exposure.vanished = True

    def hold(self, now: float) -> None:
        """A root cannot be seen, or is back just now: nobody is late because of that."""
        for exposure in self.exposures.values():
            exposure.since = now

    # ---- leaving

    def vanished(self, path: str, now: float) -> None:
        """A file is gone; its twin elsewhere takes its place."""
        name, watch = self.watches.pop(path)
        place = self.place(path)
        if place is not None:
            place[0].forget(place[1])
        exposure = self.exposures.get(name.identity)
        if exposure is None or watch not in (exposure.movie, exposure.metadata):
            return
        self.give(exposure, "movie" if exposure.movie is watch else "metadata", None)
        exposure.vanished, exposure.since = True, now
        self.returns += sorted(self._spares.pop(exposure.identity, ()))

    def drop_sum(self, path: str) -> None:
        """Take back a file that turns out to hold sums."""
        self.sums.add(path)
        name, watch = self.watches.pop(path, (None, None))
        exposure = self.exposures.get(name.identity) if name is not None else None
        if exposure is not None and exposure.movie is watch:
            self.give(exposure, "movie", None)
            if not exposure.announced and exposure.metadata is None:
                del self.exposures[exposure.identity]

    def settled(self, exposure: Exposure) -> None:
        """Forget an exposure that is published; a file that speaks for others too goes on."""
        self.exposures.pop(exposure.identity, None)
        self.witnesses.pop(exposure.identity, None)
        if exposure.movie is not None:
            self.watches.pop(exposure.movie.path, None)
        if exposure.metadata is not None and exposure.section is None:
            self.watches.pop(exposure.metadata.path, None)

    def reconsider(self, identity: str, state: State, now: float) -> list[str]:
        """A person has decided about an exposure; return its files that are met again."""
        override = state.overrides[identity]
        exposure = self.exposures.get(identity)
        if override.ignore:
            if exposure is not None:
                watches = filter(None, (exposure.movie, exposure.metadata))
                self._ignored[identity].update(watch.path for watch in watches)
                self.settled(exposure)
            return []
        if state.exposures[identity].status is not Status.SETTLED:
            self.miss(identity, state, now)
            self.exposures[identity].accepted = bool(override.accept)
            self.fresh.add(identity)
        again = self._spares.get(identity, set()) | self._ignored.pop(identity, set())
        self.returns += sorted(again)
        return sorted(again)


def duplicate(path: str, first: str) -> Stimulus:
    """A second movie of one exposure is set aside under its own full name."""
    detail = f"{path}: the exposure already has the movie {first}"
    return Rejected(movie=path, code=Code.DUPLICATE, detail=detail)
