"""A Scheme at work: events move its passes, its job nodes want tasks, its operators decide.

Shared by the services that run a Scheme. A pass carries movies through the graph; at a job node it
waits until each of its movies is decided there (has a result, or is refused) and then goes on with
those that have results. Which tasks are wanted follows from where the passes are.
Source: architecture.md section 1, schemes.md sections 6, 14 and 15.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, Protocol

import msgspec

from schemer import machine
from schemer.scheme import Scheme
from services.kit.errors import Code
from services.kit.events import (
    Body,
    JobStarted,
    MicrographRefused,
    OpticsGrouped,
    ResultsOutdated,
    SchemeMoved,
    SettingsApplied,
)
from services.kit.host import Arrived, Failed, Finished, Paused, Started, Ticked
from services.kit.options import Options
from services.kit.work import Task

# Why a pass ends at a job node that no service of this version takes.
NOT_CARRIED_OUT = "is not carried out"
# How many moves one event may record: bounds its size.
MOVES = 500
# How many new movies set out together. A pass waits at each node for the last of its movies: of a
# back-log that went as one, nothing would have a CTF before everything was aligned.
TOGETHER = 8


class JobMade(NamedTuple):
    """Stimulus: a job node has its folder in the project."""

    node: str
    process: str
    label: str


class Shell(Protocol):
    """What a Flow needs of its Scheme's surroundings; `services.kit.schemes` has the real one."""

    scheme: Scheme
    world: Any  # a schemer World whose `rows` may be set

    def options(self, state: Any, node: str) -> Options:
        """Return the options of a job node, ready to use."""
        ...

    def make_job(self, state: Any, node: str, visit: str = "") -> tuple[str, str]:
        """Return (process, label) of a node's job; called again after a crash, the same.

        `visit` tells the visits of a node apart each of which is a job of its own.
        """
        ...

    def show_running(self, state: Any) -> None:
        """Show the jobs of the project as running."""
        ...

    def show_finished(self, state: Any) -> None:
        """Show the jobs in which nothing is undecided as succeeded."""
        ...


class FlowState(msgspec.Struct, kw_only=True):
    """What every Scheme service knows; movies are named by their identity."""

    machine: machine.State
    optics: dict[int, OpticsGrouped] = {}
    pool: dict[str, None] = {}  # movies in no pass that have not gone all the way
    fresh: dict[str, None] = {}  # those of the pool that no pass has carried yet
    pass_of: dict[str, int] = {}
    at_node: dict[int, str] = {}  # pass -> node it was last accounted at
    items_of: dict[int, list[str]] = {}  # pass -> movies it was last accounted with
    inside: dict[str, dict[str, None]] = {}  # node -> movies undecided there, first come first
    left: dict[int, int] = {}  # pass -> how many of its movies are undecided at its node
    refused: dict[str, MicrographRefused] = {}
    through: dict[str, None] = {}  # movies that have gone all the way
    settings: str = ""


