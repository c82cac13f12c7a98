"""Maps in three dimensions: which particles, how far, what came of it."""

from typing import Annotated, Literal

from msgspec import Meta

from services.kit.events.base import Body, Count, Name, Text

ResolutionA = Annotated[float, Meta(gt=0.0, le=1e6)]


class ParticlesTaken(Body, frozen=True, kw_only=True, tag="particles.taken"):
    """refine took note of a set of particles: selected ones, or all of a classification."""

    process: Name  # the classification: Class2D/job007/
    table: Name  # STAR file of the particles, below the project
    particles: Count
    is_selected: bool
    is_held: bool = False  # until the selection of its classes has answered
    detail: Text = ""  # why it is not selected


class MapBegun(Body, frozen=True, kw_only=True, tag="map.begun"):
    """A process is about to be started for a job of three dimensions, or once more."""

    node: Name  # of the Scheme refine: inimodel3d, refine3d, maskcreate, postprocess
    process: Name  # Refine3D/job010/
    particles: Count
    attempt: Count  # since its last iteration


class MapIterated(Body, frozen=True, kw_only=True, tag="map.iterated"):
    """An iteration of a job of three dimensions is done."""

    node: Name
    process: Name
    iteration: Count
    iterations: Count  # at which the schedule ends; 0 where the data decide
    particles: Count  # in this iteration
    total: Count  # in the set
    particles_per_s: Annotated[float, Meta(ge=0.0)]
    resolution_A: ResolutionA | None = None


class MapRefined(Body, frozen=True, kw_only=True, tag="map.refined"):
    """A job of three dimensions has its result: a model, a refined or sharpened map, a mask."""

    node: Name
    process: Name
    particles: Count
    map: Name
    resolution_A: ResolutionA | None = None
    bfactor_A2: float | None = None  # of the sharpening


class MapFailed(Body, frozen=True, kw_only=True, tag="map.failed"):
    """A job of three dimensions ended without a result; more particles begin another one."""

    node: Name
    process: Name
    reason: Literal["failed", "aborted", "poison", "outdated"]
    detail: Text
