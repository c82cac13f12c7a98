"""Is an exposure ready? Pure: where its two files stand, in; what to say of it, out.

Movie and metadata arrive in either order, seconds to minutes apart; the answer depends on what is
there, never on what came first.

Source: acquisition.md sections 2.9 and 8 (7, 8); users.md W22.
"""

from typing import NamedTuple

import msgspec

from mdcatch.settle import FileWatch, Standing
from services.kit.errors import Code


class Verdict(NamedTuple):
    """`status` is pending, waiting, refused or ready; `code` and `detail` say why."""

    status: str
    code: Code | None = None
    detail: str = ""


PENDING = Verdict("pending")
READY = Verdict("ready")


class Exposure(msgspec.Struct):
    """One exposure until it is settled: its files, and what was last said of it."""

    identity: str
    since: float  # monotonic time of the first notice
    wait_s: float = 60.0  # how late a partner may be before the exposure counts as waiting
    announced: bool = False
    movie: FileWatch | None = None
    metadata: FileWatch | None = None
    said: tuple[object, ...] = PENDING


def judge(exposure: Exposure, now: float) -> Verdict:
    """Return what is to be said of an exposure.

    Parameters
    ----------
    exposure
        Its files.
    now
        Monotonic time, s.
    """
    movie, metadata = exposure.movie, exposure.metadata
    for watch in (movie, metadata):
        if watch is not None and watch.standing is Standing.REFUSED:
            return Verdict("refused", watch.code, f"{watch.path}: {watch.detail}")
    if _complete(movie) and _complete(metadata):
        return READY
    for watch in (movie, metadata):
        if watch is not None and watch.standing is Standing.SETTLING:
            if watch.code is None or now - watch.since < exposure.wait_s:
                return PENDING
            reason = f"{watch.path} is not complete yet: {watch.code}: {watch.detail}"
            return Verdict("waiting", Code.SETTLING, reason)
    if now - max(exposure.since, *(w.since for w in (movie, metadata) if w)) < exposure.wait_s:
        return PENDING
    if movie is None:
        return Verdict("waiting", Code.NO_MOVIE, "metadata is there, the movie is not")
    return Verdict(
        "waiting",
        Code.NO_METADATA,
        f"{movie.path} is complete, {exposure.identity}.xml is not there",
    )


def _complete(watch: FileWatch | None) -> bool:
    return watch is not None and watch.standing is Standing.COMPLETE