class Flow:
    """Base of the Scheme services; a subclass says what happens at each node.

    Parameters
    ----------
    shell
        The Scheme, its world and its folder in the project.
    settings
        Digest of all settings that influence results.
    """

    name: str
    task_nodes: tuple[str, ...]  # in the order of the graph
    instant_nodes: tuple[str, ...]
    set_nodes: tuple[str, ...] = ()  # jobs that take all there is, not movie by movie
    last_node: str  # a movie decided here has gone all the way

    def __init__(self, shell: Shell, settings: str):
        self._shell, self.settings = shell, settings
        self.scheme: Scheme = shell.scheme
        self._told_end = False

    # ---- what a subclass provides

    def has_result(self, state: Any, node: str, movie: str) -> bool:
        """Say whether a movie has its result at a node."""
        raise NotImplementedError(node)

    def outdated(self, state: Any) -> Iterator[ResultsOutdated]:
        """Yield what the present settings make due again."""
        raise NotImplementedError

    def task(self, state: Any, node: str, movie: str) -> Task:
        """Return the task that decides a movie at a node."""
        raise NotImplementedError(node)

    def accept(self, state: Any, done: Finished) -> Body:
        """Return the event that a delivered result leads to."""
        raise NotImplementedError(done.task.stage)

    def instant(self, state: Any, node: str, movie: str) -> Iterator[Body]:
        """Decide a movie at a node that needs no task."""
        raise NotImplementedError(node)

    def arrived(self, state: Any, body: Body) -> Iterator[Body]:
        """Take over an event of another service."""
        raise NotImplementedError

    def fold(self, state: Any, body: Body) -> tuple[str, str] | None:
        """Fold an event of the subclass; return (node, movie) when it decides a movie there."""
        raise NotImplementedError

    def advance_set(self, state: Any, number: int, at: float) -> Iterator[Body]:
        """Do what is due for a pass that is inside a node of `set_nodes`."""
        raise NotImplementedError(state.at_node[number])

    def rows(self, state: Any) -> Mapping[str, int]:
        """Return the row counts of tables that operators ask about: path -> rows."""
        return {}

    def rebase(self, state: Any) -> tuple[tuple[str, ...], ...]:
        """Return the moves that keep the Scheme's counters true after results were dropped."""
        return ()

    # ---- fold

    def apply(self, state: Any, body: Body, at: float) -> None:
        """Fold one own event."""
        match body:
            case SchemeMoved():
                self._apply_moves(state, body.moves)
            case MicrographRefused():
                state.refused[body.movie] = body
                self._decided(state, body.stage, body.movie)
            case OpticsGrouped():
                state.optics[body.optics_group] = body
            case SettingsApplied():
                state.settings = body.digest
            case JobStarted():
                pass  # the moves that follow it carry the job row
            case _:
                decided = self.fold(state, body)
                if decided is not None:
                    self._decided(state, *decided)

    def again(self, state: Any, movie: str) -> None:
        """Put a movie back to the start: it goes with the next pass."""
        state.refused.pop(movie, None)
        state.through.pop(movie, None)
        if movie not in state.pass_of:
            state.pool[movie] = state.fresh[movie] = None

    def _decided(self, state: Any, node: str, movie: str) -> None:
        if state.inside.get(node, {}).pop(movie, 0) is None:
            state.left[state.pass_of[movie]] -= 1

    def _apply_moves(self, state: Any, moves: Iterable[tuple[str, ...]]) -> None:
        touched: dict[int, None] = {}
        for move in moves:
            machine.apply(state.machine, move)
            match move:
                case ("pass", number, _, *movies):
                    for movie in movies:
                        state.pass_of[movie] = int(number)
                        # Here, for the pass may be over by the end of these moves.
                        state.fresh.pop(movie, None)
                    state.items_of[int(number)] = list(movies)
                    touched[int(number)] = None
                case ("goto" | "items" | "end", number, *_):
                    touched[int(number)] = None
        ended_first = sorted(touched, key=lambda number: number in state.machine.passes)
        for number in ended_first:
            self._account(state, number)

    def _account(self, state: Any, number: int) -> None:
        """Bring the indices of one pass in line with where the machine has it."""
        there = state.machine.passes.get(number)
        movies = list(there.items) if there is not None else []
        gone = set(state.items_of.get(number, ())) - set(movies)
        for movie in [m for m in state.items_of.get(number, ()) if m in gone]:
            self._leave(state, movie, number)
        if there is None:
            for index in (state.at_node, state.left, state.items_of):
                index.pop(number, None)
            return
        state.items_of[number] = movies
        for movie in movies:  # also those that came over from a pass that was merged into this
            state.pool.pop(movie, None)
            state.fresh.pop(movie, None)
            state.pass_of[movie] = number
        if state.at_node.get(number) == there.node:
            return
        state.at_node[number] = there.node
        undecided = [m for m in movies if not self._is_decided(state, there.node, m)]
        state.inside.setdefault(there.node, {}).update(dict.fromkeys(undecided))
        state.left[number] = len(undecided)

    def _leave(self, state: Any, movie: str, number: int) -> None:
        del state.pass_of[movie]
        node = state.at_node.get(number, "")
        if state.inside.get(node, {}).pop(movie, 0) is None:
            state.left[number] -= 1
        if movie in state.refused:
            return
        if self.has_result(state, self.last_node, movie):
            state.through[movie] = None
        else:
            state.pool[movie] = None

    def _is_decided(self, state: Any, node: str, movie: str) -> bool:
        return (
            not self._carries_out(node)
            or node in self.set_nodes
            or movie in state.refused
            or self.has_result(state, node, movie)
        )

    # ---- decide

    def decide(self, state: Any, stimulus: Any) -> Iterator[Body]:
        """Yield the events a stimulus leads to."""
        match stimulus:
            case Arrived():
                yield from self.arrived(state, stimulus.event.body)
            case Finished():
                yield from self._finished(state, stimulus)
            case Failed():
                movie, node = stimulus.task.movie, stimulus.task.stage
                detail = f"{node} of {movie} was given up: {stimulus.story}"
                yield MicrographRefused(
                    movie=movie,
                    stage=node,
                    code=Code.POISON,
                    detail=detail[:4000],
                    attempts=stimulus.attempts,
                )
            case JobMade():
                yield JobStarted(
                    scheme=self.scheme.name,
                    node=stimulus.node,
                    process=stimulus.process,
                    label=stimulus.label,
                )
                started = machine.JobStarted(node=stimulus.node, process=stimulus.process)
                yield from self._step(state, started)
            case Started(at):
                yield from self._started(state)
                yield from self._advance(state, at)
            case Ticked(at):
                yield from self._ticked(state, at)
            case Paused(at):
                yield from self._advance(state, at)

    def _finished(self, state: Any, done: Finished) -> Iterator[Body]:
        movie, node = done.task.movie, done.task.stage
        if movie not in state.inside.get(node, {}):
            return  # withdrawn in the meantime
        if done.reply.result is None:
            yield MicrographRefused(
                movie=movie, stage=node, code=done.reply.code, detail=done.reply.detail[:4000]
            )
        else:
            yield self.accept(state, done)

    def _started(self, state: Any) -> Iterator[Body]:
        if state.settings not in ("", self.settings):
            for body in list(self.outdated(state)):
                yield from self._due_again(state, body, body.stage)
            stages = {body.stage for body in state.refused.values()}
            for stage in sorted(stages):
                movies = tuple(m for m, body in state.refused.items() if body.stage == stage)
                body = ResultsOutdated(stage="refused", movies=movies)
                yield from self._due_again(state, body, stage)
        yield SettingsApplied(digest=self.settings)

    def _due_again(self, state: Any, body: ResultsOutdated, node: str) -> Iterator[Body]:
        """Drop results, and send the movies to the node where they are due."""
        yield from self._take_out(state, body.movies)
        yield body
        yield from self._moved(state, self.rebase(state))
        if node in self.task_nodes:
            # Straight to the node: operators before it ask for news, and these are none.
            for start in range(0, len(body.movies), TOGETHER):
                movies = body.movies[start : start + TOGETHER]
                move = ("pass", str(state.machine.next_pass), node, *movies)
                yield from self._moved(state, (move,))

    def _take_out(self, state: Any, movies: Iterable[str]) -> Iterator[Body]:
        """Take movies out of the passes they are in."""
        numbers = {state.pass_of[movie] for movie in movies if movie in state.pass_of}
        out = set(movies)
        moves = []
        for number in sorted(numbers):
            rest = [m for m in state.machine.passes[number].items if m not in out]
            moves.append(("items", str(number), *rest))
        yield from self._moved(state, tuple(moves))

    def _advance(self, state: Any, at: float) -> Iterator[Body]:
        """Start a pass with what waits, and move every pass whose movies are all decided."""
        while True:
            moved = False
            if state.fresh and not state.machine.ended:
                for body in self._start_pass(state, at):
                    moved = True
                    yield body
            for number in list(state.left):
                for body in self._advance_pass(state, number, at):
                    moved = True
                    yield body
            if not moved:
                return

    def _start_pass(self, state: Any, at: float) -> Iterator[Body]:
        later = set(islice(state.fresh, TOGETHER, None))
        movies = tuple(movie for movie in state.pool if movie not in later)
        yield from self._step(state, machine.DataArrived(items=movies, at=at))

    def _ticked(self, state: Any, at: float) -> Iterator[Body]:
        deadline = machine.wait_deadline(self.scheme, state.machine)
        if state.pool and deadline is not None and at >= deadline:
            # Movies that a pass brought back (a fork said "not yet") go with the next one, which
            # starts with new data or, as here, when the wait of the Scheme is over.
            yield from self._start_pass(state, at)
        else:
            yield from self._step(state, machine.Tick(at=at))

    def _advance_pass(self, state: Any, number: int, at: float) -> Iterator[Body]:
        node = state.at_node[number]
        if not self._carries_out(node):
            # Its results are not lost: the movies have gone as far as this version takes them.
            yield from self._moved(state, (("end", str(number), f"{node} {NOT_CARRIED_OUT}"),))
            return
        if node in self.set_nodes:
            if not state.machine.passes[number].queued:
                yield from self.advance_set(state, number, at)
            return
        if not state.machine.jobs[node].has_started:
            return
        items = state.machine.passes[number].items
        if node in self.instant_nodes:
            for movie in items:
                if not self._is_decided(state, node, movie):
                    yield from self.instant(state, node, movie)
        if state.left[number] == 0:
            kept = tuple(m for m in items if m not in state.refused)
            yield from self._step(state, machine.JobDone(pass_id=number, items=kept, at=at))

    def _carries_out(self, node: str) -> bool:
        return node in (*self.task_nodes, *self.instant_nodes, *self.set_nodes)

    def _is_open(self, state: Any, node: str) -> bool:
        job = state.machine.jobs.get(node)
        return job is not None and job.has_started

    def _step(self, state: Any, stimulus: Any) -> Iterator[Body]:
        self._shell.world.rows = self.rows(state)
        moves = machine.step(self.scheme, state.machine, stimulus, self._shell.world)
        yield from self._moved(state, tuple(moves))

    def _moved(self, state: Any, moves: tuple[tuple[str, ...], ...]) -> Iterator[Body]:
        for start in range(0, len(moves), MOVES):
            yield SchemeMoved(
                scheme=self.scheme.name,
                current_node=state.machine.current_node,
                moves=moves[start : start + MOVES],
            )

    # ---- what should be running

    def perform(self, state: Any) -> Iterator[JobMade]:
        """Give folders to the job nodes that a pass has reached for the first time."""
        for node in dict.fromkeys(state.at_node.values()):
            if node in self.set_nodes or not self._carries_out(node):
                continue
            if not state.machine.jobs[node].has_started:
                process, label = self._shell.make_job(state, node)
                yield JobMade(node, process, label)

    def begin(self, state: Any) -> None:
        """Show the jobs as running again."""
        self._shell.show_running(state)

    def finish(self, state: Any) -> None:
        """Show the jobs as finished where nothing is undecided in them."""
        self._shell.show_finished(state)

    def want(self, state: Any, room: int, running: Container[str]) -> list[Task]:
        """Return up to `room` tasks, later nodes first: what is begun is finished first."""
        tasks: list[Task] = []
        for node in reversed(self.task_nodes):
            if not self._is_open(state, node):
                continue
            for movie in state.inside.get(node, {}):
                if len(tasks) >= room:
                    return tasks
                if f"{node}:{movie}" not in running:
                    tasks.append(self.task(state, node, movie))
        return tasks

    def still_wanted(self, state: Any, task: Task) -> bool:
        """Say whether a running task's result would be used."""
        return task.movie in state.inside.get(task.stage, {})

    def explain(self, body: Body) -> tuple[str, dict[str, object]] | None:
        """Return the log line of an event that every Scheme service has."""
        match body:
            case MicrographRefused():
                return "WARNING", {
                    "movie": short(body.movie),
                    "stage": body.stage,
                    "code": body.code,
                    "detail": body.detail,
                }
            case ResultsOutdated():
                return "INFO", {"stage": body.stage, "movies": len(body.movies)}
            case JobStarted():
                return "INFO", {"node": body.node, "job": body.process}
            case SchemeMoved():
                return self._explain_end(body)
        return None

    def _explain_end(self, body: SchemeMoved) -> tuple[str, dict[str, object]] | None:
        """Say once where this version's way through the Scheme ends."""
        reasons = [
            move[2] for move in body.moves if move[0] == "end" and NOT_CARRIED_OUT in move[2]
        ]
        if not reasons or self._told_end:
            return None
        self._told_end = True
        return "INFO", {"scheme": body.scheme, "detail": f"{reasons[0]} by this version"}


def short(movie: str) -> str:
    """Return a movie's identity without its folders, as people call it."""
    return movie.rpartition("/")[2]
