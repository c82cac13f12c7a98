"""Looking at files: when they are due, what they say, and whether settled ones are still the same.

Source: acquisition.md sections 2.6, 2.9 and 8 (3 to 6, 8, 9, 12).
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import msgspec

from mdcatch import layouts
from mdcatch.checks import expected_frames
from mdcatch.ground import Ground
from mdcatch.ledger import Entry, State, Status
from mdcatch.meeting import Meeting
from mdcatch.names import FileName, Role, classify
from mdcatch.parsers.record import Record
from mdcatch.reading import difference, header_of
from mdcatch.series import Series
from mdcatch.settle import FileWatch, Standing
from mdcatch.shelf import Shelf
from mdcatch.stimuli import Described, MetadataCame, Replaced, Stimulus
from services.kit.errors import Code, Refused, Transient

FEW = 16  # files that settle at a time while a microscope writes; more are a back-log
LOST_S = 1.0  # between looks at files of a root that cannot be seen
MOVIES = frozenset({Role.MOVIE, Role.IMAGE})
_encode = msgspec.msgpack.Encoder().encode


class Examiner:
    """Looks at the files of a shelf.

    Parameters
    ----------
    shelf, series, meeting
        The files and exposures, the mdocs, and where new sessions are told.
    clock
        Monotonic time, for the budget only.
    """

    def __init__(
        self,
        shelf: Shelf,
        series: Series,
        meeting: Meeting,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._shelf, self._series, self._meeting, self._clock = shelf, series, meeting, clock
        self._queue: list[str] = []  # paths still to be looked at, the next one last
        self._settling: defaultdict[str, set[str]] = defaultdict(set)  # folder -> movies

    @property
    def is_done(self) -> bool:
        """Whether all files that were due have been looked at."""
        return not self._queue

    def hurry(self, ground: Ground, hints: frozenset[str], state: State, now: float) -> bool:
        """Look soon at the files of raw events; return whether there were any."""
        for path in hints:
            watched = ground.watched(path)
            if watched in self._shelf.watches:
                self._shelf.watches[watched][1].hurry(now)
                self._queue.append(watched)
                continue
            identity = classify(path).identity
            entry = state.exposures.get(identity)
            if entry is not None and entry.status is Status.SETTLED and entry.path == watched:
                self._shelf.audits[watched] = identity
        return bool(hints)

    def run(self, now: float, until: float, state: State) -> Iterator[Stimulus]:
        """Look at the files that are due, until the budget is used up."""
        watches = self._shelf.watches
        if not self._queue:
            self._queue = [p for p, (_, watch) in reversed(watches.items()) if watch.look_at <= now]
        while self._queue and self._clock() <= until:
            name, watch = watches.get(self._queue.pop(), (None, None))
            if name is not None and watch is not None:
                self._shelf.fresh.add(name.identity)
                yield from self._look(name, watch, state, now)

    def audit(self, state: State, until: float) -> Iterator[Stimulus]:
        """Compare settled movies with what was published; who differs settles again."""
        shelf, later = self._shelf, dict[str, str]()
        while shelf.audits and self._clock() <= until:
            path, identity = shelf.audits.popitem()
            entry, place = state.exposures.get(identity), shelf.place(path)
            if entry is None or entry.status is not Status.SETTLED or path != entry.path:
                continue
            try:
                detail = "" if place is None else difference(*place, entry)
            except (OSError, Refused):
                continue  # it cannot be seen now: nothing is concluded
            if detail is None:
                later[path] = identity
            elif detail:
                yield self._replaced(identity, entry, f"{path}: {detail}")
        shelf.audits.update(later)

    def gains(self, state: State) -> Iterator[Stimulus]:
        """Settle movies again whose gain was missing, once gains have come."""
        if not self._shelf.gains.take_news():
            return
        for movie, path in state.gainless.items():
            entry = state.exposures[movie]
            # Of EER the metadata name the gain: that is compared when the movie settles again.
            named = path.lower().endswith(".eer") or self._shelf.gains.choose(path, None).path
            if entry.status is Status.SETTLED and named:
                yield self._replaced(movie, entry, f"{path}: gain references have come")

    def _replaced(self, movie: str, entry: Entry, detail: str) -> Replaced:
        self._series.forget(entry.path)
        self._shelf.returns += [entry.path, *filter(None, [entry.metadata_path])]
        return Replaced(movie=movie, detail=detail)

    # ---- one file

    def _look(
        self, name: FileName, watch: FileWatch, state: State, now: float
    ) -> Iterator[Stimulus]:
        place = self._shelf.place(watch.path)
        if place is None or place[0].is_lost:
            watch.look_at = now + LOST_S
            return
        try:
            facts = place[0].tree.facts(place[1])
            if facts is None:
                if place[0].is_there():
                    self._shelf.vanished(watch.path, now)
                return
            due = watch.observe(facts, now)
            if name.role in MOVIES:
                self._note_settling(name, watch, now)
            elif name.role is Role.MDOC and watch.looks == 1:
                yield from self._glance(watch, place, state, now)
            if due and name.role in MOVIES:
                self._test_movie(name, watch, place, state, now)
            elif due:
                yield from self._test_document(name, watch, place, state, now)
        except Refused as error:
            watch.failed(error.code, error.detail, now)
        except Transient as error:
            watch.failed(Code.READ_ERROR, str(error), now)
        except OSError as error:
            watch.failed(Code.READ_ERROR, f"cannot be read: {error.strerror}", now)

    def _test_movie(
        self, name: FileName, watch: FileWatch, place: tuple[Ground, str], state: State, now: float
    ) -> None:
        assert watch.facts is not None  # noqa: S101
        header = header_of(*place, watch.facts)
        if header is None:  # newer than the look showed: shares cache sizes and times
            watch.again(now)
            return
        watch.passed(header, now)
        self._vouch(name, watch, now)
        if name.role is Role.IMAGE:
            identity = self._series.adopted(name.identity)
            self._shelf.promote(name._replace(identity=identity), watch, state, now)

    def _test_document(
        self, name: FileName, watch: FileWatch, place: tuple[Ground, str], state: State, now: float
    ) -> Iterator[Stimulus]:
        ground, inside = place
        record = ground.tree.record(inside)
        if ground.tree.facts(inside) != watch.facts:
            return  # it changed while it was read: that is not what was read
        watch.passed(_encode(record), now)
        match name.role:
            case Role.METADATA:
                yield from self._metadata(name, watch, record, state)
            case Role.MDOC:
                watch.result = None  # each movie keeps its own part
                software = record.get("software") or layouts.Software.SERIALEM
                where = layouts.place(inside, ground.name)
                yield from self._meeting.session(ground, where, software)
                yield from self._series.distribute(watch.path, record, state, now, is_still=True)
            case Role.FRACTIONS:
                self._fractions(name, watch, record)
            case Role.SESSION:
                folder = inside.rpartition("/")[0]
                session = folder.rpartition("/")[2] or ground.name
                yield Described(session=session, record=watch.result)
                watch.result = None

    def _glance(
        self, watch: FileWatch, place: tuple[Ground, str], state: State, now: float
    ) -> Iterator[Stimulus]:
        """Use what an mdoc that still grows says already: all sections but the last."""
        try:
            record = place[0].tree.record(place[1])
        except (Refused, Transient, OSError):
            return  # it is looked at again when it is still
        yield from self._series.distribute(watch.path, record, state, now, is_still=False)

    def _metadata(
        self, name: FileName, watch: FileWatch, record: Record, state: State
    ) -> Iterator[Stimulus]:
        if record.format != "epu_xml":
            raise Refused(Code.UNSUPPORTED, f"it is a {record.kind}, not EPU's image XML")
        exposure = self._shelf.exposures.get(name.identity)
        if exposure is not None and exposure.metadata is watch:
            exposure.expected = expected_frames(record)
            return
        entry = state.exposures.get(name.identity)
        if entry is not None and entry.metadata == "inherited":
            del self._shelf.watches[watch.path]
            yield MetadataCame(movie=name.identity, metadata_path=watch.path, record=watch.result)

    def _fractions(self, name: FileName, watch: FileWatch, record: Record) -> None:
        """The camera's own list of what it wrote: a witness when all of it is there."""
        frames = record.get("n_frames")
        if frames is None or frames != record.get("n_frames_expected"):
            return
        if record.get("all_checksums_valid") is not False:
            del self._shelf.watches[watch.path]
            self._shelf.witnesses[name.identity] = frames

    # ---- witnesses

    def _note_settling(self, name: FileName, watch: FileWatch, now: float) -> None:
        """Keep who may be vouched for; the camera's own list does so at once."""
        if watch.standing is Standing.SETTLING:
            self._settling[watch.path.rpartition("/")[0]].add(watch.path)
            if name.identity in self._shelf.witnesses:
                watch.vouched(now)

    def _vouch(self, name: FileName, watch: FileWatch, now: float) -> None:
        """A complete movie vouches for older ones whose frames can be counted against a promise."""
        others = self._settling[watch.path.rpartition("/")[0]]
        others.discard(watch.path)
        if name.foreign or len(others) > FEW:
            return
        taken = _time(watch.path)
        for path in [path for path in others if "" < _time(path) < taken]:
            other, settling = self._shelf.watches.get(path, (None, None))
            exposure = self._shelf.exposures.get(other.identity) if other is not None else None
            if settling is None or settling.standing is not Standing.SETTLING:
                others.discard(path)
            elif exposure is not None and exposure.expected and not path.lower().endswith(".eer"):
                settling.vouched(now)


def _time(path: str) -> str:
    """Return the part of a movie's name that EPU counts time in, "" for other names."""
    stem = classify(path).identity.rpartition("/")[2]
    return "_".join(stem.split("_")[-2:]) if stem.startswith("FoilHole_") else ""
