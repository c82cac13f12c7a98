"""The operators of a Scheme: what each takes, and what it does.

One table serves validation and execution. `wait`, `exit` and `exit_maxtime` belong to the machines
(they need a clock); operators that change files or send mail return an effect for the shell.
Source: schemes.md sections 3 and 4; strict and safe as in section 19.
"""

import operator as op
from collections.abc import Callable, Sequence

from schemer import functions as f
from schemer.actions import CopyFile, DeleteFile, MoveFile, SendMail, TouchFile
from schemer.call import NOTHING, REFUSED, Call, Outcome, Spec, Value, kind_named
from schemer.errors import MachineError, SchemeError
from schemer.facts import World
from schemer.functions import literal
from schemer.resolve import Variables
from schemer.scheme import UNDEFINED, Kind, Scheme
from schemer.starlabels import kind_of

__all__ = ["CLOCKED", "OPERATORS", "Outcome", "Spec", "execute", "kind_named", "literal"]

_EQUAL_WITHIN = 1e-8  # RELION's tolerance for bool=eq
_EMPTY_MAXIMUM, _EMPTY_MINIMUM = -9.9e100, 9.9e100  # RELION's starting values

# Functions that need more than two values


def _count_images(path: str, table: str | None, call: Call) -> int:
    return call.world.count_images(path, "particles" if table is None else table)


def _nth_word(text: str, number: float, call: Call) -> str:
    rank = f.index(number)
    if rank < 0 and call.strict:
        return UNDEFINED
    word = f.nth_word(text, rank)
    if rank < 0 and word != UNDEFINED:
        call.warnings.append(f"word {rank} counts from the end; RELION would give `undefined`")
    return word


def _glob(pattern: str, _: None, call: Call) -> str:
    return ",".join(call.world.glob(pattern)) or UNDEFINED


def _read_star(text: str, row: float | None, call: Call) -> Value:
    """Return one cell. In RELION the label says where it goes, whatever the operator's type."""
    path, table, label = f.star_parts(text)
    column = call.world.column(path, table, label)
    at = f.index(row or 0.0)
    if not 0 <= at < len(column):
        raise SchemeError(
            f"{path}: {table} has {len(column)} rows, row {at} of {label} was asked for; "
            "rows count from 0"
        )
    cell, kind = column[at], kind_of(label)
    if call.strict:
        call.kind = kind
        return {"float": f.leading_number, "bool": f.relion_truth, "string": str}[kind](cell)
    if kind == "float" and call.kind == "string" and literal(cell) is None:
        kind = "string"  # a label of a later version
    if kind != call.kind:
        raise SchemeError(
            f"{label} is a {kind} label, so RELION would write to a {kind} variable "
            f"{call.node.output!r}; use {kind}=read_star"
        )
    return {"float": f.number, "bool": f.truth, "string": str}[kind](cell)


def _numbers(text: str, call: Call) -> Sequence[float]:
    path, table, label = f.star_parts(text)
    if kind_of(label) != "float":
        raise SchemeError(f"{label} is a {kind_of(label)} label; a number is needed")
    read = f.leading_number if call.strict else f.number
    return [read(cell) for cell in call.world.column(path, table, label)]


def _mail(first: str, second: str, call: Call) -> SendMail | None:
    """Return the message, if the Scheme says to whom: RELION's only trigger is that variable."""
    to = call.variables.strings.get("email")
    if to is None:
        return None
    lines = [f"input1: {first} = {_shown(first, call) or ''}"]
    value = _shown(second, call)
    lines += [] if value is None else [f"input2: {second} = {value}"]
    return SendMail(to, "Schemer", tuple(lines))


def _shown(name: str, call: Call) -> str | None:
    variables = call.variables
    if name in variables.floats:
        return f"{variables.floats[name]:g}"
    if name in variables.bools:
        return str(variables.bools[name])
    return call.text(variables.strings[name]) if name in variables.strings else None


# The table


def _compare(function: Callable[[float, float], bool]) -> Spec:
    return Spec("bool", "float!", "number", lambda a, b, _: function(a, b))


def _arithmetic(function: Callable[[float, float], float]) -> Spec:
    return Spec("float", "float", "number", lambda a, b, _: function(a, b))


def _cutter(*, last: bool, after: bool) -> Spec:
    return Spec("string", "string", "string", lambda a, b, _: f.cut(a, b, last=last, after=after))


def _reader(kind: Kind) -> Spec:
    return Spec(kind, "string", "float?", _read_star, REFUSED)


def _column(function: Callable[[Sequence[float]], float]) -> Spec:
    return Spec("float", "string", None, lambda a, _, call: function(_numbers(a, call)), REFUSED)


