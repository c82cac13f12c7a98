"""The operators of a Scheme: what each takes, and what it computes.

One table serves validation and execution. `wait`, `exit` and `exit_maxtime` belong to the machine
(they need its clock); operators that change files are valid in a Scheme but not executed yet.
Source: schemes.md section 3; deviations from RELION are those of section 19, column "safe".
"""

import math
import operator as op
from collections.abc import Callable
from typing import Any, NamedTuple

from schemer.errors import SchemeError
from schemer.facts import World
from schemer.resolve import Resolved, Variables, resolve
from schemer.scheme import UNDEFINED, Kind, Scheme, parse_bool

_EQUAL_WITHIN = 1e-8  # RELION's tolerance for bool=eq

# What an argument may be: a variable's kind, "number" (float variable or literal), or one of the
# optional forms "float?" and "string?" (used if it names such a variable, else ignored).
Argument = str


class Spec(NamedTuple):
    """Arguments of one operator type, and its function (in1, in2, world) -> value of the output."""

    output: Kind | None
    input1: Argument | None
    input2: Argument | None
    compute: Callable[[Any, Any, World], Any] | None


def _divide(a: float, b: float) -> float:
    if b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)


def _round(a: float) -> float:
    """Return the nearest integer, halves away from zero."""
    return math.copysign(math.floor(abs(a) + 0.5), a) if math.isfinite(a) else a


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _nth_word(text: str, number: float) -> str:
    words, index = _words(text), int(_round(number))
    if not 1 <= abs(index) <= len(words):
        return UNDEFINED
    return words[index - 1 if index > 0 else index]


def _cut(text: str, separator: str, *, last: bool, after: bool) -> str:
    if not separator or separator not in text:
        return text
    parts = text.rpartition(separator) if last else text.partition(separator)
    return parts[2] if after else parts[0]


def _star_parts(text: str) -> tuple[str, str, str]:
    parts = _words(text)
    if len(parts) != 3:
        raise SchemeError(
            f"{text!r} does not name a STAR column; write it as file.star,tablename,label"
        )
    return parts[0], parts[1], parts[2]


def _cell(text: str, row: float | None, world: World) -> str:
    path, table, label = _star_parts(text)
    column = world.column(path, table, label)
    index = int(_round(row or 0.0))
    if not 0 <= index < len(column):
        raise SchemeError(
            f"{path}: {table} has {len(column)} rows, row {index} of {label} was asked for; "
            "rows count from 0"
        )
    return column[index]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SchemeError(f"{text!r} was read from a STAR file where a number is needed") from None


def _truth(text: str) -> bool:
    value = parse_bool(text)
    if value is None:
        raise SchemeError(f"{text!r} was read from a STAR file where 0 or 1 is needed")
    return value


def _numbers(text: str, world: World) -> list[float]:
    return [_number(cell) for cell in world.column(*_star_parts(text))]


def _sort_index(text: str, rank: float, world: World) -> float:
    values, number = _numbers(text, world), int(_round(rank))
    if not 1 <= abs(number) <= len(values):
        raise SchemeError(
            f"rank {number} of {len(values)} values of {text!r}; 1 is the smallest, -1 the largest"
        )
    order = sorted(range(len(values)), key=values.__getitem__)
    return float(order[number - 1 if number > 0 else number])


