"""Meeting files: what a path means, which exposure and session it belongs to, whether it is let in.

Source: acquisition.md sections 2.1, 2.2 and 3.1; reliability.md section 2.11 (file names).
"""

from collections import defaultdict
from collections.abc import Iterator

from mdcatch import layouts, names
from mdcatch.book import stem_of
from mdcatch.ground import Ground
from mdcatch.layouts import Place, Software
from mdcatch.ledger import State
from mdcatch.names import FileName, Role
from mdcatch.series import Series
from mdcatch.shelf import Shelf
from mdcatch.stimuli import Noticed, Rejected, SessionMet, Stimulus
from mdcatch.watcher import Found
from services.kit.errors import Code

_NEVER = float("inf")


class Meeting:
    """Takes in what the scans find.

    Parameters
    ----------
    shelf, series
        Where files go.
    """

    def __init__(self, shelf: Shelf, series: Series):
        self._shelf, self._series = shelf, series
        # Movies of a session that the raw folder does not know, with the time of their coming.
        self._parked: dict[str, tuple[Ground, Found, float]] = {}
        self._parked_by_key: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._passed: dict[str, tuple[Ground, Found]] = {}  # names that meant nothing, by stem
        self._epu_folders: set[str] = set()
        self._epu_parents: set[str] = set()
        self._sessions: dict[str, str] = {}  # name -> software

    def survey(self, ground: Ground, found: tuple[Found, ...]) -> None:
        """Learn where EPU writes, before names that only others would give are judged."""
        for one in found:
            inner = one.path.rpartition("/")[0]
            if ground.watched(inner) not in self._epu_folders and layouts.is_of_epu(one.path):
                folder = layouts.place(one.path, ground.name).folder or inner
                self._epu_folders.update((ground.watched(inner), ground.watched(folder)))
                self._epu_parents.update(_parents(ground.watched(folder)))

    def meet(self, ground: Ground, found: Found, state: State, now: float) -> Iterator[Stimulus]:
        """Take in a file that was not there before, or is another one now."""
        shelf = self._shelf
        name, path = names.classify(found.path), ground.watched(found.path)
        if name.role is Role.IGNORED or not ground.config.takes(name.role):
            return
        if name.role is Role.GAIN:
            shelf.gains.add(path)
        elif name.role is Role.DEFECTS:
            shelf.defects.add(path)
        elif not found.regular or not names.is_allowed(found.path):
            if name.role is Role.MOVIE:
                yield from _bad_name(path, found, name)
        elif path in shelf.watches:
            shelf.watches[path][1].look_at = now
        elif name.role in (Role.MDOC, Role.SESSION):
            shelf.saw_metadata |= name.role is Role.MDOC
            shelf.watch(path, name, ground, now)
        elif name.foreign and self._is_meaningless(path):
            self._passed[_stem(path)] = ground, found
        else:
            yield from self._of_exposure(ground, found, name, state, now)

    def again(self, state: State, now: float) -> Iterator[Stimulus]:
        """Meet files that are to be met once more, and those that have waited long enough."""
        returns, self._shelf.returns = self._shelf.returns, []
        for path in returns:
            held, place = self._shelf.watches.get(path), self._shelf.place(path)
            if held is not None and held[0].role is Role.MDOC:
                held[1].again(now)
            elif place is not None and self._shelf.exists(path):
                yield from self.meet(place[0], Found(place[1], True), state, now)
        wait_s = self._shelf.patience().partner_s
        for path in [p for p, (_, _, since) in self._parked.items() if now - since >= wait_s]:
            ground, found, _ = self._parked[path]
            self._parked[path] = ground, found, _NEVER
            yield from self.meet(ground, found, state, now)
        for stem in [stem for stem in self._passed if self._series.names(stem)]:
            ground, found = self._passed.pop(stem)
            yield from self.meet(ground, found, state, now)

    def session(self, ground: Ground, place: Place, software: str) -> Iterator[Stimulus]:
        """Say once that a session is there; that of other software is the raw folder itself."""
        known = self._sessions.get(place.session)
        if known is None or (known == Software.FLAT and software != known):
            self._sessions[place.session] = software
            folder = ground.watched(place.folder).rstrip("/") or "."
            yield SessionMet(session=place.session, path=folder, software=software)

    def _of_exposure(
        self, ground: Ground, found: Found, name: FileName, state: State, now: float
    ) -> Iterator[Stimulus]:
        path, book = ground.watched(found.path), self._shelf.book
        if ground.is_raw:
            identity, place = book.here(name.identity)
        else:
            patient = path not in self._parked
            identity, place = book.elsewhere(name.identity, ground.name, patient=patient)
            if identity is None:
                self._parked.setdefault(path, (ground, found, now))
                self._parked_by_key[place.key].add(path)
                return
            self._parked.pop(path, None)
        name = name._replace(identity=self._series.adopted(identity))
        if name.exposure:
            yield from self.session(ground, place, layouts.recognise([found.path]))
        yield from self._shelf.take(path, name, ground, state, now)
        if name.exposure:
            book.learn(name.identity)
            yield from self._unpark(place.key, state, now)

    def _unpark(self, key: tuple[str, str], state: State, now: float) -> Iterator[Stimulus]:
        for path in sorted(self._parked_by_key.pop(key, ())):
            if path in self._parked:
                ground, found, _ = self._parked[path]
                yield from self.meet(ground, found, state, now)

    def _is_meaningless(self, path: str) -> bool:
        """Tell whether a name that EPU would not give lies in, or beside, a session of EPU."""
        folder = path.rpartition("/")[0]
        if folder in self._epu_parents or layouts.is_of_epu(path):
            return not self._series.names(_stem(path))
        return any(parent in self._epu_folders for parent in (folder, *_parents(folder)))


def _stem(path: str) -> str:
    return stem_of(path.rpartition("/")[2]).lower()


def _bad_name(path: str, found: Found, name: FileName) -> Iterator[Stimulus]:
    reason = (
        "only letters, digits, blank and . _ + - are let in, not first - or ."
        if found.regular
        else "it is a link or a device, not a file"
    )
    movie, shown = names.printable(name.identity), names.printable(path)
    yield Noticed(movie=movie, path=shown)
    yield Rejected(movie=movie, code=Code.BAD_NAME, detail=f"{shown}: {reason}")


def _parents(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path
