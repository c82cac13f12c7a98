"""Raw events of this host's kernel as hints: which files may be news.

Without them everything works, up to one poll later.

Source: acquisition.md sections 2.9 and 10 (2).
"""

import threading
from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

_NEWS = frozenset({"created", "moved", "closed"})  # our own opening and reading is none
MANY = 1000  # hints that are kept; more than this, and the next sweep finds them all the same


class Accelerator(FileSystemEventHandler):
    """Calls `wake` when this host creates, renames or finishes writing a file below `root`."""

    def __init__(self, root: Path, wake: Callable[[], None]):
        self._root, self._wake = str(root), wake
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._observer: BaseObserver | None = None
        if not root.is_dir():
            return
        observer = Observer()
        try:
            observer.schedule(self, self._root, recursive=True)
            observer.start()
        except OSError:  # no inotify here, or its watches are used up
            return
        self._observer = observer

    @property
    def is_running(self) -> bool:
        """Whether hints come."""
        return self._observer is not None and self._observer.is_alive()

    def take(self) -> frozenset[str]:
        """Return the paths below the root at which something happened since the last call."""
        with self._lock:
            paths, self._paths = frozenset(self._paths), set()
        return paths

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Note the file; wake the host once per burst."""
        if event.event_type not in _NEWS:
            return
        paths = {
            str(path).removeprefix(self._root).strip("/")
            for path in (event.src_path, event.dest_path)
            if path
        }
        with self._lock:
            first = not self._paths
            if len(self._paths) < MANY:
                self._paths |= paths
        if first:
            self._wake()

    def close(self) -> None:
        """Stop the thread."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None
