"""Commands that look at a Scheme: `show` and `check`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemer import check as rules
from schemer import starfile
from schemer.cli.common import FAILED, USAGE, JsonOption, fail, print_json
from schemer.errors import SchemeError
from schemer.scheme import UNDEFINED, Scheme


def show(
    path: Annotated[Path | None, typer.Argument(help="A Scheme's folder or scheme.star.")] = None,
    project: Annotated[Path | None, typer.Option(help="Project folder.")] = None,
    scheme: Annotated[str | None, typer.Option(help="Scheme in that project, as prep.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print a Scheme's graph, its current node and its variables."""
    if (path is None) == (project is None) or (project is None) != (scheme is None):
        fail(USAGE, "give either a PATH, or --project and --scheme")
    place = path if project is None else project / "Schemes" / str(scheme)
    found = _read(Path(str(place)))
    if as_json:
        print_json(_as_dict(found))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{found.name} at {found.current_node}", markup=False)
    console.print(_graph(found))
    console.print(_variables(found))


def check(
    folder: Annotated[Path, typer.Argument(help="A Scheme's folder or scheme.star.")],
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with a Scheme, and what is only odd about it."""
    found = _read(folder)
    errors = [str(error) for error in rules.errors(found)]
    warnings = rules.warnings(found)
    if as_json:
        print_json({"scheme": found.name, "errors": errors, "warnings": warnings})
    else:
        for kind, lines in (("error", errors), ("warning", warnings)):
            for line in lines:
                print(f"{kind}: {line}")
        nodes = len(found.operators) + len(found.jobs)
        print(f"{found.name} {nodes} nodes, {len(errors)} errors, {len(warnings)} warnings")
    raise typer.Exit(FAILED if errors else 0)


def _read(path: Path) -> Scheme:
    if not (path / "scheme.star").is_file() and not path.is_file():
        fail(USAGE, f"{path}: there is no Scheme here; give a folder with a scheme.star")
    try:
        return starfile.read(path)
    except SchemeError as error:
        fail(FAILED, str(error))


def _order(scheme: Scheme) -> list[str]:
    """Return the nodes as one meets them from the start; unreached ones at the end."""
    order: list[str] = []
    ahead = [scheme.start]
    while ahead:
        node = ahead.pop(0)
        if node in order or node == UNDEFINED:
            continue
        order.append(node)
        ahead = [*_targets(scheme, node).values(), *ahead]
    rest = [n for n in sorted({*scheme.operators, *scheme.jobs}) if n not in order]
    return order + rest


def _targets(scheme: Scheme, node: str) -> dict[str, str]:
    """Return condition -> next node."""
    edges = [edge for edge in scheme.edges if edge.source == node]
    if not edges:
        return {}
    edge = edges[-1]
    if edge.is_fork:
        return {f"{edge.boolean}": edge.if_true, f"not {edge.boolean}": edge.target}
    return {"": edge.target}


def _kind(scheme: Scheme, node: str) -> str:
    if node in scheme.jobs:
        row = scheme.jobs[node]
        return f"job, {row.mode}" + (f", {row.current_name}" if row.has_started else "")
    operator = scheme.operators.get(node)
    if operator is None:
        return "?"
    inputs = [name for name in (operator.input1, operator.input2) if name != UNDEFINED]
    output = "" if operator.output == UNDEFINED else f" -> {operator.output}"
    return f"{operator.type} {', '.join(inputs)}{output}"


def _graph(scheme: Scheme) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in (" ", "node", "what", "next"):
        table.add_column(name, overflow="fold")
    for node in _order(scheme):
        mark = "*" if node == scheme.current_node else ""
        lines = (
            f"{target} if {condition}" if condition else target
            for condition, target in _targets(scheme, node).items()
        )
        table.add_row(mark, *map(escape, (node, _kind(scheme, node), "\n".join(lines) or "-")))
    return table


def _variables(scheme: Scheme) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("variable", "value", "reset value"):
        table.add_column(name, overflow="fold")
    for field in ("floats", "bools", "strings"):
        for name, variable in sorted(getattr(scheme, field).items()):
            table.add_row(*map(escape, (name, _text(variable.value), _text(variable.reset))))
    return table


def _text(value: float | bool | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _as_dict(scheme: Scheme) -> dict[str, Any]:
    return {
        "scheme": scheme.name,
        "current_node": scheme.current_node,
        "nodes": {
            node: {"what": _kind(scheme, node), "next": _targets(scheme, node)}
            for node in _order(scheme)
        },
        "variables": {
            name: {"value": variable.value, "reset": variable.reset}
            for field in ("floats", "bools", "strings")
            for name, variable in sorted(getattr(scheme, field).items())
        },
    }
