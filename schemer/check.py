"""What is wrong with a Scheme, and what is only odd about it.

RELION validates operators while loading, all of them, and nothing else: those are the errors in
strict mode. In safe mode the edges count too, so that a Scheme that loads cannot fail later for
want of a name; what is never reached may be broken, for people keep such left-overs.
Source: schemes.md sections 2, 3 and 19.
"""

from collections import Counter
from collections.abc import Iterator

from schemer import functions
from schemer.errors import SchemeError, at
from schemer.operators import CLOCKED, OPERATORS, Spec, kind_named, literal
from schemer.resolve import is_scheme_path
from schemer.scheme import UNDEFINED, Edge, Kind, Operator, Scheme
from schemer.starlabels import kind_of

_SHOWN = 8  # names in one message
# A shell, through which RELION runs cp, mv and rm, would not take these as parts of a name.
_SHELL_SIGNS = frozenset(" \t$`;&|<>()\"'\\#!")


def errors(scheme: Scheme, *, strict: bool = False) -> list[SchemeError]:
    """Return everything that keeps the Scheme from running, each with place and remedy.

    Parameters
    ----------
    scheme
        As read.
    strict
        Only what RELION refuses at load: operators, those never reached included.
    """
    if strict:
        operators = scheme.operators.items()
        return [e for name, node in operators for e in operator_errors(scheme, name, node, strict)]
    reached = scheme.reachable()
    return [error for node, error in _found(scheme) if node in reached or not node]


def warnings(scheme: Scheme) -> list[str]:
    """Return what works here but is odd, or differs from what RELION would do."""
    reached = scheme.reachable()
    found = [f"{scheme.source}: {note}" for note in scheme.notes]
    broken = [(node, error) for node, error in _found(scheme) if node and node not in reached]
    found += [f"never reached, and broken: {error}" for _, error in broken]
    found += _unreached(scheme, reached | {node for node, _ in broken})
    for name, node in scheme.operators.items():
        if name in reached:
            found += [f"operator {name!r}: {line}" for line in _differences(scheme, node)]
    for node, count in Counter(edge.source for edge in scheme.edges).items():
        if count > 1:
            found.append(f"{count} edges leave {node!r}: the last one is followed")
    names = [*scheme.floats, *scheme.bools, *scheme.strings, *scheme.operators, *scheme.jobs]
    for name, count in Counter(names).items():
        if count > 1:
            found.append(f"the name {name!r} is used {count} times; RELION may mix them up")
    found += _phantoms(scheme)
    found += _traps(scheme, reached)
    if scheme.edges and scheme.home is None:
        found.append(f"the first edge leaves {scheme.start!r}, not a wait: data cannot rest there")
    return found


def operator_errors(
    scheme: Scheme, name: str, node: Operator, strict: bool = False
) -> Iterator[SchemeError]:
    """Yield what is wrong with one operator, which need not be in the Scheme yet."""
    spec = OPERATORS.get(node.type)
    if spec is None or (spec.compute is None and node.type not in CLOCKED and not strict):
        known = ", ".join(sorted({*CLOCKED} | {n for n, one in OPERATORS.items() if one.compute}))
        problem = "is not an operator type" if spec is None else "cannot be executed by RELION"
        remedy = f"use {known}" if spec is None else "use float=star_table_sort_idx, rank 1 or -1"
        yield at(scheme.source, "scheme_operators", name, node.type, problem, remedy)
        return
    for field, wanted in zip(("output", "input1", "input2"), spec[:3], strict=True):
        value = getattr(node, field)
        if not _is_wrong(scheme, value, wanted, strict):
            continue
        kind = kind_named(wanted or "")
        number = ", or a number" if wanted == "number" else ""
        yield at(
            scheme.source,
            "scheme_operators",
            name,
            value,
            f"is not a {kind} variable{number}, as {field} of {node.type} must be",
            f"add it to scheme_{kind}s or name one that is there",
        )


def _is_wrong(scheme: Scheme, value: str, wanted: str | None, strict: bool) -> bool:
    if wanted is None or wanted.endswith("?") or (strict and wanted.endswith("!")):
        return False
    if wanted == "number" and literal(value) is not None:
        return False
    return value not in _variables(scheme, kind_named(wanted))


def _variables(scheme: Scheme, kind: Kind) -> dict[str, object]:
    return {"float": scheme.floats, "bool": scheme.bools, "string": scheme.strings}[kind]  # type: ignore[return-value]


def _found(scheme: Scheme) -> Iterator[tuple[str, SchemeError]]:
    """Yield each error with the node at which it is met; "" for those of the whole Scheme."""
    nodes = {*scheme.operators, *scheme.jobs, UNDEFINED}
    for name, node in scheme.operators.items():
        for error in operator_errors(scheme, name, node):
            yield name, error
    for edge in _followed(scheme).values():
        for error in _edge_errors(scheme, edge, nodes):
            yield edge.source, error
    for error in _whole_errors(scheme, nodes):
        yield "", error


def _followed(scheme: Scheme) -> dict[str, Edge]:
    """Return the edge that is followed from each node: the last one in the file."""
    return {edge.source: edge for edge in scheme.edges}


def _targets(edge: Edge) -> list[str]:
    return [edge.target, edge.if_true] if edge.is_fork else [edge.target]


