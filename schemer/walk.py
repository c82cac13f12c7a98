"""RELION's machine: one current node, one operator or one whole job at a time; pure.

`step` answers a stimulus with *moves*, which `apply` folds into the walk, and with one
*instruction*, which the shell (`schemer.runner`) carries out and answers with the next stimulus.
The same stimuli always lead to the same moves, so a log of stimuli is the whole story.

::

    Go          -> Proceed | Perform | Sleep | MakeJob | AwaitInputs | Finish
    Performed   -> Proceed        the operator's effect is done
    Woke        -> Proceed        a wait or a pause is over
    JobMade     -> AwaitInputs    the job has its folder
    InputsThere -> RunJob         the files that it reads exist
    JobEnded    -> Proceed | Finish
    Stop        -> Finish         abort, an input that never came, an error

A *transition* is the step to the next node; the shell writes it to `scheme.star` before it says
Go, so that the file always names the node about to be executed and the values before it.
`machine.py` is the other machine, for many passes at once. Source: schemes.md sections 3, 6, 7, 19.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct, structs

from schemer import state as states
from schemer.errors import MachineError, SchemeError
from schemer.exchange import (
    AwaitInputs,
    Finish,
    Go,
    InputsThere,
    Instruction,
    JobEnded,
    JobMade,
    MakeJob,
    Perform,
    Performed,
    Proceed,
    RunJob,
    Sleep,
    Stimulus,
    Stop,
    Woke,
)
from schemer.facts import World
from schemer.operators import execute
from schemer.scheme import UNDEFINED, Scheme
from schemer.state import Move, State, set_move

_SECONDS_PER_HOUR = 3600.0
# RELION sleeps in steps of this length.
_STRICT_STEP_S = 10.0
# Safe mode: a cycle that meets no job and changes nothing may come round once in this time.
_SHORTEST_CYCLE_S = 1.0
# So many operators without job or wait are a loop that only counts; it is slowed down too.
_LONG_CYCLE = 10_000


class Walk(Struct, kw_only=True):
    """Everything the machine remembers; plain data, changed only by `apply`.

    `phase` says what the current node is in: "ready" to be executed, "effect", "sleep", "make" (a
    job needs its folder), "inputs" (it waits for files), "job", "ended". `visit` counts the jobs
    that were begun: it names the folder of a job that a crash interrupted. `continues` says that
    the job goes on in its folder. `sleep_until` is the end of a sleep. `changes`, `marks`,
    `rest_at` and `steps` find cycles that do nothing: how often a variable changed, that count at
    each node's last execution, when the walk last rested, operators since.
    """

    state: State
    phase: str = "ready"
    initial: bool = True
    visit: int = 0
    continues: bool = False
    sleep_until: float | None = None
    changes: int = 0
    marks: dict[str, int] = {}
    rest_at: float = -math.inf
    steps: int = 0


class Answer(Struct, frozen=True):
    """What a stimulus leads to; `warnings` say where the result differs from RELION's."""

    moves: tuple[Move, ...]
    instruction: Instruction
    warnings: tuple[str, ...] = ()


def begin(scheme: Scheme) -> Walk:
    """Return a walk at the Scheme's current node, with fresh clocks."""
    return Walk(state=states.initial(scheme))


def step(
    scheme: Scheme, walk: Walk, stimulus: Stimulus, world: World, *, strict: bool = False
) -> Answer:
    """Return the answer to a stimulus; `walk` itself is not changed.

    Parameters
    ----------
    scheme, walk
        The Scheme, and where the machine stands in it.
    stimulus
        What has happened.
    world
        Asked for facts about files while an operator is executed.
    strict
        As RELION, with its quirks; otherwise with the repairs of schemes.md section 19.

    Raises
    ------
    MachineError
        The stimulus does not fit the phase.
    SchemeError
        An operator cannot be executed, or the walk stands where it cannot go on.
    """
    return _Step(scheme, walk, world, strict).answer(stimulus)


def resume(walk: Walk, scheme: Scheme, *, strict: bool = False) -> Instruction:
    """Return the instruction that a walk rebuilt after a crash was in the middle of.

    A job goes on in the folder it has; everything else is done again from the node's beginning,
    which is harmless: the values in the file are those before the node.
    """
    node = walk.state.current_node
    if walk.phase == "ended":
        return Finish(walk.state.ended)
    if walk.phase in ("inputs", "job") and node in scheme.jobs:
        job = (node, walk.state.jobs[node].current_name, walk.continues, walk.visit)
        return RunJob(*job) if walk.phase == "job" else AwaitInputs(*job)
    if walk.phase == "sleep" and walk.sleep_until is not None:
        return Sleep(walk.sleep_until, data=not strict)
    return Proceed()


