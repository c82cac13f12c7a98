"""The selection of classes in the proc Scheme: the ranker is asked, and its answer taken over.

A pass that has left `class2d` waits at the node until the ranker has answered for the last
iteration of its classification. Where a person is asked and nothing is selected yet, it waits on.
Source: architecture.md section 1, class-ranker.md section 7.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from schemer import machine
from services.kit.events import (
    Body,
    ClassesAveraged,
    ClassesDue,
    ClassesIterated,
    ClassesRanked,
    JobStarted,
    RankingRefused,
    SelectionAnswered,
    SelectionDue,
)
from services.kit.flow import Flow, Shell
from services.kit.work import content_key
from services.proc.state import ProcState

NODE = "select_parts"
LABEL = "relion.select.class2dauto"


class Ranking(Flow):
    """The part of proc that has the classes of its particles selected."""

    _shell: Shell

    def asked(self, state: ProcState) -> Iterator[Body]:
        """Tell the ranker by which options to select, when it does not know them yet."""
        process = state.classes.process
        if NODE not in self.set_nodes or not process:
            return
        options, now = self._shell.options(state, NODE), state.selection
        key = content_key(NODE, repr(sorted(options.values.items())), process, f"{now.visit}")
        if key == now.key:
            return
        yield SelectionDue(
            node=NODE,
            label=LABEL,
            process=process,
            visit=now.visit,
            options=options.values,
            key=key,
            optimiser=now.optimiser or None,
            iteration=now.iteration,
            is_final=bool(now.optimiser) and now.averaged == now.visit,
        )

    def answered(self, state: ProcState, body: Body) -> Iterator[Body]:
        """Take over what became of the last iteration of a classification."""
        if not isinstance(body, ClassesRanked | RankingRefused) or not body.is_final:
            return
        if body.visit < state.selection.answered:
            return
        if isinstance(body, RankingRefused):
            outcome, particles, detail = "refused", 0, body.detail
        else:
            is_open = not body.automatic or "ask" in body.outcomes
            outcome = "selected" if body.particles else "asks" if is_open else "nothing"
            particles, detail = body.particles, "" if body.particles else "no class is selected"
        yield SelectionAnswered(
            process=body.process,
            visit=body.visit,
            job=body.job,
            outcome=outcome,
            particles=particles,
            detail=detail,
        )

    def advance_selection(self, state: ProcState, number: int, at: float) -> Iterator[Body]:
        """Let a pass go on, or end, when its classification is answered."""
        now = state.selection
        answer = now.answer
        if answer is None or answer.visit < now.averaged or answer.outcome == "asks":
            return
        if answer.job and answer.job != state.machine.jobs[NODE].current_name:
            yield JobStarted(scheme=self.scheme.name, node=NODE, process=answer.job, label=LABEL)
            started = machine.JobStarted(node=NODE, process=answer.job)
            yield from self._step(state, started)
        if answer.outcome in ("nothing", "refused"):
            reason = f"{answer.job or NODE}: {answer.detail}"[:500]
            yield from self._step(state, machine.JobFailed(pass_id=number, reason=reason, at=at))
            return
        items = state.machine.passes[number].items
        kept = tuple(movie for movie in items if movie not in state.refused)
        yield from self._step(state, machine.JobDone(pass_id=number, items=kept, at=at))

    def selected_rows(self, state: ProcState) -> dict[str, int]:
        """Return how many particles are in the table of the selected ones."""
        answer = state.selection.answer
        if answer is None or not answer.job:
            return {}
        return {f"{answer.job}particles.star": answer.particles}


def fold_selection(state: ProcState, body: Body) -> None:
    """Fold an event into what is known of the selection."""
    now = state.selection
    match body:
        case ClassesDue():
            now.visit, now.optimiser, now.iteration = now.visit + 1, "", 0
        case ClassesIterated() if body.optimiser:
            now.optimiser, now.iteration = body.optimiser, body.iteration
        case ClassesAveraged():
            now.averaged = now.visit
        case SelectionDue():
            now.key = body.key
        case SelectionAnswered():
            now.answer, now.answered = body, body.visit


def explain_selection(body: Body) -> tuple[str, dict[str, Any]] | None:
    """Return the log line of an event of a selection."""
    if not isinstance(body, SelectionAnswered):
        return None
    said = msgspec.structs.asdict(body)
    level = "INFO" if body.outcome == "selected" else "WARNING"
    return level, {name: value for name, value in said.items() if value}
