"""Which optics group an exposure gets, and what is offered at the session's end. Pure.

Source: acquisition.md section 2.8.
"""

from collections.abc import Iterator

import msgspec

from mdcatch import optics, spacing
from mdcatch.checks import Physics
from mdcatch.config import MdcatchConfig
from mdcatch.ledger import Optics, State, Status
from mdcatch.names import identifiers
from mdcatch.optics import Class
from mdcatch.parsers.record import Field, Record
from mdcatch.regroup import Member, regroup
from mdcatch.stimuli import Header, MetadataCame, Ready
from services.kit import events

# Until enough was learned: EPU's beam shift, in its arbitrary unit (holes are some 0.1 apart,
# areas 0.03, jitter stays below 0.008), and SerialEM's image shift in um (holes 1 to 4 apart).
GUESS_BEAM = 0.015
GUESS_IMAGE_UM = 0.3
NEWS = 0.1  # a threshold that changes by less is no news
PART = 2000  # movies in one event of the table that is offered


def threshold(state: State, physics: Physics, config: MdcatchConfig) -> float | None:
    """Return how far from a group's centre a beam shift may be; None: the area alone decides."""
    if config.beam_shift_threshold is not None:
        return config.beam_shift_threshold
    session = physics.key.optics.session
    described = state.described.get(session)
    if described is not None and described.beam_shift_clustering is False:
        return None  # the stage goes to every hole
    if physics.record.get("hole_and_position"):
        return None  # the pattern of shots is known: no need to guess it from shifts
    is_beam = physics.record.get("beam_shift") is not None
    guess = GUESS_BEAM if is_beam else GUESS_IMAGE_UM
    learned = state.learned.get(session)
    return guess if learned is None else spacing.threshold(learned.spread, guess)


def is_provisional(
    state: State, physics: Physics, threshold: float | None, config: MdcatchConfig
) -> bool:
    """Tell whether the grouping may still be wrong, as it is by few exposures so far."""
    if threshold is None or physics.key.beam_shift is None:
        return False
    learned = state.learned.get(physics.key.optics.session, Optics())
    is_guess = config.beam_shift_threshold is None and learned.spread.spacing() is None
    return is_guess or optics.is_sparse(state.groups, physics.key)


def learned(
    state: State, body: events.MovieSettled, physics: Physics, config: MdcatchConfig
) -> events.OpticsLearned | None:
    """Return the news about the threshold after an exposure, if there are any."""
    now = threshold(state, physics, config)
    if now is None or physics.key.beam_shift is None:
        return None
    known = state.learned.get(body.session, Optics())
    provisional = is_provisional(state, physics, now, config)
    if abs(now - known.told) <= NEWS * known.told and provisional == known.provisional:
        return None
    return events.OpticsLearned(
        session=body.session,
        threshold=now,
        exposures=known.exposures + 1,
        provisional=provisional,
    )


def offer(state: State, config: MdcatchConfig) -> Iterator[events.OpticsRegrouped]:
    """Yield the grouping by all exposures, in parts; nothing when it is the present one."""
    table: dict[str, int] = {}
    for session in state.learned or {"": None}:
        table |= _regrouped(state, session, config, max(table.values(), default=0))
    differing = sum(state.exposures[movie].group != group for movie, group in table.items())
    if not differing:
        return
    rows = sorted(table.items())
    parts = [rows[start : start + PART] for start in range(0, len(rows), PART)]
    for number, part in enumerate(parts, 1):
        yield events.OpticsRegrouped(
            part=number,
            parts=len(parts),
            groups=len(set(table.values())),
            differing=differing,
            movies=tuple(movie for movie, _ in part),
            optics_groups=tuple(group for _, group in part),
        )


def _regrouped(state: State, session: str, config: MdcatchConfig, last: int) -> dict[str, int]:
    kinds: list[Class] = []
    members: list[Member] = []
    for movie, entry in state.exposures.items():
        if entry.status is not Status.SETTLED or not entry.group:
            continue
        group = state.groups[entry.group - 1]
        if group.optics.session != session:
            continue
        kind = next((n for n, one in enumerate(kinds) if one.is_same(group.optics)), len(kinds))
        if kind == len(kinds):
            kinds.append(group.optics)
        area = identifiers(movie).acquisition_area or group.area
        members.append(Member(movie, entry.group, kind, area, entry.shift))
    described = state.described.get(session)
    known = state.learned.get(session, Optics())
    by_area = described is not None and described.beam_shift_clustering is False
    limit = config.beam_shift_threshold or spacing.threshold(known.spread, GUESS_BEAM)
    found = known.spread.spacing() if config.beam_shift_threshold is None else None
    return regroup(
        members,
        None if by_area else limit,
        found,
        config.beam_shift_groups,
        max(len(state.groups), last),
    )


def as_ready(state: State, old: events.MovieSettled, came: MetadataCame) -> Ready:
    """Return an exposure as it was published, with metadata of its own this time."""
    header = Record(format=old.format, kind="movie")
    header.fields["n_frames"] = Field(old.n_frames, "header")
    header.fields["movie_size_px"] = Field((old.width_px, old.height_px), "header")
    return Ready(
        movie=old.movie,
        path=state.where(old),
        size_bytes=old.size_bytes,
        mtime_ns=old.mtime_ns,
        header=Header(
            format=old.format,
            width_px=old.width_px,
            height_px=old.height_px,
            n_frames=old.n_frames,
            compression=old.compression,
            record=msgspec.msgpack.encode(header),
            digest=old.digest,
        ),
        metadata_path=came.metadata_path,
        record=came.record,
        series=came.series,
        section=came.section,
        gain_path=old.gain_path,
        defects_path=old.defects_path,
        complete_by=old.complete_by,
    )
