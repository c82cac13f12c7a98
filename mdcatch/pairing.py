"""Is an exposure ready? Pure: where its files stand, in; what to say of it, out.

Movie and metadata arrive in either order, seconds to minutes apart; the answer depends on what is
there, never on what came first.

Source: acquisition.md sections 2.9 and 8 (5 to 8); users.md W22.
"""

from typing import NamedTuple

import msgspec

from mdcatch.settle import FileWatch, Standing
from services.kit.errors import Code

# A movie below these shares of what is usual is most likely still growing.
SMALL = 0.1  # of the size, when it is compressed
SHORT = 0.9  # of the frames: EER movies of one exposure time differ by some


class Verdict(NamedTuple):
    """`status` is pending, waiting, refused or ready; `code` and `detail` say why."""

    status: str
    code: Code | None = None
    detail: str = ""


PENDING = Verdict("pending")
READY = Verdict("ready")


class Patience(NamedTuple):
    """How long an exposure waits, in s, and what then happens.

    `partner_s` for a partner before it counts as waiting; `short_s` for a movie that is complete
    and smaller than it should be; with `inherits` a movie without metadata is then published with
    values of the exposure before.
    """

    partner_s: float = 60.0
    short_s: float = 300.0
    inherits: bool = False


class Usual(NamedTuple):
    """What the session's movies are like: mean size, commonest number of frames; 0 unknown."""

    size_bytes: float = 0.0
    n_frames: int = 0


NOTHING = Usual()


class Exposure(msgspec.Struct):
    """One exposure until it is settled: its files, and what was last said of it."""

    identity: str
    since: float  # monotonic time of the first notice, or since when all roots can be seen
    patience: Patience = Patience()
    session: str = ""
    announced: bool = False
    accepted: bool = False  # a person wants it published as it is
    movie: FileWatch | None = None
    metadata: FileWatch | None = None
    section: int | None = None  # of a metadata file that speaks for several movies
    expected: int | None = None  # frames at least, as the metadata state them
    vanished: bool = False  # files were there, and are not any more
    said: tuple[object, ...] = PENDING


def judge(exposure: Exposure, now: float, usual: Usual = NOTHING) -> Verdict:
    """Return what is to be said of an exposure.

    Parameters
    ----------
    exposure
        Its files.
    now
        Monotonic time, s.
    usual
        What the session's movies are like.
    """
    movie, metadata = exposure.movie, exposure.metadata
    for watch in (movie, metadata):
        if watch is not None and watch.standing is Standing.REFUSED:
            return Verdict("refused", watch.code, f"{watch.path}: {watch.detail}")
    settling = next(filter(_is_settling, (movie, metadata)), None)
    if movie is not None and settling is None and _has_metadata(exposure, now):
        return _weigh(exposure, movie, now, usual)
    if settling is not None:
        if settling.code is None or now - settling.since < exposure.patience.partner_s:
            return PENDING
        reason = f"{settling.path} is not complete yet: {settling.code}: {settling.detail}"
        return Verdict("waiting", Code.SETTLING, reason)
    if now - _changed(exposure) < exposure.patience.partner_s:
        return PENDING
    return _lacks(exposure)


def doubt(exposure: Exposure, usual: Usual) -> str:
    """Return why a movie whose structure holds may still be growing, "" when nothing says so.

    A TIFF or EER that is written frame by frame has a whole structure after every frame.

    Parameters
    ----------
    exposure
        Its movie is complete by its structure.
    usual
        What the session's movies are like.
    """
    movie = exposure.movie
    if movie is None or movie.facts is None or movie.result is None:
        return ""
    frames, stated = movie.result.n_frames, exposure.expected
    if stated is not None and frames < stated and frames != usual.n_frames:
        return f"{movie.path} has {frames} of {stated} frames"
    if stated is None and frames < SHORT * usual.n_frames:
        return f"{movie.path} has {frames} frames, the session's movies {usual.n_frames}"
    if movie.result.compression == "none" or not usual.size_bytes:
        return ""
    if movie.facts.size < SMALL * usual.size_bytes:
        return (
            f"{movie.path} has {movie.facts.size} bytes, the session's movies "
            f"{usual.size_bytes:.0f}"
        )
    return ""


def _weigh(exposure: Exposure, movie: FileWatch, now: float, usual: Usual) -> Verdict:
    reason = "" if exposure.accepted else doubt(exposure, usual)
    waited = now - movie.since
    if not reason or waited >= exposure.patience.short_s:
        return READY
    if waited < exposure.patience.partner_s:
        return PENDING
    return Verdict("waiting", Code.SETTLING, f"{reason}: it may still be growing")


def _has_metadata(exposure: Exposure, now: float) -> bool:
    """Tell whether metadata are there, or are not waited for any longer."""
    if exposure.metadata is not None:
        return True
    patience = exposure.patience
    waited = now - _changed(exposure) >= patience.partner_s
    return exposure.accepted or (patience.inherits and waited)


def _lacks(exposure: Exposure) -> Verdict:
    movie = exposure.movie
    if movie is not None:
        return Verdict(
            "waiting",
            Code.NO_METADATA,
            f"{movie.path} is complete, {exposure.identity}.xml is not there",
        )
    if exposure.metadata is None and exposure.vanished:
        return Verdict("waiting", Code.VANISHED, "its files were there and are gone")
    return Verdict("waiting", Code.NO_MOVIE, "metadata is there, the movie is not")


def _changed(exposure: Exposure) -> float:
    watches = (exposure.movie, exposure.metadata)
    return max(exposure.since, *(watch.since for watch in watches if watch is not None), 0.0)


def _is_settling(watch: FileWatch | None) -> bool:
    return watch is not None and watch.standing is Standing.SETTLING
