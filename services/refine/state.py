"""What refine knows: a fold of its own events."""

from typing import NamedTuple

import msgspec

from schemer import machine
from services.kit.events import Body, MapBegun, MapFailed, MapIterated, MapRefined
from services.kit.iterations import Iteration


class Wanted(NamedTuple):
    """Stimulus: the process of the job that is due is not there."""

    process: str


class Told(NamedTuple):
    """Stimulus: the process has told of an iteration."""

    process: str
    iteration: Iteration


class Result(NamedTuple):
    """What a job has left."""

    map: str  # below the project
    resolution_A: float | None = None
    bfactor_A2: float | None = None


class Ended(NamedTuple):
    """Stimulus: the process has ended; `reason` "" means that it is done, with a result."""

    process: str
    reason: str
    detail: str
    at: float
    result: Result | None = None


class ParticleSet(msgspec.Struct, frozen=True, kw_only=True):
    """Particles that can be refined, in a table below the project."""

    process: str
    table: str
    particles: int


class Work(msgspec.Struct, kw_only=True):
    """The job that is due: there is one at most.

    `attempt` counts the starts of its process since its last iteration.
    """

    node: str
    process: str
    particles: int
    attempt: int = 0
    iteration: int = 0
    resolution_A: float | None = None


class RefineState(msgspec.Struct, kw_only=True):
    """Particle sets and the job at work; where the Scheme stands is in `machine`.

    `held` is a set that waits for its selection. `newest` is the last that can be refined, which
    `is_tried` once the Scheme has counted its particles; `particles` has the number of the table
    that the Scheme works with. `made` counts the jobs. `refined_A` is the resolution of
    the last map. `given_up` is the last job that we ended
    before its time; `has_failed`: the last pass ended without a map.
    """

    machine: machine.State
    held: ParticleSet | None = None
    newest: ParticleSet | None = None
    is_tried: bool = True
    particles: dict[str, int] = {}
    made: int = 0
    work: Work | None = None
    refined_A: float | None = None
    given_up: str = ""
    has_failed: bool = False
    settings: str = ""

    def due(self) -> str:
        """Return the job node where a pass stands, "" if there is none."""
        return next(iter(machine.at_jobs(self.machine).values()), "")

    def taken(self) -> str:
        """Return the table of the particles that the Scheme works with."""
        return self.machine.strings.get("selected_parts", "")


def fold_work(state: RefineState, body: Body) -> None:
    """Fold news of the job that is at work."""
    work = state.work
    if work is None:
        return
    match body:
        case MapBegun():
            work.attempt = body.attempt
        case MapIterated():
            work.iteration, work.attempt = body.iteration, 0
            work.resolution_A = body.resolution_A
        case MapRefined():
            state.work, state.has_failed = None, False
            state.refined_A = body.resolution_A or state.refined_A
        case MapFailed():
            state.work, state.has_failed = None, True
            if body.reason in ("poison", "outdated"):
                state.given_up = body.process
