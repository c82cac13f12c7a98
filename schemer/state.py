"""The state of a machine, and the moves that change it.

A *move* is a tuple of words; `apply` folds one into the state. The journal keeps moves, so that a
state is rebuilt exactly by folding them again, with no world and no clock.

=========================================  =======================================================
("pass", id, node, *items)                 a new pass stands at `node` and carries `items`
("goto", id, node)                         the pass goes to `node`, the Scheme's current node
("queue", id) / ("admit", id)              the pass waits in line at its job / enters the job
("items", id, *items)                      the pass now carries these items
("end", id, reason)                        the pass is over
("set", "float"|"bool"|"string", v, text)  variable `v` gets a value
("job", node, process)                     job `node` runs in folder `process`, has started
("waited", at)                             a wait has ended
("exit_at", at)                            the deadline of exit_maxtime is set
("stop", reason)                           the machine ends
("restart", node)                          it runs again from `node`, with fresh clocks
("at", node)                               the only place, of a machine without passes, is `node`
("made", node, process)                    job `node` has the folder `process`, not started yet
("row", node, process, mode, started)      the job table's row, as somebody else wrote it
("create", "float"|"bool"|"string", v)     a variable comes into being, 0, false or empty
("phantom", name)                          RELION's useless row in the job table
=========================================  =======================================================

Times are seconds of any one clock. Floats are written with `repr`: exact.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct, structs

from schemer.errors import MachineError
from schemer.scheme import JobRow, Kind, Scheme

Move = tuple[str, ...]


class Pass(Struct, frozen=True):
    """One trip through the graph, carrying items; it stands at a job, in it or in line for it."""

    node: str
    items: tuple[str, ...] = ()
    queued: bool = False


class State(Struct, kw_only=True):
    """Everything a machine remembers; plain data, changed only by `apply`.

    `wait_ended_at` is when the last wait ended and `exit_at` the deadline of exit_maxtime (both
    None until first executed, neither is part of scheme.star); `ended` is empty while the machine
    runs, afterwards the reason. Passes under way when it ends still finish their trip.
    `phantoms` are the names of useless rows in the job table, which RELION adds.
    """

    current_node: str
    floats: dict[str, float] = {}
    bools: dict[str, bool] = {}
    strings: dict[str, str] = {}
    jobs: dict[str, JobRow] = {}
    phantoms: dict[str, JobRow] = {}
    passes: dict[int, Pass] = {}
    next_pass: int = 1
    wait_ended_at: float | None = None
    exit_at: float | None = None
    ended: str = ""


def initial(scheme: Scheme, *, reset: bool = False) -> State:
    """Return the state of a Scheme before its first step.

    Parameters
    ----------
    scheme
        As loaded.
    reset
        Take the variables' reset values and forget which jobs have run, as RELION's `--reset`;
        otherwise go on with the values that stood in the file.
    """

    def now(variable: Any) -> Any:
        return variable.reset if reset else variable.value

    return State(
        current_node=scheme.start if reset else scheme.current_node,
        floats={name: now(variable) for name, variable in scheme.floats.items()},
        bools={name: now(variable) for name, variable in scheme.bools.items()},
        strings={name: now(variable) for name, variable in scheme.strings.items()},
        jobs={n: JobRow(n, row.mode) if reset else row for n, row in scheme.jobs.items()},
        phantoms={} if reset else dict(scheme.phantoms),
    )


def copy(state: State) -> State:
    """Return an independent copy (rows and passes are immutable and shared)."""
    return structs.replace(
        state,
        floats=dict(state.floats),
        bools=dict(state.bools),
        strings=dict(state.strings),
        jobs=dict(state.jobs),
        phantoms=dict(state.phantoms),
        passes=dict(state.passes),
    )


def at_jobs(state: State) -> dict[int, str]:
    """Return pass id -> job node for every pass that is inside a job (not in line for it)."""
    return {
        number: one.node
        for number, one in state.passes.items()
        if one.node in state.jobs and not one.queued
    }


def value_text(value: float | bool | str) -> str:
    """Return a variable's value as a word of a move: exact, and the same for the same value."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return repr(value) if isinstance(value, float) else str(value)


def set_move(kind: Kind, name: str, value: float | bool | str) -> Move:
    """Return the move that gives variable `name` a value; also right for a person's change."""
    return ("set", kind, name, value_text(value))


def apply(state: State, move: Move) -> None:
    """Fold one move into `state`.

    Raises
    ------
    MachineError
        The word is not a move, or it names a pass, variable or job that the state does not have.
    """
    fold = _FOLDS.get(move[0]) if move else None
    if fold is None:
        raise MachineError(f"{move!r} is not a move")
    try:
        fold(state, *move[1:])
    except (KeyError, TypeError, ValueError) as error:
        raise MachineError(f"{move!r} does not fit the state: {error!r}") from error


def _change(state: State, number: str, **fields: object) -> None:
    state.passes[int(number)] = structs.replace(state.passes[int(number)], **fields)


def _pass(state: State, number: str, node: str, *items: str) -> None:
    state.passes[int(number)] = Pass(node, items)
    state.next_pass = int(number) + 1
    state.current_node = node


def _goto(state: State, number: str, node: str) -> None:
    _change(state, number, node=node, queued=False)
    state.current_node = node


def _queue(state: State, number: str) -> None:
    _change(state, number, queued=True)


def _admit(state: State, number: str) -> None:
    _change(state, number, queued=False)
    state.current_node = state.passes[int(number)].node


def _items(state: State, number: str, *items: str) -> None:
    _change(state, number, items=items)


def _end(state: State, number: str, reason: str) -> None:
    del state.passes[int(number)]


def _set(state: State, kind: str, name: str, text: str) -> None:
    values, convert = {
        "float": (state.floats, float),
        "bool": (state.bools, lambda word: {"1": True, "0": False}[word]),
        "string": (state.strings, str),
    }[kind]
    if name not in values:
        raise KeyError(name)
    values[name] = convert(text)


def _job(state: State, node: str, process: str) -> None:
    state.jobs[node] = structs.replace(state.jobs[node], current_name=process, has_started=True)


def _waited(state: State, at: str) -> None:
    state.wait_ended_at = float(at)


def _exit_at(state: State, at: str) -> None:
    state.exit_at = float(at)


def _stop(state: State, reason: str) -> None:
    state.ended = reason


def _restart(state: State, node: str) -> None:
    state.current_node = node
    state.ended, state.wait_ended_at, state.exit_at = "", None, None


def _at(state: State, node: str) -> None:
    state.current_node = node


def _made(state: State, node: str, process: str) -> None:
    state.jobs[node] = structs.replace(state.jobs[node], current_name=process)


def _row(state: State, node: str, process: str, mode: str, started: str) -> None:
    state.jobs[node] = JobRow(process, mode, started == "1")


def _create(state: State, kind: str, name: str) -> None:
    values, value = {
        "float": (state.floats, 0.0),
        "bool": (state.bools, False),
        "string": (state.strings, ""),
    }[kind]
    values.setdefault(name, value)


def _phantom(state: State, name: str) -> None:
    state.phantoms[name] = JobRow("", "", True)


_FOLDS: dict[str, Callable[..., None]] = {
    "pass": _pass,
    "goto": _goto,
    "queue": _queue,
    "admit": _admit,
    "items": _items,
    "end": _end,
    "set": _set,
    "job": _job,
    "waited": _waited,
    "exit_at": _exit_at,
    "stop": _stop,
    "restart": _restart,
    "at": _at,
    "made": _made,
    "row": _row,
    "create": _create,
    "phantom": _phantom,
}
