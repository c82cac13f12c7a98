"""2D classification in the proc Scheme: when a run is due, what it takes, what comes of it.

A pass that reaches the node waits there while a process of its own does the job; others wait in
line behind it, and picking and extraction go on. As in RELION each visit is a new job over all
particles there are. With `--streaming Yes` among its additional arguments there is one job, and
micrographs that are extracted while it runs join it.

Source: schemes.md section 15, architecture.md section 6, docs/explanation/classification.md.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from schemer import machine
from services.kit.events import (
    Body,
    ClassesAveraged,
    ClassesBegun,
    ClassesDue,
    ClassesFailed,
    ClassesIterated,
    JobStarted,
    ParticlesExtracted,
    ResultsOutdated,
)
from services.kit.flow import JobMade, Shell
from services.kit.host import Started
from services.kit.iterations import Iteration
from services.kit.options import Options
from services.kit.work import content_key
from services.proc import ranking
from services.proc.ranking import Ranking, explain_selection, fold_selection
from services.proc.state import Classes, ProcState

NODE = "class2d"
STREAMING = "--streaming"
MONTAGE = "run_classes.png"
# With fewer particles for each class there are no classes worth a look.
LEAST_PER_CLASS = 20
# Starts of the process without an iteration between them, before the run is given up.
MAX_ATTEMPTS = 10
TOLD_EVERY = 10  # iterations, of those that leave a line in the log


class Wanted(NamedTuple):
    """Stimulus: the process of the run that is due is not there."""

    process: str


class Told(NamedTuple):
    """Stimulus: the process has told of an iteration."""

    process: str
    iteration: Iteration


class Ended(NamedTuple):
    """Stimulus: the process has ended; `reason` "" means that it is done."""

    process: str
    reason: str
    detail: str
    at: float


def streams(options: Options) -> bool:
    """Tell whether particles join a run of these options."""
    words = options.text("other_args").split()
    return (STREAMING, "Yes") in pairwise(words)


def available(state: ProcState) -> dict[str, int]:
    """Return the micrographs that have particles, in order, with how many."""
    found = (m for m in state.in_order() if m in state.extracted and not state.is_left_out(m))
    return {m: n for m in found if (n := state.extracted[m].n_particles)}


class Classifying(Ranking):
    """The part of proc that has its particles classified."""

    set_nodes = (NODE, ranking.NODE)
    _shell: Shell

    def advance_set(self, state: ProcState, number: int, at: float) -> Iterator[Body]:
        """Begin a run for the pass that has come, or let it go on if there is nothing to do."""
        if state.at_node[number] == ranking.NODE:
            yield from self.advance_selection(state, number, at)
            return
        classes = state.classes
        if classes.is_stale and classes.is_due:
            yield self._outdated(classes, "particles are extracted anew")
        if classes.is_due:
            return
        options = self._shell.options(state, NODE)
        key = key_of(options)
        if key == classes.failed_key:
            reason = f"{NODE} with these options has failed; see {classes.process}run.err"
            yield from self._step(state, machine.JobFailed(pass_id=number, reason=reason, at=at))
            return
        there, is_same = available(state), key == classes.key and not classes.is_stale
        if is_same and classes.is_averaged and there.keys() <= classes.parts.keys():
            yield from self._let_go(state, number, at)
        elif sum(there.values()) >= LEAST_PER_CLASS * options.whole("nr_classes", 1, 1, 1000):
            yield ClassesDue(
                node=NODE,
                key=key,
                is_new=not (is_same and classes.streaming and classes.is_averaged),
                streaming=streams(options),
                micrographs=len(there),
                particles=sum(there.values()),
            )

    def _let_go(self, state: ProcState, number: int, at: float) -> Iterator[Body]:
        items = state.machine.passes[number].items
        kept = tuple(movie for movie in items if movie not in state.refused)
        yield from self._step(state, machine.JobDone(pass_id=number, items=kept, at=at))

    def classified(self, state: ProcState, stimulus: Any) -> Iterator[Body]:
        """Yield the events that news of a run's process leads to."""
        classes = state.classes
        if isinstance(stimulus, Started):
            yield from self._begins_again(state)
            yield from self.asked(state)
        elif not classes.is_due or stimulus.process != classes.process:
            return  # of a run that was given up in the meantime
        elif isinstance(stimulus, Told):
            if stimulus.iteration.iteration > classes.iteration:
                yield _iterated(stimulus)
        elif isinstance(stimulus, Ended):
            yield from self._ended(state, stimulus)
        elif classes.attempt >= MAX_ATTEMPTS:
            detail = f"its process ended {MAX_ATTEMPTS} times without an iteration"
            yield from self._fails(state, "poison", detail, 0.0)
        else:
            yield from self.asked(state)
            yield ClassesBegun(process=classes.process, attempt=classes.attempt + 1)

    def _begins_again(self, state: ProcState) -> Iterator[Body]:
        """Give up a run that was begun, or has failed, with other options than there are now."""
        classes = state.classes
        if not self.set_nodes:
            if classes.is_due:
                yield self._outdated(classes, "2D classification is switched off")
            return
        is_other = classes.is_due and classes.key != key_of(self._shell.options(state, NODE))
        if is_other or classes.failed_key:
            yield self._outdated(classes, "the service has started anew")

    def _outdated(self, classes: Classes, detail: str) -> ClassesFailed:
        process = classes.process or None
        return ClassesFailed(process=process, reason="outdated", detail=detail)

    def _ended(self, state: ProcState, ended: Ended) -> Iterator[Body]:
        classes = state.classes
        if ended.reason or not classes.optimiser:
            detail = ended.detail or "it has left no result"
            yield from self._fails(state, ended.reason or "failed", detail, ended.at)
            return
        yield ClassesAveraged(
            process=classes.process,
            iteration=classes.iteration,
            particles=classes.total,
            optimiser=classes.optimiser,
            montage=f"{classes.process}{MONTAGE}",
        )
        for number in _inside(state):
            yield from self._let_go(state, number, ended.at)

    def _fails(self, state: ProcState, reason: Any, detail: str, at: float) -> Iterator[Body]:
        process = state.classes.process
        yield ClassesFailed(process=process, reason=reason, detail=detail[:4000])
        for number in _inside(state):
            failed = machine.JobFailed(pass_id=number, reason=f"{process} {reason}", at=at)
            yield from self._step(state, failed)

    def apply(self, state: ProcState, body: Body, at: float) -> None:
        """Fold one own event."""
        super().apply(state, body, at)
        fold_classes(state, body)
        fold_selection(state, body)

    def perform(self, state: ProcState) -> Iterator[JobMade]:
        """Give a folder to each job, also to a classification that is due."""
        yield from super().perform(state)
        classes = state.classes
        if classes.is_due and not classes.process:
            process, label = self._shell.make_job(state, NODE, visit=str(classes.run))
            yield JobMade(NODE, process, label)

    def explain_classes(self, body: Body) -> tuple[str, dict[str, object]] | None:
        """Return the log line of an event of a classification."""
        match body:
            case ClassesDue():
                return "INFO", {"micrographs": body.micrographs, "particles": body.particles}
            case ClassesIterated():
                is_told = body.iteration % TOLD_EVERY == 0 or body.iteration == body.iterations
                level = "INFO" if is_told else "DEBUG"
                names = "process iteration particles particles_per_s log_likelihood resolution_A"
                return level, {name: getattr(body, name) for name in names.split()}
            case ClassesBegun() | ClassesAveraged() | ClassesFailed():
                said = msgspec.structs.asdict(body)
                level = "WARNING" if isinstance(body, ClassesFailed) else "INFO"
                return level, {name: value for name, value in said.items() if value}
        return explain_selection(body)


