"""ranker: every finished iteration of a 2D classification gets scores and a selection.

proc says by which options, and where iterations are; the work is a task of a worker. Iterations
are answered in their order, one at a time. Source: class-ranker.md section 7, architecture.md 1.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterator
from typing import Any, Literal

import msgspec

from services.kit.events import (
    Body,
    ClassesAveraged,
    ClassesFailed,
    ClassesIterated,
    ClassesRanked,
    ClassOverridden,
    JobStarted,
    RankingDue,
    RankingRefused,
    SelectionDue,
)
from services.kit.flow import JobMade
from services.kit.host import Arrived, Failed, Finished, Started
from services.kit.work import Task, content_key
from services.ranker.project import SCHEME, Jobs
from services.ranker.requests import RankRefusal, RankReply, RankRequest
from services.ranker.state import RankerState, selection

STAGE = "rank"
CALL = "services.ranker.tasks:rank"
URGENCY = 9  # a second of work that a pass waits for


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """Stimulus: a person keeps or drops a class, or leaves it to its score (None)."""

    of: str  # the selection
    job: str
    stack: str
    number: int
    keep: bool | None
    reason: str = ""
    user: str = ""
    command: str = ""


class Ranker:
    """The ranker service.

    Parameters
    ----------
    jobs
        The job folders.
    weights_digest
        Returns the digest of the weights that a selection uses now, "" without.
    """

    name = "ranker"
    consumes = ("proc",)
    state_type = RankerState

    def __init__(self, jobs: Jobs, weights_digest: Callable[[SelectionDue], str]):
        self._jobs, self._weights_digest = jobs, weights_digest

    def empty(self) -> RankerState:
        """Return the state before any event."""
        return RankerState()

    def apply(self, state: RankerState, body: Body, at: float) -> None:
        """Fold one own event."""
        match body:
            case SelectionDue():
                state.asked[body.process] = body
            case ClassesFailed() if body.process is not None:
                state.given_up.add(body.process)
            case RankingDue():
                state.order = body.order
                state.queue[body.order] = state.last[selection(body)] = body
            case JobStarted():
                due = state.head()
                assert due is not None  # noqa: S101 - a job is made for what is due
                state.jobs[selection(due)] = body.process
            case ClassesRanked() | RankingRefused():
                state.queue.pop(body.order, None)
                state.answers[selection(body)] = body
                if isinstance(body, ClassesRanked):
                    state.ranked[selection(body)] = body
                    if body.is_final:
                        state.finals[selection(body)] = body.scores
            case ClassOverridden():
                state.overrides.setdefault(body.stack, {})[body.number] = body

    # ---- decide

    def decide(self, state: RankerState, stimulus: Any) -> Iterator[Body]:
        """Yield the events a stimulus leads to."""
        match stimulus:
            case Arrived():
                yield from self._arrived(state, stimulus.event.body)
            case Finished():
                yield from self._finished(state, stimulus)
            case Failed():
                detail = f"it was given up: {stimulus.story}"
                yield from self._refused(state, stimulus.task, "poison", detail)
            case JobMade(node, process, label):
                yield JobStarted(scheme=SCHEME, node=node, process=process, label=label)
            case Ruling():
                yield from self._ruled(state, stimulus)
            case Started():
                yield from self._with_other_weights(state)

    def _arrived(self, state: RankerState, body: Body) -> Iterator[Body]:
        match body:
            case SelectionDue():
                yield body
                if body.optimiser:
                    yield RankingDue(
                        order=state.order + 1,
                        process=body.process,
                        visit=body.visit,
                        iteration=body.iteration,
                        optimiser=body.optimiser,
                        is_final=body.is_final,
                        because="options",
                    )
            case ClassesFailed() if body.process in state.asked:
                yield body
            case ClassesIterated() | ClassesAveraged() if body.optimiser:
                asked = state.asked.get(body.process)
                if asked is not None:
                    yield RankingDue(
                        order=state.order + 1,
                        process=body.process,
                        visit=asked.visit,
                        iteration=body.iteration,
                        optimiser=body.optimiser,
                        is_final=isinstance(body, ClassesAveraged),
                        because="iteration",
                    )

    def _finished(self, state: RankerState, done: Finished) -> Iterator[Body]:
        due = _due_of(state, done.task)
        if due is None:
            return  # withdrawn in the meantime
        if done.reply.result is None:  # a file could not be read
            yield from self._refused(state, done.task, "unusable", done.reply.detail)
            return
        got = msgspec.msgpack.decode(done.reply.result, type=RankReply)
        if isinstance(got, RankRefusal):
            yield from self._refused(state, done.task, got.reason, got.detail)
            return
        told = msgspec.structs.asdict(got)
        told["remarks"] = tuple(line[:4000] for line in got.remarks)
        yield ClassesRanked(
            **told, **_about(due), job=state.jobs[selection(due)], took_s=done.reply.took_s
        )

    def _refused(
        self,
        state: RankerState,
        task: Task,
        reason: Literal["no_model", "unusable", "vanished", "poison"],
        detail: str,
    ) -> Iterator[Body]:
        due = _due_of(state, task)
        if due is not None:
            about = _about(due)
            del about["optimiser"]
            job = state.jobs.get(selection(due))
            yield RankingRefused(**about, job=job, reason=reason, detail=detail[:4000])

    def _ruled(self, state: RankerState, ruling: Ruling) -> Iterator[Body]:
        """Note what a person decided of a class, and select anew from the same scores."""
        if state.ranked[ruling.of].stack != ruling.stack:
            return  # an iteration has come since it was read: its sender is told so
        told = msgspec.structs.asdict(ruling)
        of = told.pop("of")
        yield ClassOverridden(**told)
        due = state.last[of]
        yield msgspec.structs.replace(due, order=state.order + 1, because="person")

    def _with_other_weights(self, state: RankerState) -> Iterator[Body]:
        """Score once more what was scored last, when its weights are others now."""
        due = next(reversed(state.last.values()), None)
        if due is None or due.order in state.queue:
            return
        answer = state.answers.get(selection(due))
        before = answer.weights_digest if isinstance(answer, ClassesRanked) else ""
        is_one = isinstance(answer, ClassesRanked) or (
            answer is not None and answer.reason == "no_model"
        )
        if is_one and self._weights_digest(state.asked[due.process]) not in ("", before):
            yield msgspec.structs.replace(due, order=state.order + 1, because="weights")

    # ---- what should be done

    def want(self, state: RankerState, room: int, running: Container[str]) -> list[Task]:
        """Return the task of what is due first, once its job has a folder."""
        due = state.head()
        if room < 1 or due is None or selection(due) not in state.jobs:
            return []
        task = self._task(state, due)
        return [] if task.id in running else [task]

    def _task(self, state: RankerState, due: RankingDue) -> Task:
        others = (scores for of, scores in state.finals.items() if of != selection(due))
        ask = RankRequest(
            order=due.order,
            process=due.process,
            iteration=due.iteration,
            optimiser=due.optimiser,
            job=state.jobs[selection(due)],
            options=state.asked[due.process].options,
            overrides=state.decided(),
            session=tuple(score for scores in others for score in scores),
        )
        request = msgspec.msgpack.encode(ask)
        return Task(
            id=f"{STAGE}:{due.order}",
            stage=STAGE,
            movie=due.optimiser,
            key=content_key(STAGE, request),
            call=CALL,
            request=request,
            urgency=URGENCY,
        )

    def still_wanted(self, state: RankerState, task: Task) -> bool:
        """Say whether a running task's result would be used."""
        return _due_of(state, task) is not None

    def perform(self, state: RankerState) -> Iterator[JobMade]:
        """Give a folder to a selection that has none yet."""
        due = state.head()
        if due is not None and selection(due) not in state.jobs:
            asked = state.asked[due.process]
            process = self._jobs.make(asked, selection(due))
            yield JobMade(asked.node, process, asked.label)

    # ---- what people see

    def render(self, state: RankerState, *, everything: bool) -> None:
        """Show in the project how the selections stand."""
        busy = {selection(due) for due in state.queue.values()}
        for of, process in state.jobs.items():
            answer, last = state.answers.get(of), state.last[of]
            if answer is not None and answer.is_final:
                self._jobs.describe(process, state.asked[last.process], last.optimiser)
            is_over = last.process in state.given_up
            self._jobs.show(process, "Running" if of in busy else _status(answer, is_over))

    def begin(self, state: RankerState) -> None:
        """Nothing to do: `render` shows all."""

    def finish(self, state: RankerState) -> None:
        """Nothing to do: what is not answered stays running."""

    def explain(self, body: Body) -> tuple[str, dict[str, object]] | None:
        """Return the log line of an event."""
        match body:
            case ClassesRanked():
                counts = Counter(body.outcomes)
                level = "INFO" if body.particles else "WARNING"
                return level if body.is_final else "DEBUG", {
                    "process": body.process,
                    "iteration": body.iteration,
                    "job": body.job,
                    **{outcome: counts[outcome] for outcome in ("keep", "ask", "drop")},
                    "particles": body.particles,
                    "threshold": round(body.threshold, 4),
                    "took_s": body.took_s,
                }
            case RankingRefused():
                told = ("process", "iteration", "reason", "detail")
                level = "WARNING" if body.is_final else "DEBUG"
                return level, {name: getattr(body, name) for name in told}
            case ClassOverridden():
                told = ("job", "number", "keep", "reason", "user")
                return "INFO", {name: getattr(body, name) for name in told}
            case JobStarted():
                return "INFO", {"node": body.node, "job": body.process}
        return None


def _due_of(state: RankerState, task: Task) -> RankingDue | None:
    return state.queue.get(int(task.id.partition(":")[2]))


def _about(due: RankingDue) -> dict[str, Any]:
    names = ("order", "process", "visit", "iteration", "is_final", "optimiser")
    return {name: getattr(due, name) for name in names}


def _status(answer: ClassesRanked | RankingRefused | None, is_over: bool) -> str:
    """Return how a selection is shown that nothing is due of; its classification may be over."""
    if answer is None or not answer.is_final:
        return "Aborted" if is_over else "Running"
    if isinstance(answer, RankingRefused):
        return "Failed"
    if answer.particles:
        return "Succeeded"
    return "Running" if "ask" in answer.outcomes else "Failed"
