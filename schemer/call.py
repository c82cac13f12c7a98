"""One call of an operator: its arguments as values, and what it says beside its result.

Where RELION has a quirk, the call knows both ways. Source: schemes.md sections 3, 4 and 19.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from schemer.actions import Effect
from schemer.errors import SchemeError
from schemer.facts import World
from schemer.functions import literal
from schemer.resolve import Variables, is_scheme_path, resolve
from schemer.scheme import UNDEFINED, Kind, Operator, Scheme

# What an argument may be: a variable's kind, or "number" (float variable or literal). A trailing
# "?" marks an optional one (used if it names such a variable), a trailing "!" one that RELION does
# not check: there an unknown name comes into being, as 0 or false.
Argument = str
Value = float | bool | str

# What an operator makes of a path to a job that has not run yet, if not a fixed value: it works on
# the text; it cannot be executed; it does nothing.
AS_TEXT: Any = object()
REFUSED: Any = object()
NOTHING: Any = object()

UNKNOWN = "unrecognised Operator type, which RELION cannot execute either"


class Outcome(NamedTuple):
    """What an operator does.

    `sets` are assignments in their order; a name that the Scheme lacks comes into being (strict).
    `effect` is what the shell must do. `phantoms` are job rows that RELION adds by mistake
    (strict). `warnings` say, one line each, where the result differs from RELION's (safe).
    """

    sets: tuple[tuple[Kind, str, Value], ...] = ()
    effect: Effect | None = None
    phantoms: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Spec(NamedTuple):
    """One operator type: its arguments, and its function (in1, in2, call) -> value or effect.

    `absent` is the result for a path to a job that has not run yet, or one of the marks above.
    """

    output: Argument | None
    input1: Argument | None
    input2: Argument | None
    compute: "Callable[[Any, Any, Call], Any] | None"
    absent: Any = AS_TEXT


class Call:
    """One execution: its operator, what it may ask, and what it has to say beside the result."""

    __slots__ = (
        "kind",
        "node",
        "pending",
        "phantoms",
        "scheme",
        "sets",
        "strict",
        "variables",
        "warnings",
        "world",
    )

    def __init__(
        self, scheme: Scheme, node: Operator, variables: Variables, world: World, strict: bool
    ):
        self.scheme, self.node, self.variables = scheme, node, variables
        self.world, self.strict = world, strict
        self.kind: Kind | None = None  # of the output
        self.pending = ""  # the path to a job that has not run yet (safe)
        self.sets: list[tuple[Kind, str, Value]] = []
        self.phantoms: list[str] = []
        self.warnings: list[str] = []

    def outcome(self, spec: Spec) -> Outcome:
        """Execute the operator; SchemeError if that cannot be."""
        if spec.compute is None:
            raise SchemeError(UNKNOWN)
        first, second = self.arguments(spec)
        if spec.output is not None:
            self.kind = kind_named(spec.output)
            self.look_at_output(spec.output)
        result = self.absent(spec.absent) if self.pending else AS_TEXT
        if result is AS_TEXT:
            result = spec.compute(first, second, self)
        extra = tuple(dict.fromkeys(self.phantoms)), tuple(self.warnings)
        if self.kind is None:
            return Outcome(tuple(self.sets), None if result is NOTHING else result, *extra)
        value = float(result) if self.kind == "float" else result
        return Outcome((*self.sets, (self.kind, self.node.output, value)), None, *extra)

    def look_at_output(self, wanted: Argument) -> None:
        """Refuse an output that is not there, as far as RELION does so at load."""
        name, variables, kind = self.node.output, self.variables, self.kind
        values = variables.floats if kind == "float" else variables.bools
        if name not in (variables.strings if kind == "string" else values):
            if not (self.strict and wanted[-1] == "!"):
                raise SchemeError(f"there is no {kind} variable {name!r}; add it to the Scheme")
        elif self.strict and kind == "string":
            self.text(variables.strings[name])  # RELION resolves what it is about to replace

    def arguments(self, spec: Spec) -> tuple[Any, Any]:
        """Return the values of Input1 and Input2."""
        node, strings = self.node, self.variables.strings
        first = self.argument(node.input1, spec.input1)
        path = strings.get(node.input2, "")
        if not path or not is_scheme_path(path, self.scheme.name):
            return first, self.argument(node.input2, spec.input2)
        if self.strict:
            # RELION puts the resolved text into Input1, whatever the operator does with Input2.
            misplaced = self.text(path)
            is_text = spec.input2 is not None and spec.input2[0] == "s"
            second = path if is_text else self.argument(node.input2, spec.input2)
            return misplaced if spec.input1 == "string" else first, second
        if spec.input1 == "string":
            self.warnings.append(
                f"the Scheme path {path!r} in Input2 is used there; RELION would use it in the "
                "place of Input1"
            )
        return first, self.argument(node.input2, spec.input2)

    def argument(self, name: str, wanted: Argument | None) -> Any:
        """Return the value of an argument."""
        variables = self.variables
        if wanted is None:
            return None
        if wanted[0] == "s":
            if name in variables.strings:
                return self.text(variables.strings[name])
        elif wanted[0] == "b":
            if name in variables.bools:
                return variables.bools[name]
        elif name in variables.floats:
            return variables.floats[name]
        elif wanted == "number" and (number := literal(name)) is not None:
            return self.literal(name, number)
        return None if wanted[-1] == "?" else self.unknown(name, wanted)

    def literal(self, text: str, number: float) -> float:
        """Return the value of a number written in Input2."""
        if self.strict:
            return 0.0
        if number:
            self.warnings.append(f"the number {text} in Input2 is used; RELION takes it as 0")
        return number

    def unknown(self, name: str, wanted: Argument) -> Value:
        """Return what stands for a variable that is not there; strict makes one."""
        kind = kind_named(wanted)
        value = False if kind == "bool" else 0.0
        if wanted[-1] != "!":
            raise SchemeError(f"there is no {kind} variable {name!r}; add it to the Scheme")
        if self.strict:
            self.sets.append((kind, name, value))
        else:
            self.warnings.append(
                f"there is no {kind} variable {name!r}, it is taken as {value}; RELION would make "
                "one with an arbitrary value"
            )
        return value

    def text(self, value: str) -> str:
        """Return a string with its Scheme path resolved."""
        if not is_scheme_path(value, self.scheme.name):
            return value
        jobs = self.variables.jobs
        found = resolve(value, self.scheme.name, jobs, self.world, strict=self.strict)
        if found.pending and not self.strict:
            self.pending = value
        if found.phantom and self.strict:
            self.phantoms.append(found.phantom)
        elif found.phantom:
            self.warnings.append(
                f"{value!r} names no job of this Scheme; RELION would add the useless row "
                f"{found.phantom!r} to its job table"
            )
        return found.text

    def absent(self, value: Any) -> Any:
        """Return the result for a path to a job that has not run yet: `value`, or as it says."""
        path = self.pending
        bare = resolve(path, self.scheme.name, self.variables.jobs, self.world, strict=True).text
        if value is REFUSED:
            raise SchemeError(f"{path!r} names a job that has not run yet")
        if value is AS_TEXT:
            self.warnings.append(
                f"{path!r} names a job that has not run yet, and stays; RELION would use {bare!r}"
            )
        elif value is NOTHING:
            self.warnings.append(f"nothing is done: {path!r} names a job that has not run yet")
        elif self.world.file_exists(bare) or (value == UNDEFINED and self.world.glob(bare)):
            self.warnings.append(
                f"{path!r} names a job that has not run yet; RELION would find {bare!r}"
            )
        return value


def kind_named(wanted: Argument) -> Kind:
    """Return the kind of variable that an argument names."""
    return {"b": "bool", "s": "string"}.get(wanted[0], "float")  # type: ignore[return-value]
