"""2D classification, and what the ranker makes of its classes."""

from typing import Annotated, Literal

from msgspec import Meta

from services.kit.events.base import Body, Count, Name, Text


class ClassesDue(Body, frozen=True, kw_only=True, tag="classes.due"):
    """The particles there are go to 2D classification: to a new job, or on with one that grows."""

    node: Name
    key: Name  # content key of the options: others make a new job
    is_new: bool
    streaming: bool
    micrographs: Count
    particles: Count


class ClassesBegun(Body, frozen=True, kw_only=True, tag="classes.begun"):
    """A process is about to be started for a classification, or once more."""

    process: Name  # Class2D/job007/
    attempt: Count  # since its last iteration


class ClassesIterated(Body, frozen=True, kw_only=True, tag="classes.iterated"):
    """An iteration of a classification is done."""

    process: Name
    iteration: Count
    iterations: Count  # at which the schedule ends
    place: Annotated[float, Meta(ge=0.0, le=1e6)]  # on the schedule; less where particles joined
    particles: Count  # in this iteration
    total: Count  # in the set
    particles_per_s: Annotated[float, Meta(ge=0.0)]
    log_likelihood: float
    resolution_A: float
    classes: Count  # with more than half of the mean of particles
    optimiser: Name | None = None  # where the iteration's files are written


class ClassesAveraged(Body, frozen=True, kw_only=True, tag="classes.averaged"):
    """A classification has looked at all its particles: its classes can be ranked."""

    process: Name
    iteration: Count
    particles: Count
    optimiser: Name  # run_itNNN_optimiser.star; the other files of the iteration are beside it
    montage: Name  # a picture of the classes


class ClassesFailed(Body, frozen=True, kw_only=True, tag="classes.failed"):
    """A classification ended without a result; more micrographs begin another one."""

    process: Name | None
    reason: Literal["failed", "aborted", "poison", "outdated"]
    detail: Text