OPERATORS: dict[str, Spec] = {
    "bool=set": Spec("bool", "bool", None, lambda a, _b, _: a),
    "bool=and": Spec("bool", "bool", "bool", lambda a, b, _: a and b),
    "bool=or": Spec("bool", "bool", "bool", lambda a, b, _: a or b),
    "bool=not": Spec("bool!", "bool!", None, lambda a, _b, _: not a),
    "bool=gt": _compare(op.gt),
    "bool=lt": _compare(op.lt),
    "bool=ge": _compare(op.ge),
    "bool=le": _compare(op.le),
    "bool=eq": _compare(lambda a, b: abs(a - b) < _EQUAL_WITHIN),
    "bool=file_exists": Spec(
        "bool", "string", None, lambda a, _, call: call.world.file_exists(a), False
    ),
    "bool=read_star": _reader("bool"),
    "float=set": Spec("float", "float", None, lambda a, _b, _: a),
    "float=plus": _arithmetic(op.add),
    "float=minus": _arithmetic(op.sub),
    "float=mult": _arithmetic(op.mul),
    "float=divide": _arithmetic(f.divide),
    "float=round": Spec("float", "float", None, lambda a, _b, _: f.round_(a)),
    "float=count_images": Spec("float", "string", "string?", _count_images, 0.0),
    "float=count_words": Spec(
        "float", "string", None, lambda a, _b, _: 0 if a == UNDEFINED else len(f.words(a))
    ),
    "float=read_star": _reader("float"),
    "float=star_table_max": _column(lambda values: max(values, default=_EMPTY_MAXIMUM)),
    "float=star_table_min": _column(lambda values: min(values, default=_EMPTY_MINIMUM)),
    "float=star_table_avg": _column(f.average),
    "float=star_table_sort_idx": Spec(
        "float",
        "string",
        "number",
        lambda a, b, call: f.sort_index(_numbers(a, call), f.index(b), a),
        REFUSED,
    ),
    "string=set": Spec("string", "string", None, lambda a, _b, _: a),
    "string=join": Spec("string", "string", "string", lambda a, b, _: a + b),
    "string=before_first": _cutter(last=False, after=False),
    "string=before_last": _cutter(last=True, after=False),
    "string=after_first": _cutter(last=False, after=True),
    "string=after_last": _cutter(last=True, after=True),
    "string=read_star": _reader("string"),
    "string=glob": Spec("string", "string", None, _glob, UNDEFINED),
    "string=nth_word": Spec("string", "string", "number", _nth_word),
    "touch_file": Spec(None, "string", None, lambda a, _b, _: TouchFile(a), REFUSED),
    "copy_file": Spec(None, "string", "string", lambda a, b, _: CopyFile(a, b), NOTHING),
    "move_file": Spec(None, "string", "string", lambda a, b, _: MoveFile(a, b), NOTHING),
    "delete_file": Spec(None, "string", None, lambda a, _b, _: DeleteFile(a), NOTHING),
    "email": Spec(
        None, None, None, lambda _a, _b, call: _mail(call.node.input1, call.node.input2, call)
    ),
    # The machines' own.
    "wait": Spec(None, "float!", None, None),
    "exit": Spec(None, None, None, None),
    "exit_maxtime": Spec(None, "float", None, None),
    # Accepted by RELION at load, and fatal there when executed.
    "float=star_table_max_idx": Spec(None, None, None, None),
    "float=star_table_min_idx": Spec(None, None, None, None),
}
CLOCKED = ("wait", "exit", "exit_maxtime")
_NO_SPEC = Spec(None, None, None, None)


def execute(
    scheme: Scheme, name: str, variables: Variables, world: World, *, strict: bool = False
) -> Outcome:
    """Return what the operator node `name` does; nothing is changed.

    Parameters
    ----------
    scheme, name
        The Scheme and one of its operator nodes, other than wait, exit and exit_maxtime.
    variables
        The state: present values, and `jobs` for the Scheme paths among them.
    world
        Asked for facts about files.
    strict
        As RELION, with its quirks; otherwise with the repairs of schemes.md section 19.

    Raises
    ------
    SchemeError
        An unknown type or variable, or a STAR file that does not have what it is asked for; the
        message names the Scheme and the operator.
    MachineError
        The node is one that the machines execute themselves.
    """
    node = scheme.operators[name]
    if node.type in CLOCKED:
        raise MachineError(f"{scheme.name}: {name!r} ({node.type}) is the machine's own")
    spec = OPERATORS.get(node.type, _NO_SPEC)
    try:
        return Call(scheme, node, variables, world, strict).outcome(spec)
    except SchemeError as error:
        raise SchemeError(f"{scheme.name}: operator {name!r} ({node.type}): {error}") from error
