"""Decisions of people and alarms of the control charts, as events of proc. Pure."""

from collections.abc import Iterator

from algorithms.picking.chart import Chart
from services.kit.errors import Code
from services.kit.events import (
    Body,
    MicrographOverridden,
    MicrographRefused,
    ParticlesPicked,
    PickingDrifted,
)
from services.proc.decisions import Ruling
from services.proc.state import MEASURES, ProcState

STAGE = "select_mics"


def overridden(ruling: Ruling) -> MicrographOverridden:
    """Return the event of a decision."""
    return MicrographOverridden(
        movie=ruling.movie,
        keep=ruling.keep,
        reason=ruling.reason,
        user=ruling.user,
        command=ruling.command,
    )


def rejection(body: MicrographOverridden) -> MicrographRefused:
    """Return what the ledger is told of a micrograph that a person has rejected."""
    who = f"{body.user} has" if body.user else "a person has"
    detail = f"{who} rejected it" + (f": {body.reason}" if body.reason else "")
    return MicrographRefused(movie=body.movie, stage=STAGE, code=Code.REJECTED, detail=detail)


def unselected(movie: str, reason: str) -> MicrographRefused:
    """Return what the ledger is told of a micrograph that is outside the limits."""
    return MicrographRefused(movie=movie, stage=STAGE, code=Code.CTF_RESOLUTION, detail=reason)


def is_freed(state: ProcState, movie: str) -> bool:
    """Say whether a micrograph that was set aside at the selection is to go on after all."""
    refused, ruling = state.refused.get(movie), state.overrides.get(movie)
    if refused is None or refused.stage != STAGE or ruling is None:
        return False
    return ruling.keep is True or (ruling.keep is None and refused.code == Code.REJECTED)


def measured(state: ProcState, body: ParticlesPicked) -> None:
    """Add the picks of a micrograph to the control charts."""
    values = {"particles": body.n_particles, "nearest_neighbour_A": body.nearest_neighbour_A}
    for measure, kind in MEASURES.items():
        value = values[measure]
        if value is not None and (kind == "count" or value > 0):
            state.charts.setdefault(measure, Chart(kind)).add(value)


def drifted(state: ProcState, movie: str) -> Iterator[Body]:
    """Yield an alarm that has begun or ended with this micrograph."""
    for measure, chart in state.charts.items():
        if chart.is_alarm == state.alarms.get(measure, False):
            continue
        low, expected, high = chart.limits()
        yield PickingDrifted(
            movie=movie,
            measure=measure,
            active=chart.is_alarm,
            value=chart.current(),
            low=low,
            expected=expected,
            high=high,
        )