def key_of(options: Options) -> str:
    """Return what tells the options of one run from those of another."""
    return content_key(NODE, repr(sorted(options.values.items())))


def fold_classes(state: ProcState, body: Body) -> None:
    """Fold an event into what is known of the classification."""
    classes = state.classes
    match body:
        case ClassesDue():
            if body.is_new:
                state.classes = classes = Classes(
                    run=classes.run + 1,
                    key=body.key,
                    streaming=body.streaming,
                    given_up=classes.given_up,
                )
            classes.is_due, classes.attempt, classes.optimiser = True, 0, ""
            classes.is_averaged = False
            classes.parts.update(dict.fromkeys(available(state)))
        case JobStarted() if body.node == NODE:
            classes.process = body.process
        case ClassesBegun():
            classes.attempt = body.attempt
        case ClassesIterated():
            classes.iteration, classes.attempt = body.iteration, 0
            classes.total, classes.optimiser = body.total, body.optimiser or ""
        case ClassesAveraged():
            classes.is_due, classes.is_averaged = False, True
        case ClassesFailed():
            if classes.is_due and body.reason in ("poison", "outdated"):
                classes.given_up = classes.process
            classes.is_due, classes.is_stale = False, True
            is_final = body.reason in ("failed", "poison")
            classes.failed_key = classes.key if is_final else ""
        case ParticlesExtracted() if classes.is_due and classes.streaming and body.n_particles:
            classes.parts[body.movie] = None
        case ResultsOutdated():
            classes.is_stale |= any(movie in classes.parts for movie in body.movies)


def _inside(state: ProcState) -> list[int]:
    passes = state.machine.passes.items()
    return [number for number, one in passes if one.node == NODE and not one.queued]


def _iterated(told: Told) -> ClassesIterated:
    one = told.iteration
    return ClassesIterated(
        process=told.process,
        iteration=one.iteration,
        iterations=one.iterations,
        place=one.place,
        particles=one.particles,
        total=one.total,
        particles_per_s=one.particles_per_s,
        log_likelihood=one.log_likelihood,
        resolution_A=one.resolution_A,
        classes=one.classes_used,
        optimiser=f"{one.files}_optimiser.star" if one.files else None,
    )
