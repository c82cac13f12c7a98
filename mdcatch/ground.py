"""One watched folder: its tree, the generator that scans it, raw events, and whether it is there.

Source: acquisition.md sections 2.9, 8 (1, 10) and 10 (2).
"""

from collections.abc import Callable, Generator
from pathlib import Path

from mdcatch.disk import Tree
from mdcatch.hints import Accelerator
from mdcatch.ledger import SESSION
from mdcatch.roots import FileSystem, RootConfig, is_other_session
from mdcatch.stimuli import RootFound, RootLost, RootSeen, Stimulus
from mdcatch.watcher import Found, Rhythm, Sighting, Tick, watch


class Ground:
    """A folder that is watched.

    Parameters
    ----------
    config
        Where it is and what it may hold.
    tree
        Its file system.
    system
        What it lies on.
    rhythm
        How often all of it is looked at.
    is_raw
        Whether it is the raw folder, below which paths are named without it.
    """

    def __init__(
        self,
        config: RootConfig,
        tree: Tree,
        system: FileSystem,
        rhythm: Rhythm,
        *,
        is_raw: bool,
    ):
        self.config, self.tree, self.system, self.is_raw = config, tree, system, is_raw
        self.path = Path(config.path)
        self.name = self.path.name
        self.subject = SESSION if is_raw else config.path
        self.is_lost = False
        self._prefix = "" if is_raw else f"{config.path}/"
        self._scan: Generator[Sighting, Tick, None] = watch(tree, rhythm, self._skips)
        next(self._scan)
        self._gone: list[str] = []
        self._accelerator: Accelerator | None = None
        self._told = False

    def _skips(self, name: str) -> bool:
        return bool(self.config.session) and is_other_session(name, self.config.session)

    def watched(self, path: str) -> str:
        """Return the watcher's name of a path below this root."""
        return self._prefix + path

    def inside(self, path: str) -> str | None:
        """Return the path below this root of the watcher's name, None when it is not here."""
        if self.is_raw:
            return None if path.startswith("/") else path
        return path[len(self._prefix) :] if path.startswith(self._prefix) else None

    def forget(self, path: str) -> None:
        """Let a file that went away be found again."""
        self._gone.append(path)

    def take(self) -> frozenset[str]:
        """Return the paths, below this root, of raw events since the last call."""
        return frozenset() if self._accelerator is None else self._accelerator.take()

    def look(self, now: float, hints: frozenset[str]) -> tuple[list[Stimulus], tuple[Found, ...]]:
        """Scan; return news about the root itself, and what was found.

        Parameters
        ----------
        now
            Monotonic time, s.
        hints
            Paths of raw events.
        """
        folders = frozenset(path.rpartition("/")[0] for path in hints)
        gone, self._gone = tuple(self._gone), []
        sighting = self._scan.send(Tick(now, folders, gone))
        if sighting.lost:
            self._gone = list(gone)
            return self._lose(sighting.lost), ()
        news: list[Stimulus] = []
        if self.is_lost or not self._told:  # it may have been lost when the daemon stopped
            self.is_lost = False
            news.append(RootFound(root=self.subject))
        if not self._told:
            self._told = True
            news.append(self._seen())
        return news, sighting.found

    def is_there(self) -> bool:
        """Tell whether the root can be seen now: what is missing below it is then really gone."""
        try:
            return bool(self.tree.entries(""))
        except OSError:
            return False

    def accelerate(self, wake: Callable[[], None]) -> None:
        """Ask the kernel for raw events, where it has any."""
        if self._accelerator is None and not self.system.is_network:
            self._accelerator = Accelerator(self.path, wake)

    def close(self) -> None:
        """Stop the thread of raw events."""
        if self._accelerator is not None:
            self._accelerator.close()
            self._accelerator = None

    def _seen(self) -> RootSeen:
        return RootSeen(
            path=str(self.path),
            role=self.config.role,
            file_system=self.system.kind,
            observer=self.system.observer,
        )

    def _lose(self, why: str) -> list[Stimulus]:
        """Pause: an empty root is unavailable, never deleted."""
        if self.is_lost:
            return []
        self.is_lost = True
        self.close()
        what = "raw folder" if self.is_raw else f"folder for {self.config.role}"
        return [RootLost(detail=f"{what} {self.path} {why}", root=self.subject)]
