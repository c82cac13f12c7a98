"""What mdocs say, given to the movies they name; movies and mdocs come in any order.

Source: acquisition.md sections 3.1 to 3.3 and 4.
"""

from collections.abc import Iterator

import msgspec

from mdcatch import mdocs
from mdcatch.book import stem_of
from mdcatch.checks import expected_frames
from mdcatch.ledger import State, Status
from mdcatch.mdocs import Shot
from mdcatch.parsers.record import Record
from mdcatch.settle import Facts, FileWatch, Pace, Standing
from mdcatch.shelf import Shelf
from mdcatch.stimuli import MetadataCame, Stimulus

WHOLE = -1  # section of an mdoc that speaks for one movie only
_NEVER = float("inf")
_encode = msgspec.msgpack.Encoder().encode


class Series:
    """The mdocs of a session.

    Parameters
    ----------
    shelf
        Whose exposures get what they say.
    """

    def __init__(self, shelf: Shelf):
        self._shelf = shelf
        self._orphans: dict[str, str] = {}  # stem of a movie that has not come -> exposure
        self._told: set[tuple[str, str]] = set()  # mdocs and the movies they have spoken for

    def names(self, stem: str) -> bool:
        """Tell whether an mdoc names a movie that has not come."""
        return stem in self._orphans

    def distribute(
        self, path: str, record: Record, state: State, now: float, *, is_still: bool
    ) -> Iterator[Stimulus]:
        """Give what an mdoc says to the movies it names; the last section when it is still.

        Parameters
        ----------
        path, record
            The mdoc, and what it says.
        state, now
            The ledger; monotonic time, s.
        is_still
            Whether it has not grown for a while.
        """
        place = self._shelf.place(path)
        if place is None:
            return
        ground, inside = place
        folder, _, base = inside.rpartition("/")
        here = f"{folder}/" if folder else ""
        for image in mdocs.images(record, base):
            self._shelf.drop_sum(ground.watched(here + image))
        found = mdocs.shots(record, base)
        for shot in found if is_still else found[:-1]:
            key = path, shot.file_name.lower()
            if key in self._told:
                continue
            if shot.code is None:
                self._told.add(key)
            yield from self._give(path, folder, shot, state, now)

    def adopted(self, identity: str) -> str:
        """Return the exposure of a movie that an mdoc may have named before the movie came.

        What was not told yet takes the movie's own name; what was keeps the name it was told by.
        """
        orphan = self._orphans.pop(identity.rpartition("/")[2].lower(), None)
        if orphan is None or orphan == identity:
            return identity
        exposures = self._shelf.exposures
        waiting = exposures.get(orphan)
        if waiting is None or waiting.movie is not None:
            return identity
        if waiting.announced:
            return orphan
        del exposures[orphan]
        waiting.identity = identity
        exposures[identity] = waiting
        self._shelf.book.learn(identity)
        self._shelf.fresh.add(identity)
        return identity

    def forget(self, movie: str) -> None:
        """Let mdocs speak for a movie again."""
        name = movie.rpartition("/")[2].lower()
        self._told = {key for key in self._told if key[1] != name}

    def _give(
        self, path: str, folder: str, shot: Shot, state: State, now: float
    ) -> Iterator[Stimulus]:
        shelf, stem = self._shelf, stem_of(shot.file_name)
        identity = shelf.book.of_movie(shot.file_name, folder)
        if identity is None:
            identity = f"{folder}/{stem}" if folder else stem
            self._orphans[stem.lower()] = identity
        entry = state.exposures.get(identity)
        if entry is not None and entry.status is Status.SETTLED:
            if entry.metadata == "inherited" and shot.code is None:
                is_series = shot.record.kind == "tilt_series"
                yield MetadataCame(
                    movie=identity,
                    metadata_path=path,
                    record=_encode(shot.record),
                    series=path if is_series else "",
                    section=shot.section if is_series else None,
                )
            return
        exposure = shelf.exposure(identity, state, now)
        if exposure.metadata is not None and exposure.section is None:
            return  # it has a file of its own
        shelf.give(exposure, "metadata", _part(path, shot, now))
        exposure.section = WHOLE if shot.section is None else shot.section
        exposure.expected = expected_frames(shot.record)


def _part(path: str, shot: Shot, now: float) -> FileWatch:
    """Return what stands for one section of a file; the file itself is watched by its own watch."""
    watch = FileWatch(path, Pace(1.0, 0.0, 0.0), look_at=_NEVER, since=now)
    watch.facts = Facts(0, 0, shot.section or 0)
    if shot.code is None:
        watch.passed(_encode(shot.record), now)
    else:
        watch.standing, watch.code, watch.detail = Standing.REFUSED, shot.code, shot.detail
    return watch
