"""The state machine of a Scheme: pure decisions, driven by stimuli, recorded as moves.

RELION has one current node. Here a *pass* is one trip through the graph that carries items (the
identities of movies), and several passes may be inside job nodes at once; operators are executed
for one pass at a time, in one step. With a single pass the visited nodes are RELION's.

* The machine rests at its home, the wait node that is the input of the first edge.
* Data ends the wait at once; a tick past the deadline starts an empty pass if none is under way.
* A `continue` job takes any number of passes; a `new` job one at a time: later ones wait in line,
  and when the job is done all of them enter it together, as one pass.
* A pass ends when it is home again. An exit stops the machine: no new passes, while those inside
  jobs still finish their trip.
* A wait elsewhere in the graph holds a pass until the deadline or the next data.

Source: schemes.md sections 3, 6 and 19 ("safe"); architecture.md section 1.
"""

import math

from msgspec import Struct

from schemer.errors import MachineError, SchemeError
from schemer.facts import World
from schemer.operators import execute
from schemer.scheme import UNDEFINED, Scheme
from schemer.state import Move, Pass, State, apply, at_jobs, copy, initial, set_move

__all__ = [
    "Abort",
    "DataArrived",
    "JobDone",
    "JobFailed",
    "JobStarted",
    "Move",
    "Pass",
    "Restart",
    "State",
    "Stimulus",
    "Tick",
    "apply",
    "at_jobs",
    "initial",
    "step",
    "validate",
    "wait_deadline",
]

_SECONDS_PER_HOUR = 3600.0
# A wait of 0 s would make ticks spin through a Scheme without jobs.
_SHORTEST_WAIT_S = 1.0
# A loop of operators that never meets a job, wait or exit; real Schemes have a few dozen nodes.
_MAX_TRANSITIONS = 10_000


class DataArrived(Struct, frozen=True, tag=True):
    """New items are there; they leave in a pass of their own."""

    items: tuple[str, ...]
    at: float


class Tick(Struct, frozen=True, tag=True):
    """Time has come to `at`."""

    at: float


class JobStarted(Struct, frozen=True, tag=True):
    """A job node got its folder in the project, `MotionCorr/job002/`."""

    node: str
    process: str


class JobDone(Struct, frozen=True, tag=True):
    """A job has finished a pass; `items` are those that go on (the others are set aside)."""

    pass_id: int
    items: tuple[str, ...]
    at: float


class JobFailed(Struct, frozen=True, tag=True):
    """A job could not do a pass: the pass ends there, the machine goes on."""

    pass_id: int
    reason: str
    at: float


class Abort(Struct, frozen=True, tag=True):
    """Stop now: every pass ends where it is."""

    at: float


class Restart(Struct, frozen=True, tag=True):
    """Run again after an end; the clocks of wait and exit_maxtime start afresh."""

    at: float


Stimulus = DataArrived | Tick | JobStarted | JobDone | JobFailed | Abort | Restart


def step(scheme: Scheme, state: State, stimulus: Stimulus, world: World) -> tuple[Move, ...]:
    """Return the moves that answer a stimulus; `state` itself is not changed.

    Parameters
    ----------
    scheme, state
        The Scheme, and the machine's present state.
    stimulus
        What has happened. News of a pass that has ended already is ignored, and so are data and
        ticks after the end of the machine: look at `state.ended` first.
    world
        Asked for facts about files while operators run; not needed to repeat the moves.

    Raises
    ------
    MachineError
        The stimulus cannot be: a job or pass that does not exist, a pass that is not in a job,
        items that the pass does not carry, or operators that go round without end.
    SchemeError
        An operator cannot be executed.
    """
    run = _Step(scheme, state, world)
    match stimulus:
        case DataArrived(items=items, at=at):
            run.data(items, at)
        case Tick(at=at):
            run.tick(at)
        case JobStarted(node=node, process=process):
            run.started(node, process)
        case JobDone(pass_id=number, items=items, at=at):
            run.done(number, items, at)
        case JobFailed(pass_id=number, reason=reason, at=at):
            run.failed(number, reason)
        case Abort():
            run.stop("abort", everything=True)
        case Restart():
            run.emit("restart", scheme.start)
    return tuple(run.moves)


