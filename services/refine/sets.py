"""From events of proc to the particles that can be refined. Pure.

Where classes are selected, the particles of a classification are held until the selection has
answered. They are taken then if it could not be made; one that asks a person is waited for, and
where no class is kept nothing is taken.
"""

from collections.abc import Iterator

from services.kit.events import Body, ClassesAveraged, ParticlesTaken, SelectionAnswered
from services.refine.state import ParticleSet, RefineState


def of_classes(body: ClassesAveraged, *, held: bool) -> ParticlesTaken:
    """Return all particles of a classification."""
    return ParticlesTaken(
        process=body.process,
        table=body.optimiser.replace("_optimiser.star", "_data.star"),
        particles=body.particles,
        is_selected=False,
        is_held=held,
    )


def of_answer(body: SelectionAnswered, state: RefineState) -> Iterator[Body]:
    """Yield the particles that a selection leads to."""
    held = state.held
    if body.outcome == "selected" and body.job is not None:
        yield ParticlesTaken(
            process=body.process,
            table=f"{body.job}particles.star",
            particles=body.particles,
            is_selected=True,
        )
    elif body.outcome == "refused" and held is not None and held.process == body.process:
        yield released(held, f"not selected: {body.detail}"[:4000])


def released(held: ParticleSet, detail: str) -> ParticlesTaken:
    """Return a set that was held, as one that can be refined."""
    return ParticlesTaken(
        process=held.process,
        table=held.table,
        particles=held.particles,
        is_selected=False,
        detail=detail,
    )