def apply(walk: Walk, move: Move) -> None:
    """Fold one move into the walk; MachineError if it does not fit."""
    match move:
        case ("phase", phase):
            walk.phase, walk.initial = phase, False
        case ("sleep", until):
            walk.phase, walk.sleep_until, walk.initial = "sleep", float(until), False
        case ("rest", at):
            walk.rest_at, walk.steps, walk.marks = float(at), 0, {}
        case ("visit", number, continues):
            walk.visit, walk.continues = int(number), continues == "1"
        case ("mark", node):
            walk.marks[node] = walk.changes
            walk.steps += 1
        case ("set", kind, name, _):
            before = _values(walk.state, kind).get(name)
            states.apply(walk.state, move)
            walk.changes += _values(walk.state, kind)[name] != before
        case ("at", _):
            states.apply(walk.state, move)
            walk.phase, walk.initial = "ready", False
        case _:
            states.apply(walk.state, move)


def _values(state: State, kind: str) -> Mapping[str, object]:
    kinds = {"float": state.floats, "bool": state.bools, "string": state.strings}
    return kinds.get(kind, MappingProxyType({}))


# The phase in which a stimulus can come; Stop comes in any.
_PHASES: dict[type, str] = {
    Go: "ready",
    Performed: "effect",
    Woke: "sleep",
    JobMade: "make",
    InputsThere: "inputs",
    JobEnded: "job",
}


class _Step:
    """One step: a scratch copy of the walk, and the moves made so far."""

    def __init__(self, scheme: Scheme, walk: Walk, world: World, strict: bool):
        self.scheme, self.world, self.strict = scheme, world, strict
        self.walk = structs.replace(walk, state=states.copy(walk.state), marks=dict(walk.marks))
        self.state = self.walk.state
        self.node = self.state.current_node
        self.moves: list[Move] = []
        self.warnings: tuple[str, ...] = ()

    def emit(self, *move: str) -> None:
        apply(self.walk, move)
        self.moves.append(move)

    def answer(self, stimulus: Stimulus) -> Answer:
        wanted = _PHASES.get(type(stimulus))
        phase = self.walk.phase
        if phase == "ended" or (wanted is not None and phase != wanted):
            raise MachineError(f"{self.scheme.name}: {stimulus} while {self.node} is {phase!r}")
        match stimulus:
            case Go(at=at):
                instruction = self.go(at)
            case Performed():
                instruction = self.leave()
            case Woke(at=at):
                instruction = self.woke(at)
            case JobMade(process=process):
                instruction = self.made(process)
            case InputsThere():
                instruction = self.run()
            case JobEnded(status=status):
                instruction = (
                    self.leave()
                    if status == "Succeeded"
                    else self.finish("job aborted" if status == "Aborted" else "job failed")
                )
            case Stop(reason=reason):
                instruction = self.finish(reason)
        return Answer(tuple(self.moves), instruction, self.warnings)

    # At a node

    def go(self, at: float) -> Instruction:
        if self.node in self.scheme.operators:
            return self.operator(at)
        if self.node in self.scheme.jobs:
            return self.job()
        if self.node == UNDEFINED:
            return self.finish("finished")
        raise SchemeError(
            f"{self.scheme.name}: the current node {self.node!r} is neither an operator nor a job; "
            "set another with `schemer set-current-node`"
        )

    def operator(self, at: float) -> Instruction:
        kind = self.scheme.operators[self.node].type
        if kind == "wait":
            return self.wait(at)
        if kind == "exit":
            return self.ends("exit")
        if kind == "exit_maxtime":
            return self.maxtime(at)
        if not self.strict and self.spins():
            self.emit("rest", repr(at))
            return self.sleep(at + _SHORTEST_CYCLE_S, data=True)
        outcome = execute(self.scheme, self.node, self.state, self.world, strict=self.strict)
        self.warnings = outcome.warnings
        self.emit("mark", self.node)
        for name in outcome.phantoms:
            self.emit("phantom", name)
        for one, name, value in outcome.sets:
            if name not in _values(self.state, one):
                self.emit("create", one, name)
            self.emit(*set_move(one, name, value))
        if outcome.effect is not None:
            self.emit("phase", "effect")
            return Perform(self.node, outcome.effect)
        return self.leave()

    def spins(self) -> bool:
        """Return whether the walk came round to this node without having changed anything."""
        here = self.walk.marks.get(self.node)
        return here == self.walk.changes or self.walk.steps >= _LONG_CYCLE

    def wait(self, at: float) -> Instruction:
        operator = self.scheme.operators[self.node]
        ended_at = self.state.wait_ended_at
        if ended_at is None:
            return self.wait_over(at)
        elapsed = math.floor(at) - math.floor(ended_at) if self.strict else at - ended_at
        if operator.output in self.state.floats:
            self.emit(*set_move("float", operator.output, float(math.floor(elapsed))))
        if self.strict and operator.input1 not in self.state.floats:
            self.emit("create", "float", operator.input1)
        remaining = self.state.floats.get(operator.input1, 0.0) - elapsed
        if self.strict:
            steps = math.ceil(remaining / _STRICT_STEP_S) * _STRICT_STEP_S
        else:
            # A cycle without a job, at whatever pace, comes round once a second at most.
            steps = max(remaining, self.walk.rest_at + _SHORTEST_CYCLE_S - at)
        return self.sleep(at + steps, data=not self.strict) if steps > 0 else self.wait_over(at)

    def wait_over(self, at: float) -> Instruction:
        self.emit("rest", repr(at))
        self.emit("waited", repr(at))
        return self.leave()

    def woke(self, at: float) -> Instruction:
        operator = self.scheme.operators[self.node]
        if operator.type == "wait":
            return self.wait_over(at)
        self.emit("rest", repr(at))
        self.emit("phase", "ready")
        return Proceed()

    def maxtime(self, at: float) -> Instruction:
        if self.state.exit_at is None:
            hours = self.state.floats.get(self.scheme.operators[self.node].input1, 0.0)
            self.emit("exit_at", repr(at + hours * _SECONDS_PER_HOUR))
            return self.leave()
        return self.leave() if at < self.state.exit_at else self.ends("maxtime")

    def job(self) -> Instruction:
        row = self.state.jobs[self.node]
        again = row.mode == "continue" and row.has_started
        if row.has_started and row.mode not in ("new", "continue"):
            raise SchemeError(
                f"{self.scheme.name}: job {self.node!r} has the mode {row.mode!r}; set it to new "
                "or continue with `schemer set-job-mode`"
            )
        self.emit("rest", "-inf")  # a job is no idle cycle
        self.emit("visit", str(self.walk.visit + 1), "1" if again else "0")
        if again:
            return self.await_inputs(row.current_name)
        self.emit("phase", "make")
        return MakeJob(self.node, self.walk.visit)

    def made(self, process: str) -> Instruction:
        if not process.endswith("/"):
            raise MachineError(f"{process!r} is not a job folder; write it as Folder/jobNNN/")
        self.emit("made", self.node, process)
        return self.await_inputs(process)

    def await_inputs(self, process: str) -> Instruction:
        self.emit("phase", "inputs")
        return AwaitInputs(self.node, process, self.walk.continues, self.walk.visit)

    def run(self) -> Instruction:
        process = self.state.jobs[self.node].current_name
        self.emit("job", self.node, process)
        self.emit("phase", "job")
        return RunJob(self.node, process, self.walk.continues, self.walk.visit)

    # From here to there

    def leave(self) -> Instruction:
        following = self.scheme.next_node(self.node, self.state.bools)
        self.emit("at", following)
        return self.finish("finished") if following == UNDEFINED else Proceed()

    def sleep(self, until: float, *, data: bool) -> Instruction:
        self.emit("sleep", repr(until))
        return Sleep(until, data)

    def ends(self, reason: str) -> Instruction:
        """End at an operator; RELION takes it as an error where the walk begins there."""
        if self.strict and self.walk.initial:
            raise SchemeError(
                f"{self.scheme.name}: {self.node!r} ends the Scheme where it begins; set another "
                "current node"
            )
        return self.finish(reason)

    def finish(self, reason: str) -> Instruction:
        self.emit("stop", reason)
        self.emit("phase", "ended")
        return Finish(reason)


