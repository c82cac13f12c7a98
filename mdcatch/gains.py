"""Which gain reference goes with the session's movies: those seen so far, and the choice. Pure.

Source: acquisition.md sections 1.10, 2.2, 2.5 and 3.3.
"""

from collections.abc import Iterable, Iterator

from mdcatch.gainfiles import Choice, choose_gain
from services.kit.sitetables import Camera

FEW = 20  # gains of a folder that are compared; EPU repeats the same one beside every movie


class Gains:
    """Gain files seen so far, by the watcher's paths.

    Parameters
    ----------
    configured
        Path a person gave; nothing else is considered then.
    """

    def __init__(self, configured: str | None):
        self._configured = configured
        self._seen: dict[str, set[str]] = {}
        self._in_folders: list[str] = []
        self._current: str | None = None
        self._has_news = False

    def add(self, path: str) -> None:
        """Note a gain file."""
        beside = self._seen.setdefault(path.rpartition("/")[0], set())
        self._has_news |= path not in beside
        beside.add(path)

    def stock(self, paths: Iterable[str]) -> None:
        """Take the present contents of the site's gain folders."""
        found = sorted(paths)
        self._has_news |= not set(found) <= set(self._in_folders)
        self._in_folders = found

    def take_news(self) -> bool:
        """Tell whether gains have come since the last call."""
        had, self._has_news = self._has_news, False
        return had

    def choose(
        self,
        movie: str,
        current: str | None,
        *,
        stated: str | None = None,
        camera: Camera | None = None,
        acquired_at: str | None = None,
    ) -> Choice:
        """Return the gain of a movie.

        Where metadata name it, or SerialEM dates it, that decides. Else one file serves the
        session, as long as it exists, for EPU repeats the same reference beside many movies: the
        nearest to the first movie, beside it, then in each folder above it up to the root.

        Parameters
        ----------
        movie
            Path of the movie.
        current
            The gain of the movies settled before.
        stated
            Base name that metadata or header state.
        camera
            Of the site, for its patterns.
        acquired_at
            ISO 8601, where the metadata tells it.
        """
        if self._configured is not None:
            return Choice(self._configured, "given by a person")
        near = list(self._near(movie))
        choice = choose_gain(movie, stated, camera, near, self._in_folders, acquired_at)
        if not choice.of_session:
            return choice
        self._current = self._current or current
        if self._current is None or self._current not in self._beside(self._current):
            self._current = choice.path
        if self._current is None or self._current == choice.path:
            return choice
        return Choice(self._current, "the session's gain", choice.flag if choice.path else "")

    def _near(self, movie: str) -> Iterator[str]:
        path = movie
        while path:
            yield from sorted(self._beside(path))[:FEW]
            path = path.rpartition("/")[0]

    def _beside(self, path: str) -> set[str]:
        return self._seen.get(path.rpartition("/")[0], set())
