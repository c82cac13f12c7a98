"""refine: the particles of a session become an initial model, a refined and a sharpened map.

Runs the Scheme `refine`, one pass at a time and one job at a time. A pass starts when a set of
particles has come and nothing is under way; the Scheme's operators decide whether there are enough
particles, and enough more than the last time. Sets that come in the meantime wait, and only the
newest of them is kept: a job that has not begun is never done with fewer particles than there are.

Source: schemes.md section 15, architecture.md sections 1 and 6, docs/how-to/refine-in-3d.md.
"""

from collections.abc import Container, Iterator
from typing import Any

from schemer import machine
from schemer.scheme import Kind
from schemer.state import set_move
from services.kit.events import (
    Body,
    ClassesAveraged,
    JobStarted,
    MapBegun,
    MapFailed,
    MapRefined,
    ParticlesTaken,
    SchemeMoved,
    SelectionAnswered,
    SettingsApplied,
)
from services.kit.flow import JobMade
from services.kit.host import Arrived, Paused, Started, Ticked
from services.kit.work import Task
from services.refine import sets, telling
from services.refine.shell import RefineShell
from services.refine.state import Ended, ParticleSet, RefineState, Told, Wanted, Work, fold_work

# Starts of a process without an iteration between them, before the job is given up.
MAX_ATTEMPTS = 10
INITIAL_MODEL = "relion.initialmodel"
# Job nodes as the Scheme goes through them.
_ORDER = ("inimodel3d", "refine3d", "maskcreate", "postprocess")
_KINDS: tuple[Kind, ...] = ("float", "bool", "string")