def _average(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


# An empty column leaves RELION's own starting values.
_EMPTY_MAXIMUM, _EMPTY_MINIMUM = -9.9e100, 9.9e100


def _compare(function: Callable[[float, float], bool]) -> Spec:
    return Spec("bool", "float", "number", lambda a, b, _: function(a, b))


def _arithmetic(function: Callable[[float, float], float]) -> Spec:
    return Spec("float", "float", "number", lambda a, b, _: function(a, b))


def _cutter(*, last: bool, after: bool) -> Spec:
    return Spec("string", "string", "string", lambda a, b, _: _cut(a, b, last=last, after=after))


_FILES = Spec(None, "string", "string", None)
OPERATORS: dict[str, Spec] = {
    "bool=set": Spec("bool", "bool", None, lambda a, _b, _w: a),
    "bool=and": Spec("bool", "bool", "bool", lambda a, b, _: a and b),
    "bool=or": Spec("bool", "bool", "bool", lambda a, b, _: a or b),
    "bool=not": Spec("bool", "bool", None, lambda a, _b, _w: not a),
    "bool=gt": _compare(op.gt),
    "bool=lt": _compare(op.lt),
    "bool=ge": _compare(op.ge),
    "bool=le": _compare(op.le),
    "bool=eq": _compare(lambda a, b: abs(a - b) < _EQUAL_WITHIN),
    "bool=file_exists": Spec("bool", "string", None, lambda a, _b, world: world.file_exists(a)),
    "bool=read_star": Spec("bool", "string", "float?", lambda a, b, w: _truth(_cell(a, b, w))),
    "float=set": Spec("float", "float", None, lambda a, _b, _w: a),
    "float=plus": _arithmetic(op.add),
    "float=minus": _arithmetic(op.sub),
    "float=mult": _arithmetic(op.mul),
    "float=divide": _arithmetic(_divide),
    "float=round": Spec("float", "float", None, lambda a, _b, _w: _round(a)),
    "float=count_images": Spec(
        "float", "string", "string?", lambda a, b, world: world.count_images(a, b or "particles")
    ),
    "float=count_words": Spec(
        "float", "string", None, lambda a, _b, _w: 0 if a == UNDEFINED else len(_words(a))
    ),
    "float=read_star": Spec("float", "string", "float?", lambda a, b, w: _number(_cell(a, b, w))),
    "float=star_table_max": Spec(
        "float", "string", None, lambda a, _b, w: max(_numbers(a, w), default=_EMPTY_MAXIMUM)
    ),
    "float=star_table_min": Spec(
        "float", "string", None, lambda a, _b, w: min(_numbers(a, w), default=_EMPTY_MINIMUM)
    ),
    "float=star_table_avg": Spec(
        "float", "string", None, lambda a, _b, w: _average(_numbers(a, w))
    ),
    "float=star_table_sort_idx": Spec("float", "string", "number", _sort_index),
    "string=set": Spec("string", "string", None, lambda a, _b, _w: a),
    "string=join": Spec("string", "string", "string", lambda a, b, _: a + b),
    "string=before_first": _cutter(last=False, after=False),
    "string=before_last": _cutter(last=True, after=False),
    "string=after_first": _cutter(last=False, after=True),
    "string=after_last": _cutter(last=True, after=True),
    "string=read_star": Spec("string", "string", "float?", _cell),
    "string=glob": Spec(
        "string", "string", None, lambda a, _b, world: ",".join(world.glob(a)) or UNDEFINED
    ),
    "string=nth_word": Spec("string", "string", "number", lambda a, b, _: _nth_word(a, b)),
    # The machine's own.
    "wait": Spec(None, "float", None, None),
    "exit": Spec(None, None, None, None),
    "exit_maxtime": Spec(None, "float", None, None),
    # Known to RELION, valid in a file, not executed by this version.
    "touch_file": Spec(None, "string", None, None),
    "copy_file": _FILES,
    "move_file": _FILES,
    "delete_file": Spec(None, "string", None, None),
    "email": Spec(None, None, None, None),
    "float=star_table_max_idx": Spec(None, None, None, None),
    "float=star_table_min_idx": Spec(None, None, None, None),
}
CLOCKED = ("wait", "exit", "exit_maxtime")
_FALSE_WHILE_PENDING = ("bool=file_exists", "float=count_images")


def literal(text: str) -> float | None:
    """Return the number written directly in an Input2 column, None if it is not a number."""
    try:
        return float(text)
    except ValueError:
        return None


def compute(
    scheme: Scheme, name: str, variables: Variables, world: World
) -> tuple[Kind, str, float | bool | str]:
    """Return (kind, variable, value) that the operator node `name` sets; nothing is changed.

    Parameters
    ----------
    scheme, name
        The Scheme and one of its operator nodes, of a type that computes a value.
    variables
        The state: present values, and `jobs` for the Scheme paths among them.
    world
        Asked for facts about files.

    Raises
    ------
    SchemeError
        A type this version does not execute, an unknown variable, or a STAR file that does not
        have what it is asked for; the message names the Scheme and the operator.
    """
    node = scheme.operators[name]
    spec = OPERATORS[node.type]
    if spec.compute is None or spec.output is None:
        raise SchemeError(
            f"{scheme.name}: operator {name!r} of type {node.type!r} is not executed by this "
            "version; take it out of the Scheme's edges"
        )
    try:
        first = _argument(scheme, node.input1, spec.input1, variables, world)
        second = _argument(scheme, node.input2, spec.input2, variables, world)
        if isinstance(first, Resolved):
            if first.pending and node.type in _FALSE_WHILE_PENDING:
                return spec.output, node.output, _typed(spec.output, 0)
            first = first.text
        if isinstance(second, Resolved):
            second = second.text
        return spec.output, node.output, _typed(spec.output, spec.compute(first, second, world))
    except SchemeError as error:
        raise SchemeError(f"{scheme.name}: operator {name!r} ({node.type}): {error}") from error


def _typed(kind: Kind, value: Any) -> float | bool | str:
    return {"float": float, "bool": bool, "string": str}[kind](value)


def _argument(
    scheme: Scheme, name: str, wanted: Argument | None, variables: Variables, world: World
) -> Resolved | float | bool | None:
    if wanted is None:
        return None
    kind, optional = wanted.rstrip("?"), wanted.endswith("?")
    number = literal(name) if kind == "number" else None
    if kind == "string" and name in variables.strings:
        return resolve(variables.strings[name], scheme.name, variables.jobs, world)
    if kind == "bool" and name in variables.bools:
        return variables.bools[name]
    if kind in ("float", "number") and name in variables.floats:
        return variables.floats[name]
    if number is not None or optional:
        return number
    raise SchemeError(f"there is no {kind} variable {name!r}; add it to the Scheme")
