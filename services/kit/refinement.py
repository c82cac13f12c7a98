"""Where the maps of a session stand, from the journal of refine."""

import msgspec

from services.kit.events import (
    Event,
    JobStarted,
    MapBegun,
    MapFailed,
    MapIterated,
    MapRefined,
    SchemeMoved,
)


class Refinement(msgspec.Struct):
    """The last job of three dimensions, and the last map.

    `passes` are those of the Scheme that are under way.
    """

    status: str = "none"  # or running, done, failed
    node: str = ""
    process: str | None = None
    detail: str = ""
    particles: int = 0
    iteration: int = 0
    iterations: int = 0
    resolution_A: float | None = None
    map: str | None = None
    map_particles: int = 0
    map_resolution_A: float | None = None
    bfactor_A2: float | None = None
    passes: dict[str, None] = {}

    def take(self, event: Event) -> None:
        """Fold an event of refine; those of others change nothing."""
        if event.producer != "refine":
            return
        body = event.body
        match body:
            case SchemeMoved():
                self._move(body.moves)
            case JobStarted():
                self.status, self.node, self.process = "running", body.node, body.process
                self.iteration, self.iterations, self.resolution_A = 0, 0, None
            case MapBegun():
                self.particles = body.particles
            case MapIterated():
                self.iteration, self.iterations = body.iteration, body.iterations
                self.resolution_A = body.resolution_A
            case MapRefined():
                self._map(body)
            case MapFailed():
                self.status, self.detail = "failed", body.detail

    def _move(self, moves: tuple[tuple[str, ...], ...]) -> None:
        for kind, number in (move[:2] for move in moves):
            if kind == "pass":
                self.passes[number] = None
            elif kind == "end":
                self.passes.pop(number, None)

    def _map(self, body: MapRefined) -> None:
        self.status = "done"
        if body.node != "maskcreate":
            self.map, self.map_particles = body.map, body.particles
            self.map_resolution_A, self.bfactor_A2 = body.resolution_A, body.bfactor_A2
