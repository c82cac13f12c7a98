"""Which files are there? A generator over ticks: time and raw events in, what was found out.

The reconciling scan is the truth and raw events only hints, for inotify says nothing about changes
that another host makes on a share. A tick lists the folders that are hinted at, and those whose
modification time changed: of the newest folders at every tick, of all folders in every sweep, and
in a full walk every folder whatever its time says. Times are compared with each other only, never
with a clock.

Source: acquisition.md sections 2.9 and 8 (1, 2, 10).
"""

import heapq
from collections.abc import Callable, Generator, Iterable
from typing import NamedTuple

import msgspec

from mdcatch import names
from mdcatch.disk import Tree

HOT_S = 2.0  # how long a changed folder is listed at every poll; FAT's clock ticks every 2 s
NEWEST = 16  # folders that are looked at in every tick: where a microscope writes at a time


class Tick(NamedTuple):
    """What drives the generator: monotonic time in s, and the folders of raw events.

    `gone` are files that were looked for and not there: they count as new when they come back.
    """

    now: float
    hints: frozenset[str] = frozenset()
    gone: tuple[str, ...] = ()


class Found(NamedTuple):
    """A file that was not there before, or is another one now (`replaced`: a new inode)."""

    path: str
    regular: bool
    replaced: bool = False


class Sighting(NamedTuple):
    """What one tick has found.

    `lost` says why the root cannot be seen: it is missing, empty or failing. Nothing is concluded
    from that, and nothing is forgotten.
    """

    found: tuple[Found, ...] = ()
    lost: str = ""


class Rhythm(NamedTuple):
    """Seconds between sweeps and between full walks."""

    sweep_s: float
    full_walk_s: float


class _Folder(msgspec.Struct):
    changed: int = -1
    hot_until: float = float("-inf")
    known: dict[str, int] = msgspec.field(default_factory=dict)  # name -> inode
    is_empty: bool = True


def watch(
    tree: Tree, rhythm: Rhythm, skips: Callable[[str], bool] = lambda name: False
) -> Generator[Sighting, Tick, None]:
    """Yield what each tick that is sent in shows; the first value, before any tick, is empty.

    Parameters
    ----------
    tree
        The watched tree.
    rhythm
        How often all folders are looked at.
    skips
        Says of a folder, by its name, that it is not entered.
    """
    walker = _Walker(tree, skips)
    sweep_at = walk_at = float("-inf")
    tick = yield Sighting()
    while True:
        walk = tick.now >= walk_at
        sweep = walk or tick.now >= sweep_at
        sighting = walker.turn(tick, sweep=sweep, walk=walk)
        if not sighting.lost:
            walk_at = tick.now + rhythm.full_walk_s if walk else walk_at
            sweep_at = tick.now + rhythm.sweep_s if sweep else sweep_at
        tick = yield sighting


class _Walker:
    """The folders seen so far."""

    def __init__(self, tree: Tree, skips: Callable[[str], bool]):
        self._tree, self._skips = tree, skips
        self._folders: dict[str, _Folder] = {"": _Folder()}

    def turn(self, tick: Tick, *, sweep: bool, walk: bool) -> Sighting:
        found: list[Found] = []
        for path in tick.gone:
            parent, _, name = path.rpartition("/")
            if parent in self._folders:
                self._folders[parent].known.pop(name, None)
        try:
            self._look("", tick, walk, found)
        except OSError as error:
            return Sighting(lost=f"cannot be read: {error.strerror}")
        if self._folders[""].is_empty:
            return Sighting(lost="is empty")
        todo = sorted(self._folders if sweep else self._hot(tick), reverse=True)
        while todo:
            path = todo.pop()
            if path not in self._folders or not path:
                continue
            before = len(self._folders)
            try:
                self._look(path, tick, walk, found)
            except (FileNotFoundError, NotADirectoryError):
                self._drop(path)
                continue
            except OSError:
                continue  # one folder fails: the others go on, the next sweep tries again
            if len(self._folders) > before:
                todo += reversed(list(self._folders)[before:])
        return Sighting(tuple(found))

    def _hot(self, tick: Tick) -> set[str]:
        """Return the folders where something may have happened, with those above them."""
        folders = self._folders
        newest = heapq.nlargest(NEWEST, folders, key=lambda path: folders[path].changed)
        hot = {path for path, folder in folders.items() if tick.now < folder.hot_until}
        return set(_with_parents([*newest, *hot, *tick.hints]))

    def _drop(self, path: str) -> None:
        """Forget a folder that is gone, with what was below it."""
        prefix = f"{path}/"
        for inner in [p for p in self._folders if p == path or p.startswith(prefix)]:
            del self._folders[inner]

    def _look(self, path: str, tick: Tick, walk: bool, found: list[Found]) -> None:
        folder = self._folders[path]
        changed = self._tree.changed(path)
        is_news = changed != folder.changed
        if not (is_news or walk or tick.now < folder.hot_until or path in tick.hints):
            return
        prefix = f"{path}/" if path else ""
        entries = [e for e in self._tree.entries(path) if not names.is_temporary(e.name)]
        # Only now: a folder that cannot be listed is tried again.
        folder.changed, folder.is_empty = changed, not entries
        if is_news:
            folder.hot_until = tick.now + HOT_S
        known: dict[str, int] = {}
        for entry in entries:
            if entry.is_folder:
                if not self._skips(entry.name):
                    self._folders.setdefault(prefix + entry.name, _Folder())
                continue
            known[entry.name] = entry.inode
            before = folder.known.get(entry.name)
            if before != entry.inode:
                found.append(Found(prefix + entry.name, entry.regular, before is not None))
        folder.known = known


def _with_parents(paths: Iterable[str]) -> Iterable[str]:
    for path in paths:
        while path:
            yield path
            path = path.rpartition("/")[0]
