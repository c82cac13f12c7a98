"""Which exposure a file belongs to, whatever session folder or root it lies in. Pure.

An exposure is named by its path below the raw folder, without suffix. A file on another root gets
the name that its session has on the raw folder, and its tail. Where even the session has another
name, grid square and file stem tell; they also tell when a session is renamed, or copied.

Source: acquisition.md sections 2.1, 2.2 and 3.3 (SubFramePath).
"""

from collections import defaultdict

from mdcatch.layouts import Place, place
from mdcatch.names import classify, identifiers


class Book:
    """The exposures known so far.

    Parameters
    ----------
    raw_name
        Name of the raw folder: that of the session, when it is a session's folder.
    """

    def __init__(self, raw_name: str):
        self._raw_name = raw_name
        self._identities: set[str] = set()
        self._by_key: dict[tuple[str, str], str] = {}
        self._by_stem: dict[str, set[str]] = defaultdict(set)
        self._folders = {raw_name: ""}  # of sessions, on the raw folder
        self._is_above: bool | None = None  # whether sessions lie below the raw folder

    def learn(self, identity: str) -> None:
        """Note an exposure."""
        if identity in self._identities:
            return
        self._identities.add(identity)
        found = place(identity, self._raw_name)
        self._by_stem[found.stem.lower()].add(identity)
        if _is_unique(identity):
            self._by_key.setdefault(found.key, identity)

    def here(self, identity: str) -> tuple[str, Place]:
        """Return exposure and place of a file below the raw folder."""
        found = place(identity, self._raw_name)
        if found.tail != identity or found.square:
            self._folders.setdefault(found.session, found.folder)
            self._is_above = bool(self._is_above or found.folder)
        twin = self._by_key.get(found.key) if _is_unique(identity) else None
        return identity if identity in self._identities or twin is None else twin, found

    def elsewhere(
        self, identity: str, root_name: str, *, patient: bool = True
    ) -> tuple[str | None, Place]:
        """Return exposure and place of a file below another root.

        Parameters
        ----------
        identity
            Path below that root, without suffix.
        root_name
            Of that root's own folder.
        patient
            Return None where the session is not known on the raw folder: it may still be.
        """
        found = place(identity, root_name)
        if not _is_unique(identity):
            return identity, found
        folder = self._folders.get(found.session)
        if folder is not None:
            known = f"{folder}/{found.tail}" if folder else found.tail
            if known in self._identities or found.key not in self._by_key:
                return known, found
        if found.key in self._by_key:
            return self._by_key[found.key], found
        if not found.folder and not self._is_above:
            return found.tail, found  # the root is the session's folder, as the raw folder is
        if patient or self._is_above is False:
            return None, found
        return f"{found.session}/{found.tail}", found

    def of_movie(self, file_name: str, folder: str) -> str | None:
        """Return the exposure of a movie that an mdoc names, None when it is not known yet.

        Parameters
        ----------
        file_name
            Base name of the movie.
        folder
            Of the mdoc: the nearest is meant where several movies have the name.
        """
        candidates = self._by_stem.get(stem_of(file_name).lower(), ())
        return min(candidates, key=lambda one: (-_shared(one, folder), one), default=None)


def stem_of(file_name: str) -> str:
    """Return the stem of a movie's name, as exposures are named."""
    return classify(file_name).identity or file_name.rpartition(".")[0] or file_name


def _is_unique(identity: str) -> bool:
    """Tell whether a name holds foil hole and time: no other exposure has it."""
    return bool(identifiers(identity).foil_hole)


def _shared(identity: str, folder: str) -> int:
    pairs = zip(identity.split("/")[:-1], folder.split("/"), strict=False)
    count = 0
    for mine, theirs in pairs:
        if mine != theirs:
            break
        count += 1
    return count