def validate(scheme: Scheme, walk: Walk) -> None:
    """Raise `MachineError` if an invariant of the walk is broken; for tests, after every step."""
    state, problems = walk.state, []
    for kind in ("floats", "bools", "strings", "jobs"):
        missing = set(getattr(scheme, kind)) - set(getattr(state, kind))
        if missing:
            problems.append(f"{kind} lost {sorted(missing)}")
    nodes = {*scheme.operators, *scheme.jobs, UNDEFINED}
    if state.current_node not in nodes:
        problems.append(f"current node {state.current_node!r} is not in the Scheme")
    if walk.phase not in {*_PHASES.values(), "ended"}:
        problems.append(f"{walk.phase!r} is no phase")
    if walk.phase in ("make", "inputs", "job") and state.current_node not in scheme.jobs:
        problems.append(f"{walk.phase!r} at {state.current_node!r}, which is no job")
    if walk.phase in ("effect", "sleep") and state.current_node not in scheme.operators:
        problems.append(f"{walk.phase!r} at {state.current_node!r}, which is no operator")
    if (walk.phase == "ended") != bool(state.ended):
        problems.append(f"phase {walk.phase!r} and end {state.ended!r} do not fit")
    if walk.phase == "job" and not state.jobs[state.current_node].current_name.endswith("/"):
        problems.append(f"the job {state.current_node!r} runs without a folder")
    if state.passes:
        problems.append("a walk has no passes")
    if problems:
        raise MachineError(f"{scheme.name}: " + "; ".join(problems))