def wait_deadline(scheme: Scheme, state: State) -> float | None:
    """Return when the next Tick would do something; None while it would not.

    -inf means at once: the first wait of a run does not wait.
    """
    held = [one.node for one in state.passes.values() if scheme.is_wait(one.node)]
    if state.ended and not held:
        return None
    if state.passes and not held:
        return None
    nodes = held or ([scheme.home] if scheme.home else [])
    if state.wait_ended_at is None or not nodes:
        return -math.inf
    return min(state.wait_ended_at + _wait_s(scheme, state, node) for node in nodes)


def _wait_s(scheme: Scheme, state: State, node: str) -> float:
    return max(state.floats.get(scheme.operators[node].input1, 0.0), _SHORTEST_WAIT_S)


class _Step:
    """One step: a scratch copy of the state, and the moves made so far."""

    def __init__(self, scheme: Scheme, state: State, world: World):
        self.scheme = scheme
        self.state = copy(state)
        self.world = world
        self.moves: list[Move] = []

    def emit(self, *move: str) -> None:
        apply(self.state, move)
        self.moves.append(move)

    # Stimuli

    def data(self, items: tuple[str, ...], at: float) -> None:
        """Let the data go: with the pass that a wait holds, or in a new pass."""
        if self.state.ended:
            return
        held = self.held()
        if not held:
            self.begin(items, at)
        elif items:
            self.emit("items", str(held[0]), *self.state.passes[held[0]].items, *items)
        for number in held:
            self.emit("waited", repr(at))
            self.advance(number, at)

    def tick(self, at: float) -> None:
        deadline = wait_deadline(self.scheme, self.state)
        if deadline is None or at < deadline:
            return
        held = self.held()
        for number in held:
            if self.may_leave(self.state.passes[number].node, at):
                self.emit("waited", repr(at))
                self.advance(number, at)
        if not held:
            self.begin((), at)

    def started(self, node: str, process: str) -> None:
        if node not in self.scheme.jobs:
            raise MachineError(f"{self.scheme.name} has no job {node!r}")
        if not process.endswith("/"):
            raise MachineError(f"{process!r} is not a job folder; write it as Folder/jobNNN/")
        self.emit("job", node, process)

    def done(self, number: int, items: tuple[str, ...], at: float) -> None:
        one = self.inside(number)
        if one is None:
            return
        strange = set(items) - set(one.items)
        if strange:
            raise MachineError(f"pass {number} at {one.node} does not carry {sorted(strange)}")
        if items != one.items:
            self.emit("items", str(number), *items)
        self.advance(number, at)
        self.admit(one.node)

    def failed(self, number: int, reason: str) -> None:
        one = self.inside(number)
        if one is not None:
            self.emit("end", str(number), f"failed: {reason}")
            if self.scheme.home is None:
                self.stop("failed")  # without a wait to return to it would be tried for ever
            self.admit(one.node)

    def stop(self, reason: str, *, everything: bool = False) -> None:
        if everything:
            for number in list(self.state.passes):
                self.emit("end", str(number), reason)
        if not self.state.ended:
            self.emit("stop", reason)

    def held(self) -> list[int]:
        """Return the passes that stand at a wait, oldest first."""
        return [n for n, one in sorted(self.state.passes.items()) if self.scheme.is_wait(one.node)]

    def inside(self, number: int) -> Pass | None:
        """Return the pass if it is inside a job, None if it has ended before."""
        one = self.state.passes.get(number)
        if one is None and 0 < number < self.state.next_pass:
            return None
        if one is None or one.queued or one.node not in self.scheme.jobs:
            raise MachineError(f"pass {number} is not inside a job: {one}")
        return one

    # Passes

    def begin(self, items: tuple[str, ...], at: float) -> None:
        """Send a new pass on its way, from the home wait or through the start node."""
        number = self.state.next_pass
        self.emit("pass", str(number), self.scheme.start, *items)
        if self.scheme.home is not None:
            self.emit("waited", repr(at))
            self.advance(number, at)
        elif self.enter(number, self.scheme.start, at):
            self.advance(number, at)

    def advance(self, number: int, at: float) -> None:
        """Take the pass from the node it has finished to the next place where it stays."""
        for _ in range(_MAX_TRANSITIONS):
            node = self.scheme.next_node(self.state.passes[number].node, self.state.bools)
            self.emit("goto", str(number), node)
            if not self.enter(number, node, at):
                return
        trail = " ".join(move[2] for move in self.moves[-20:] if move[0] == "goto")
        raise MachineError(
            f"{self.scheme.name}: {_MAX_TRANSITIONS} operators without a job or wait, ... {trail}"
        )

    def enter(self, number: int, node: str, at: float) -> bool:
        """Execute `node` for the pass that stands there; True if the pass goes on at once."""
        if node in self.scheme.jobs:
            others = any(n != number and p.node == node for n, p in self.state.passes.items())
            if self.state.jobs[node].mode == "new" and others:
                self.emit("queue", str(number))
            return False
        if node == UNDEFINED:
            return self.leave(number, "finished")
        operator = self.scheme.operators[node]
        if operator.type == "wait":
            return self.wait(number, node, at)
        if operator.type == "exit":
            return self.leave(number, "exit")
        if operator.type == "exit_maxtime":
            return self.maxtime(number, node, at)
        self.operate(node)
        return True

    def operate(self, node: str) -> None:
        outcome = execute(self.scheme, node, self.state, self.world)
        if outcome.effect is not None:
            raise SchemeError(
                f"{self.scheme.name}: operator {node!r} of type "
                f"{self.scheme.operators[node].type!r} changes files or sends mail, which a "
                "service does not do; run this Scheme with `schemer run`, or take the operator "
                "out of its edges"
            )
        for kind, name, value in outcome.sets:
            self.emit(*set_move(kind, name, value))

    def leave(self, number: int, reason: str) -> bool:
        self.emit("end", str(number), reason)
        self.stop(reason)
        return False

    def wait(self, number: int, node: str, at: float) -> bool:
        output, ended_at = self.scheme.operators[node].output, self.state.wait_ended_at
        if ended_at is not None and output in self.state.floats:
            self.emit(*set_move("float", output, float(math.floor(at - ended_at))))
        if node == self.scheme.home:
            self.emit("end", str(number), "home")
            return False
        if self.may_leave(node, at):
            self.emit("waited", repr(at))
            return True
        return False

    def may_leave(self, node: str, at: float) -> bool:
        ended_at = self.state.wait_ended_at
        return ended_at is None or at >= ended_at + _wait_s(self.scheme, self.state, node)

    def maxtime(self, number: int, node: str, at: float) -> bool:
        if self.state.exit_at is None:
            hours = self.state.floats[self.scheme.operators[node].input1]
            self.emit("exit_at", repr(at + hours * _SECONDS_PER_HOUR))
            return True
        return True if at < self.state.exit_at else self.leave(number, "maxtime")

    def admit(self, node: str) -> None:
        """Let the line at a job enter it, as one pass, if nobody is inside."""
        here = {n: one for n, one in self.state.passes.items() if one.node == node}
        line = sorted(number for number, one in here.items() if one.queued)
        if not line or len(line) < len(here):
            return
        first, *rest = line
        if rest:
            self.emit("items", str(first), *(item for n in line for item in here[n].items))
            for number in rest:
                self.emit("end", str(number), f"merged into {first}")
        self.emit("admit", str(first))


