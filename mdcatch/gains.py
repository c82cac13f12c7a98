"""Which gain reference goes with the session's movies. Pure.

Source: acquisition.md sections 1.10, 2.2 and 2.5.
"""


class Gains:
    """Gain files seen so far; paths are below the raw root.

    Parameters
    ----------
    configured
        Path a person gave; nothing else is considered then.
    """

    def __init__(self, configured: str | None):
        self._configured = configured
        self._seen: dict[str, set[str]] = {}
        self._current: str | None = None

    def add(self, path: str) -> None:
        """Note a gain file."""
        self._seen.setdefault(path.rpartition("/")[0], set()).add(path)

    def choose(self, movie: str, current: str | None) -> str | None:
        """Return the gain of a movie, or None.

        One file serves the session, as long as it exists: EPU repeats the same reference beside
        many movies. The first is the nearest: beside the movie, then in each folder above it up
        to the raw root; by name where there are several.

        Parameters
        ----------
        movie
            Path of the movie.
        current
            The gain of the movies settled before.
        """
        if self._configured is not None:
            return self._configured
        self._current = self._current or current
        if self._current is None or self._current not in self._in_folder_of(self._current):
            self._current = self._nearest(movie)
        return self._current

    def _nearest(self, movie: str) -> str | None:
        path = movie
        while path:
            if found := self._in_folder_of(path):
                return min(found)
            path = path.rpartition("/")[0]
        return None

    def _in_folder_of(self, path: str) -> set[str]:
        return self._seen.get(path.rpartition("/")[0], set())
