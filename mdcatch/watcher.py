"""Which files are there? A reconciling scan of the tree, and inotify to make it soon.

The scan is the truth and the accelerator only a hint, for inotify says nothing about changes that
another host makes on a share. A folder is listed when its modification time changed, for a while
after that (two changes can share one tick of a file system's clock), and in every full walk.

Source: acquisition.md sections 2.9 and 8 (1, 10).
"""

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from mdcatch import names
from mdcatch.disk import Tree

HOT_S = 2.0  # how long a changed folder is listed at every poll; FAT's clock ticks every 2 s


class Unavailable(Exception):
    """The root cannot be seen: missing, empty or failing. Nothing is concluded from that."""


class _Folder(msgspec.Struct):
    changed: int = -1
    hot_until: float = 0.0
    known: set[str] = msgspec.field(default_factory=set)
    is_empty: bool = True


class Scanner:
    """Finds each file once.

    Parameters
    ----------
    tree
        The watched tree.
    full_walk_s
        Seconds between walks that list every folder, whatever its time says.
    """

    def __init__(self, tree: Tree, full_walk_s: float):
        self._tree = tree
        self._full_walk_s = full_walk_s
        self._next_walk = float("-inf")
        self._folders: dict[str, _Folder] = {"": _Folder()}

    def poll(self, now: float) -> list[tuple[str, bool]]:
        """Return paths not returned before, and whether each is a regular file.

        Parameters
        ----------
        now
            Monotonic time, s.

        Raises
        ------
        Unavailable
            When the root is missing, empty or failing.
        """
        walk = now >= self._next_walk
        if walk:
            self._next_walk = now + self._full_walk_s
        found: list[tuple[str, bool]] = []
        try:
            self._look("", now, walk, found)
        except OSError as error:
            raise Unavailable(f"cannot be read: {error.strerror}") from None
        if self._folders[""].is_empty:
            raise Unavailable("is empty")
        todo = [path for path in self._folders if path]
        while todo:
            path = todo.pop()
            before = len(self._folders)
            try:
                self._look(path, now, walk, found)
            except (FileNotFoundError, NotADirectoryError):
                del self._folders[path]
                continue
            except OSError:
                continue  # one folder fails: the others go on, the next poll tries again
            if len(self._folders) > before:
                todo += list(self._folders)[before:]
        return found

    def forget(self, path: str) -> None:
        """Let a file that went away be found again."""
        parent, _, name = path.rpartition("/")
        if folder := self._folders.get(parent):
            folder.known.discard(name)

    def _look(self, path: str, now: float, walk: bool, found: list[tuple[str, bool]]) -> None:
        folder = self._folders[path]
        changed = self._tree.changed(path)
        if changed != folder.changed:
            folder.changed, folder.hot_until = changed, now + HOT_S
        elif now >= folder.hot_until and not walk:
            return
        prefix = f"{path}/" if path else ""
        known: set[str] = set()
        folder.is_empty = True
        for entry in self._tree.entries(path):
            if names.is_temporary(entry.name):
                continue
            folder.is_empty = False
            if entry.is_folder:
                self._folders.setdefault(prefix + entry.name, _Folder())
                continue
            known.add(entry.name)
            if entry.name not in folder.known:
                found.append((prefix + entry.name, entry.regular))
        folder.known = known


class Accelerator(FileSystemEventHandler):
    """Calls `wake` when this host creates, renames or finishes writing a file below `root`.

    Without it everything works, up to one poll later.
    """

    def __init__(self, root: Path, wake: Callable[[], None]):
        self._wake = wake
        self._woken = threading.Event()
        self._observer: BaseObserver | None = None
        observer = Observer()
        try:
            observer.schedule(self, str(root), recursive=True)
            observer.start()
        except OSError:  # no inotify here, its watches are used up, or the root is missing
            return
        self._observer = observer

    @property
    def is_running(self) -> bool:
        """Whether hints come."""
        return self._observer is not None and self._observer.is_alive()

    def take(self) -> bool:
        """Return whether something happened since the last call."""
        woken = self._woken.is_set()
        self._woken.clear()
        return woken

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake the host once per burst; our own opening and reading is not news."""
        if event.event_type in ("created", "moved", "closed") and not self._woken.is_set():
            self._woken.set()
            self._wake()

    def close(self) -> None:
        """Stop the thread."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None
