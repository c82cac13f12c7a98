"""What is wrong with a Scheme, and what is only odd about it.

RELION validates operators while loading; the rules here are the same, plus a check of the edges,
so that a Scheme that loads cannot fail later for want of a name. An operator that the Scheme never
reaches may be broken: RELION users keep such left-overs. Source: schemes.md sections 2, 3 and 19.
"""

from collections import Counter
from collections.abc import Iterator

from schemer.errors import SchemeError, at
from schemer.operators import CLOCKED, OPERATORS, literal
from schemer.scheme import UNDEFINED, Edge, Operator, Scheme


def errors(scheme: Scheme) -> list[SchemeError]:
    """Return everything that keeps the Scheme from running, each with place and remedy."""
    reachable = scheme.reachable()
    return [
        *(
            error
            for name, node in scheme.operators.items()
            for error in _operator_errors(scheme, name, node)
            if name in reachable
        ),
        *(error for edge in scheme.edges for error in _edge_errors(scheme, edge)),
        *_node_errors(scheme),
    ]


def warnings(scheme: Scheme) -> list[str]:
    """Return what works here but is odd, or differs from what RELION would do."""
    reachable = scheme.reachable()
    found = []
    for name, node in scheme.operators.items():
        if name not in reachable:
            broken = list(_operator_errors(scheme, name, node))
            found += [f"operator {name!r} is never reached"] if not broken else []
            found += [f"never reached, and broken: {error}" for error in broken]
            continue
        spec = OPERATORS.get(node.type)
        if spec and spec.input2 == "number" and node.input2 not in scheme.floats:
            found.append(
                f"operator {name!r}: the number {node.input2} in Input2 is used; RELION takes it "
                "as 0, so use a float variable"
            )
        if spec and spec.compute is None and node.type not in CLOCKED:
            found.append(f"operator {name!r}: type {node.type!r} is not executed by this version")
    for node, count in Counter(edge.source for edge in scheme.edges).items():
        if count > 1:
            found.append(f"{count} edges leave {node!r}: the last one is followed")
    names = [*scheme.floats, *scheme.bools, *scheme.strings, *scheme.operators, *scheme.jobs]
    for name, count in Counter(names).items():
        if count > 1:
            found.append(f"the name {name!r} is used {count} times; RELION may mix them up")
    found += _phantoms(scheme)
    if scheme.edges and scheme.home is None:
        found.append(f"the first edge leaves {scheme.start!r}, not a wait: data cannot rest there")
    return found


def _phantoms(scheme: Scheme) -> Iterator[str]:
    for name, variable in scheme.strings.items():
        _, own, rest = variable.value.partition(scheme.name)
        job = rest.rpartition("/")[0]
        if own and job and job not in scheme.jobs:
            yield f"string {name!r} names the job {job!r}, which this Scheme does not have"


def _operator_errors(scheme: Scheme, name: str, node: Operator) -> Iterator[SchemeError]:
    block = "scheme_operators"
    spec = OPERATORS.get(node.type)
    if spec is None:
        known = ", ".join(sorted(OPERATORS))
        yield at(scheme.source, block, name, node.type, "is not an operator type", f"use {known}")
        return
    wanted = (("output", spec.output), ("input1", spec.input1), ("input2", spec.input2))
    variables = {"float": scheme.floats, "bool": scheme.bools, "string": scheme.strings}
    for field, argument in wanted:
        value = getattr(node, field)
        if argument is None or argument.endswith("?"):
            continue
        kind = "float" if argument == "number" else argument
        if value in variables[kind] or (argument == "number" and literal(value) is not None):
            continue
        yield at(
            scheme.source,
            block,
            name,
            value,
            f"is not a {kind} variable, as {field} of {node.type} must be",
            f"add it to scheme_{kind}s or name one that is there",
        )


def _edge_errors(scheme: Scheme, edge: Edge) -> Iterator[SchemeError]:
    nodes = {*scheme.operators, *scheme.jobs}
    targets = [edge.target, edge.if_true] if edge.is_fork else [edge.target]
    for node in [edge.source, *targets]:
        if node not in nodes and not (node == UNDEFINED and node != edge.source):
            yield at(
                scheme.source,
                "scheme_edges",
                f"{edge.source} -> {edge.target}",
                node,
                "is neither an operator nor a job",
                "correct the name or add the node",
            )
    if edge.is_fork and edge.boolean not in scheme.bools:
        yield at(
            scheme.source,
            "scheme_edges",
            f"{edge.source} -> {edge.target}",
            edge.boolean,
            "is not a boolean variable, so the fork cannot be decided",
            "add it to scheme_bools",
        )


def _node_errors(scheme: Scheme) -> Iterator[SchemeError]:
    if not scheme.edges:
        yield at(
            scheme.source, "scheme_edges", "-", "", "is empty: nothing would run", "add an edge"
        )
    if scheme.current_node not in {*scheme.operators, *scheme.jobs, UNDEFINED}:
        yield at(
            scheme.source,
            "scheme_general",
            "rlnSchemeCurrentNodeName",
            scheme.current_node,
            "is neither an operator nor a job",
            f"set it to {scheme.start!r}, the start",
        )
    for name in {*scheme.operators} & {*scheme.jobs}:
        yield at(
            scheme.source, "scheme_jobs", name, name, "is also an operator", "rename one of them"
        )