def validate(scheme: Scheme, state: State) -> None:
    """Raise `MachineError` if an invariant of the state is broken; for tests, after every step."""
    problems = []
    for kind in ("floats", "bools", "strings", "jobs"):
        if set(getattr(state, kind)) != set(getattr(scheme, kind)):
            problems.append(f"the {kind} are not the Scheme's")
    nodes = {*scheme.operators, *scheme.jobs, UNDEFINED}
    if state.current_node not in nodes:
        problems.append(f"current node {state.current_node!r} is not in the Scheme")
    if state.passes and max(state.passes) >= state.next_pass:
        problems.append(f"pass {max(state.passes)} is not below next_pass {state.next_pass}")
    for number, one in state.passes.items():
        held = scheme.is_wait(one.node) and one.node != scheme.home and not one.queued
        if one.node not in scheme.jobs and not held:
            problems.append(f"pass {number} rests at {one.node!r}, neither a job nor a wait")
    for node, row in state.jobs.items():
        here = [one for one in state.passes.values() if one.node == node]
        inside = sum(not one.queued for one in here)
        if row.mode == "new" and here and inside != 1:
            problems.append(f"{inside} passes inside {node!r}, {len(here) - inside} in line")
        if row.mode == "continue" and inside != len(here):
            problems.append(f"a pass stands in line at {node!r}, which takes any number")
    if problems:
        raise MachineError(f"{scheme.name}: " + "; ".join(problems))
