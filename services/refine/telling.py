"""What refine tells of its jobs: events of iterations, and log lines."""

import msgspec

from services.kit.events import (
    Body,
    JobStarted,
    MapBegun,
    MapFailed,
    MapIterated,
    MapRefined,
    ParticlesTaken,
)
from services.refine.state import Told, Work

# RELION's resolution of a map of which nothing is known.
UNKNOWN_A = 999.0
# From so many iterations on a schedule has no end of its own: the data decide.
OPEN_ENDED = 999


def iterated(work: Work, told: Told) -> MapIterated:
    """Return the event of an iteration."""
    one = told.iteration
    is_known = 0.0 < one.resolution_A < UNKNOWN_A
    return MapIterated(
        node=work.node,
        process=work.process,
        iteration=one.iteration,
        iterations=one.iterations if one.iterations < OPEN_ENDED else 0,
        particles=one.particles,
        total=one.total,
        particles_per_s=one.particles_per_s,
        resolution_A=one.resolution_A if is_known else None,
    )


def line(body: Body) -> tuple[str, dict[str, object]] | None:
    """Return the log line of an event."""
    match body:
        case JobStarted():
            return "INFO", {"node": body.node, "job": body.process}
        case MapIterated():
            names = "process iteration iterations particles resolution_A particles_per_s".split()
            return "INFO", {name: value for name in names if (value := getattr(body, name))}
        case MapBegun():
            return "INFO", {"process": body.process, "attempt": body.attempt}
        case ParticlesTaken() | MapRefined() | MapFailed():
            said = msgspec.structs.asdict(body)
            level = "WARNING" if isinstance(body, MapFailed) else "INFO"
            return level, {name: value for name, value in said.items() if value}
    return None