def _edge_errors(scheme: Scheme, edge: Edge, nodes: set[str]) -> Iterator[SchemeError]:
    row = f"{edge.source} -> {edge.target}"
    for node in (edge.source, *_targets(edge)):
        if node not in nodes:
            yield at(
                scheme.source,
                "scheme_edges",
                row,
                node,
                "is neither an operator nor a job",
                "correct the name or add the node",
            )
    if edge.is_fork and edge.boolean not in scheme.bools:
        yield at(
            scheme.source,
            "scheme_edges",
            row,
            edge.boolean,
            "is not a boolean variable, so the fork cannot be decided",
            "add it to scheme_bools",
        )


def _whole_errors(scheme: Scheme, nodes: set[str]) -> Iterator[SchemeError]:
    source = scheme.source
    if not scheme.edges:
        yield at(source, "scheme_edges", "-", "", "is empty: nothing would run", "add an edge")
    elif scheme.start == UNDEFINED:
        first = scheme.edges[0]
        row = f"{first.source} -> {first.target}"
        yield at(source, "scheme_edges", row, first.source, "begins nowhere", "name the first node")
    if scheme.current_node not in nodes:
        yield at(
            source,
            "scheme_general",
            "rlnSchemeCurrentNodeName",
            scheme.current_node,
            "is neither an operator nor a job",
            f"set it to {scheme.start!r}, the start",
        )
    for name in sorted({*scheme.operators} & {*scheme.jobs}):
        yield at(source, "scheme_jobs", name, name, "is also an operator", "rename one of them")


# Oddities


def _unreached(scheme: Scheme, reached: set[str]) -> Iterator[str]:
    for word, nodes in (("operator", scheme.operators), ("job", scheme.jobs)):
        for name in nodes:
            if name not in reached:
                yield f"{word} {name!r} is never reached"


def _phantoms(scheme: Scheme) -> Iterator[str]:
    for name, variable in scheme.strings.items():
        for value in dict.fromkeys((variable.value, variable.reset)):
            _, own, rest = value.partition(scheme.name)
            job = rest.rpartition("/")[0]
            if own and job and job not in scheme.jobs:
                yield (
                    f"string {name!r} names the job {job!r}, which this Scheme does not have; "
                    "RELION would add a useless row to its job table"
                )


def _traps(scheme: Scheme, reached: set[str]) -> Iterator[str]:
    """Yield the nodes from which no path leads to a job, a wait or an end."""
    edges = _followed(scheme)
    before: dict[str, list[str]] = {}
    ahead: list[str] = []
    for node in reached:
        operator = scheme.operators.get(node)
        edge = edges.get(node)
        if operator is None or operator.type in CLOCKED or edge is None:
            ahead.append(node)
            continue
        for target in _targets(edge):
            before.setdefault(target, []).append(node)
    free: set[str] = set()
    ahead.append(UNDEFINED)
    while ahead:
        node = ahead.pop()
        if node not in free:
            free.add(node)
            ahead += before.get(node, [])
    trapped = sorted(reached - free)
    if trapped:
        more = f" and {len(trapped) - _SHOWN} more" if len(trapped) > _SHOWN else ""
        yield (
            f"from {', '.join(map(repr, trapped[:_SHOWN]))}{more} the Scheme goes round for ever "
            "without a job, a wait or an exit; add an edge that leads out"
        )


def _differences(scheme: Scheme, node: Operator) -> Iterator[str]:
    """Yield what RELION would do differently at an operator, as far as the file tells."""
    spec = OPERATORS.get(node.type)
    if spec is None:
        return
    first, second = (_text(scheme, name) for name in (node.input1, node.input2))
    if spec.input2 == "number":
        yield from _number_differences(scheme, node)
    if is_scheme_path(second, scheme.name) and spec.input2 == "string":
        yield (
            f"the Scheme path {second!r} in Input2 is used there; RELION would use it in the "
            "place of Input1"
        )
    if node.type in ("copy_file", "move_file", "delete_file"):
        for value in (first, second) if spec.input2 else (first,):
            if _SHELL_SIGNS & set(value):
                yield f"{value!r} is one name here; RELION would pass it through a shell"
    if node.type == "email" and "email" not in scheme.strings:
        yield "no message is sent without the string variable email"
    if node.type == "float=count_images" and UNDEFINED != node.input2 not in scheme.strings:
        yield f"{node.input2!r} is not a string variable, so the table particles is counted"
    if node.type.endswith("=read_star"):
        yield from _label_difference(node, spec, first)


def _number_differences(scheme: Scheme, node: Operator) -> Iterator[str]:
    number = literal(node.input2)
    if node.input2 not in scheme.floats and number is not None:
        yield (
            f"the number {node.input2} in Input2 is used; RELION takes it as 0, so use a float "
            "variable"
        )
    elif node.input2 in scheme.floats:
        number = scheme.floats[node.input2].value
    if node.type == "string=nth_word" and number is not None and number < 0:
        yield f"word {number:g} counts from the end; RELION would give `undefined`"


def _label_difference(node: Operator, spec: Spec, text: str) -> Iterator[str]:
    words = functions.words(text)
    label = words[2] if len(words) > 2 else ""
    # A label that is not in our list may be a text of a later version.
    if (
        label
        and kind_of(label) != spec.output
        and (kind_of(label), spec.output) != ("float", "string")
    ):
        yield (
            f"{label} is a {kind_of(label)} label, which RELION would not write to the "
            f"{spec.output} variable {node.output!r}; use {kind_of(label)}=read_star"
        )


def _text(scheme: Scheme, name: str) -> str:
    return scheme.strings[name].value if name in scheme.strings else ""