class Refine:
    """The refine service.

    Parameters
    ----------
    shell
        The Scheme, its world and its folder in the project.
    selects
        Wait for a selection of the classes of a classification.
    active
        Begin jobs; else only take note of what there is.
    """

    name = "refine"
    consumes = ("proc",)
    state_type = RefineState

    def __init__(self, shell: RefineShell, *, selects: bool, active: bool = True):
        self._shell, self._selects, self._settings = shell, selects, shell.settings()
        self._active = active
        self.scheme = shell.scheme

    def empty(self) -> RefineState:
        """Return the state before any event."""
        return RefineState(machine=machine.initial(self.scheme, reset=True))

    # ---- fold

    def apply(self, state: RefineState, body: Body, at: float) -> None:
        """Fold one own event."""
        match body:
            case ParticlesTaken():
                came = ParticleSet(process=body.process, table=body.table, particles=body.particles)
                if body.is_held:
                    state.held = came
                else:
                    state.newest, state.is_tried = came, False
                    if state.held is not None and state.held.process == came.process:
                        state.held = None  # a selection made anew never leads back to all
            case SchemeMoved():
                for move in body.moves:
                    self._fold_move(state, move)
            case JobStarted():
                state.made += 1
                particles = state.particles.get(state.taken(), 0)
                state.work = Work(node=body.node, process=body.process, particles=particles)
            case SettingsApplied():
                state.settings, state.has_failed = body.digest, False
            case _:
                fold_work(state, body)

    def _fold_move(self, state: RefineState, move: tuple[str, ...]) -> None:
        machine.apply(state.machine, move)
        match move:
            case ("set", "string", "selected_parts", table) if state.newest is not None:
                state.particles = {table: state.newest.particles}
                state.is_tried = True
            case ("set", "float", "prev_nr_parts", text) if float(text) == 0.0:
                state.is_tried = state.newest is None

    # ---- decide

    def decide(self, state: RefineState, stimulus: Any) -> Iterator[Body]:
        """Yield the events a stimulus leads to."""
        match stimulus:
            case Arrived():
                yield from self._arrived(state, stimulus.event.body)
            case Started(at):
                yield from self._started(state, at)
            case JobMade():
                yield JobStarted(
                    scheme=self.scheme.name,
                    node=stimulus.node,
                    process=stimulus.process,
                    label=stimulus.label,
                )
                started = machine.JobStarted(node=stimulus.node, process=stimulus.process)
                yield from self._step(state, started)
            case Wanted() | Told() | Ended():
                if state.work is not None and stimulus.process == state.work.process:
                    yield from self._worked(state, state.work, stimulus)
            case Ticked(at) | Paused(at):
                yield from self._advance(state, at)

    def _arrived(self, state: RefineState, body: Body) -> Iterator[Body]:
        match body:
            case ClassesAveraged():
                yield sets.of_classes(body, held=self._selects)
            case SelectionAnswered():
                yield from sets.of_answer(body, state)

    def _started(self, state: RefineState, at: float) -> Iterator[Body]:
        """Take the settings over; what other ones make due again is begun again, and no more."""
        if not self._active:
            return
        if state.held is not None and not self._selects:
            yield sets.released(state.held, "classes are not selected any more")
        yield from self._moved(state, tuple(self._settings_moves(state)))
        first = self._first_changed(state)
        for one in list(state.machine.passes.values()):
            if first and _rank(first) > _rank(one.node):
                first = ""  # the pass has not come there yet
        if first and state.work is not None:
            yield from self._fails(state, state.work, "outdated", "options are other ones now", at)
        begins = state.has_failed and not first and not state.machine.passes
        yield SettingsApplied(digest=self._settings)
        if begins or (first and not state.machine.jobs[_ORDER[0]].has_started):
            first = _ORDER[0]
        if first == _ORDER[0]:
            yield from self._moved(state, (set_move("float", "prev_nr_parts", 0.0),))
        elif first:
            yield from self._go_to(state, first, at)

    def _first_changed(self, state: RefineState) -> str:
        """Return the first job node of those begun whose options are other ones than they were."""
        before, now = (
            dict(p.split("=") for p in s.split()) for s in (state.settings, self._settings)
        )
        begun = [node for node in _ORDER if node in now and state.machine.jobs[node].has_started]
        return next((n for n in begun if before and before.get(n) != now[n]), "")

    def _go_to(self, state: RefineState, node: str, at: float) -> Iterator[Body]:
        """Send a pass to a job node as if the one before it had just ended."""
        if node == "refine3d" and state.newest is not None and not state.is_tried:
            yield from self._take(state, state.newest)
        number, items = state.machine.next_pass, (state.taken(),)
        before = _ORDER[_rank(node) - 1]
        yield from self._moved(state, (("pass", str(number), before, *items),))
        yield from self._step(state, machine.JobDone(pass_id=number, items=items, at=at))

    def _settings_moves(self, state: RefineState) -> Iterator[machine.Move]:
        """Yield what gives variables, those that no operator writes, the value of the file."""
        written = {operator.output for operator in self.scheme.operators.values()}
        written.add("selected_parts")
        for kind in _KINDS:
            now = getattr(state.machine, f"{kind}s")
            for name, variable in getattr(self.scheme, f"{kind}s").items():
                if name not in written and now[name] != variable.value:
                    yield set_move(kind, name, variable.value)

    def _advance(self, state: RefineState, at: float) -> Iterator[Body]:
        """Send the newest set into the Scheme when nothing is under way."""
        if state.machine.passes or state.newest is None or state.is_tried or not self._active:
            return
        yield from self._take(state, state.newest)
        arrived = machine.DataArrived(items=(state.newest.table,), at=at)
        yield from self._step(state, arrived)

    def _take(self, state: RefineState, newest: ParticleSet) -> Iterator[Body]:
        yield from self._moved(state, (set_move("string", "selected_parts", newest.table),))

    def _worked(self, state: RefineState, work: Work, stimulus: Any) -> Iterator[Body]:
        """Yield the events that news of the job's process leads to."""
        match stimulus:
            case Wanted():
                if work.attempt >= MAX_ATTEMPTS:
                    detail = f"its process ended {MAX_ATTEMPTS} times without an iteration"
                    yield from self._fails(state, work, "poison", detail, 0.0)
                else:
                    yield MapBegun(
                        node=work.node,
                        process=work.process,
                        particles=work.particles,
                        attempt=work.attempt + 1,
                    )
            case Told():
                if stimulus.iteration.iteration > work.iteration:
                    yield telling.iterated(work, stimulus)
            case Ended():
                yield from self._ended(state, work, stimulus)

    def _ended(self, state: RefineState, work: Work, ended: Ended) -> Iterator[Body]:
        if ended.reason or ended.result is None:
            detail = ended.detail or "it has left no result"
            yield from self._fails(state, work, ended.reason or "failed", detail, ended.at)
            return
        result = ended.result
        yield MapRefined(
            node=work.node,
            process=work.process,
            particles=work.particles,
            map=result.map,
            resolution_A=result.resolution_A or work.resolution_A,
            bfactor_A2=result.bfactor_A2,
        )
        newest = state.newest
        if newest is not None and self._may_join(state, work, newest):
            yield from self._take(state, newest)
        for number, one in list(state.machine.passes.items()):
            done = machine.JobDone(pass_id=number, items=one.items, at=ended.at)
            yield from self._step(state, done)

    def _may_join(self, state: RefineState, work: Work, newest: ParticleSet) -> bool:
        """Say whether the refinement takes what has come while its initial model was made."""
        is_model = self._shell.label(work.node) == INITIAL_MODEL
        return is_model and not state.is_tried and newest.particles >= work.particles

    def _fails(
        self, state: RefineState, work: Work, reason: Any, detail: str, at: float
    ) -> Iterator[Body]:
        """End the pass; the next one starts when there are more particles."""
        yield MapFailed(node=work.node, process=work.process, reason=reason, detail=detail[:4000])
        for number in list(state.machine.passes):
            failed = machine.JobFailed(pass_id=number, reason=f"{work.process} {reason}", at=at)
            yield from self._step(state, failed)

    def _step(self, state: RefineState, stimulus: machine.Stimulus) -> Iterator[Body]:
        self._shell.world.rows = state.particles
        moves = machine.step(self.scheme, state.machine, stimulus, self._shell.world)
        yield from self._moved(state, moves)

    def _moved(self, state: RefineState, moves: tuple[machine.Move, ...]) -> Iterator[Body]:
        if moves:
            node = state.machine.current_node
            yield SchemeMoved(scheme=self.scheme.name, current_node=node, moves=moves)

    # ---- what should be running

    def perform(self, state: RefineState) -> Iterator[JobMade]:
        """Give a folder to the job that a pass has reached."""
        node = state.due()
        if node and state.work is None and self._active:
            process, label = self._shell.make_job(state, node, visit=str(state.made + 1))
            yield JobMade(node, process, label)

    def want(self, state: RefineState, room: int, running: Container[str]) -> list[Task]:
        """Return no task: a job is a process of its own."""
        return []

    def still_wanted(self, state: RefineState, task: Task) -> bool:
        """Say that no task is wanted."""
        return False

    def render(self, state: RefineState, *, everything: bool) -> None:
        """Write scheme.star."""
        self._shell.show(state)

    def begin(self, state: RefineState) -> None:
        """Do nothing: jobs are shown as running when their process is started."""

    def finish(self, state: RefineState) -> None:
        """Do nothing: a job that is interrupted goes on with the next start."""

    def explain(self, body: Body) -> tuple[str, dict[str, object]] | None:
        """Return the log line of an event."""
        return telling.line(body)


def _rank(node: str) -> int:
    return _ORDER.index(node) if node in _ORDER else 0
