"""The ledger and a movie's story as text: what `status` and `why` print."""

import time
from collections.abc import Iterator

import msgspec

from services.kit.events import Body, Event, kind_of
from services.kit.ledger import STAGES, Classification, Ledger
from services.kit.logs import format_value
from services.kit.refinement import Refinement
from services.kit.selection import Selection

# Codes that a pending movie waits for; everything else that is pending is on its way.
_LISTED = 15


def status_lines(ledger: Ledger) -> Iterator[str]:
    """Yield `coldstream status`, made for 80 columns and 24 lines."""
    if ledger.session is not None:
        state = "closed" if ledger.closed else "open"
        yield f"session {ledger.session.name} ({state}), raw {ledger.session.raw}"
    yield f"{'':10s}{'seen':>8s} = {'done':>8s} + {'refused':>8s} + {'pending':>8s}"
    for stage in STAGES:
        counts = ledger.counts(stage)
        yield (
            f"{stage:10s}{counts.seen:8d} = {counts.done:8d} + {counts.refused:8d} "
            f"+ {counts.pending:8d}"
        )
    yield f"{sum(ledger.particles.values())} particles from {len(ledger.particles)} micrographs"
    for measure, alarm in ledger.drifting.items():
        yield (
            f"picks drift: {measure} {alarm.value:.4g} on average, "
            f"usual are {alarm.low:.4g} to {alarm.high:.4g}"
        )
    yield from classification_lines(ledger.classification)
    yield from selection_lines(ledger.selection)
    yield from refinement_lines(ledger.refinement)
    yield from not_done_lines(ledger, limit=_LISTED)


def classification_lines(now: Classification) -> Iterator[str]:
    """Yield where the 2D classification stands; nothing before there is one."""
    if now.status == "none":
        return
    yield f"2D classes: {now.process or 'a new job'} is {now.status}, {now.particles} particles"
    if now.iteration:
        yield (
            f"  iteration {now.iteration} of {now.iterations}, {now.particles_per_s:.0f}/s, "
            f"{now.resolution_A:.1f} A, {now.classes} classes used, "
            f"log-likelihood {now.log_likelihood:.4g}"
        )
    if now.status == "failed":
        yield f"  {now.detail}"


def refinement_lines(now: Refinement) -> Iterator[str]:
    """Yield where the maps stand; nothing before there is one on the way."""
    if now.status == "none":
        return
    yield f"3D {now.node}: {now.process} is {now.status}, {now.particles} particles"
    if now.status == "running" and now.iteration:
        known = f", {now.resolution_A:.1f} A" if now.resolution_A is not None else ""
        of = f" of {now.iterations}" if now.iterations else ""
        yield f"  iteration {now.iteration}{of}{known}"
    if now.status == "failed":
        yield f"  {now.detail}"
    if now.map is not None:
        known = f", {now.map_resolution_A:.2f} A" if now.map_resolution_A is not None else ""
        factor = f", B {now.bfactor_A2:.0f} A2" if now.bfactor_A2 is not None else ""
        yield f"  map {now.map}: {now.map_particles} particles{known}{factor}"


def selection_lines(now: Selection) -> Iterator[str]:
    """Yield where the selection of the classes stands; nothing before there is one."""
    if now.status == "none":
        return
    words = {
        "due": "the ranker is at work",
        "selected": f"{now.particles} particles are selected",
        "asks": "a person is asked; nothing goes on before",
        "nothing": "no class is selected",
        "refused": "nothing is selected",
    }
    yield f"selection: {now.job or 'a new job'}: {words[now.status]}"
    if now.keep + now.ask + now.drop:
        counts = f"{now.keep} classes kept, {now.ask} asked, {now.drop} dropped"
        yield f"  {counts}; threshold {now.threshold:.3g}"
    if now.detail:
        yield f"  {now.detail}"


def not_done_lines(ledger: Ledger, limit: int = 1000) -> Iterator[str]:
    """Yield one line for every movie that is refused or waits for something."""
    rows = [row for row in ledger.not_done() if row[2].code]
    for stage, movie, entry in rows[:limit]:
        name = movie.rpartition("/")[2]
        yield f"{entry.status} {entry.code} {name} ({stage}): {entry.detail}"
    if len(rows) > limit:
        yield f"and {len(rows) - limit} more; `coldstream status --json` lists them all"


def story_lines(ledger: Ledger, movie: str) -> Iterator[str]:
    """Yield `coldstream why MOVIE`."""
    yield movie
    for at, producer, kind, facts in story_rows(ledger, movie):
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
        yield f"  {stamp} {producer:8s} {kind:22s} {facts}".rstrip()
    yield f"  now: {verdict(ledger, movie)}"


def story_rows(ledger: Ledger, movie: str) -> Iterator[tuple[float, str, str, str]]:
    """Yield time (seconds since 1970), service, event and facts of all that happened to a movie."""
    for event in ledger.story(movie):
        yield event.at, event.producer, kind_of(event.body), _facts(event.body)


def verdict(ledger: Ledger, movie: str) -> str:
    """Return in one sentence where a movie stands."""
    for stage in reversed(STAGES):
        entry = ledger.entries[stage].get(movie)
        if entry is None:
            continue
        reason = f" ({entry.code})" if entry.code else ""
        detail = f": {entry.detail}" if entry.detail else ""
        if entry.status == "pending":
            return f"pending in {stage} for {time.time() - entry.at:.0f} s{reason}{detail}"
        if entry.status == "done" and stage != STAGES[-1]:
            return f"done in {stage}, on its way to the next service"
        return f"{entry.status} in {stage}{reason}{detail}"
    return "unknown"


def story_json(ledger: Ledger, movie: str) -> dict[str, object]:
    """Return `coldstream why MOVIE --json`."""
    return {
        "movie": movie,
        "verdict": verdict(ledger, movie),
        "events": [_event_json(event) for event in ledger.story(movie)],
    }


def _event_json(event: Event) -> dict[str, object]:
    return {
        "at": event.at,
        "producer": event.producer,
        "seq": event.seq,
        "uid": event.uid.hex(),
        "cause": event.cause.hex() if event.cause else None,
        **msgspec.to_builtins(event.body),
    }


_SHOWN = (
    "code detail optics_group n_frames pixel_size_A dose_e_A2 motion_total_px defocus_u_A "
    "defocus_v_A max_resolution_A n_particles took_s stage keep user reason measure active value"
).split()


def _facts(body: Body) -> str:
    pairs = [
        (name, getattr(body, name))
        for name in _SHOWN
        if getattr(body, name, None) not in (None, "")
    ]
    return " ".join(f"{name}={format_value(value)}" for name, value in pairs)
