"""Commands that look at Schemes: `show`, `status` and `check`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemer import check as rules
from schemer import graph, overview, picture, runlog, starfile
from schemer.cli.common import (
    FAILED,
    HERE,
    USAGE,
    JsonOption,
    ProjectOption,
    fail,
    print_json,
    scheme_folder,
)
from schemer.errors import SchemeError
from schemer.monitor import words
from schemer.scheme import Scheme

NameOption = Annotated[
    str | None, typer.Option("--scheme", "-s", help="Name of the folder in Schemes/, as prep.")
]


def show(
    path: Annotated[Path | None, typer.Argument(help="A Scheme's folder or scheme.star.")] = None,
    project: ProjectOption = HERE,
    scheme: NameOption = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the graph into this file.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the graph into this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print or draw a Scheme's graph, its current node and its variables."""
    if (path is None) == (scheme is None):
        fail(USAGE, "give either a PATH, or --scheme NAME and its --project")
    found = _read(path if path is not None else scheme_folder(project, str(scheme)))
    try:
        if svg is not None:
            picture.save(found, svg, "svg")
        if png is not None:
            picture.save(found, png, "png")
    except SchemeError as error:
        fail(FAILED, str(error))
    if as_json:
        print_json(_as_dict(found))
    elif svg is None and png is None:
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"{found.name} at {found.current_node}", markup=False)
        console.print(_graph(found))
        console.print(_variables(found))


def status(
    project: ProjectOption = HERE,
    scheme: NameOption = None,
    story: Annotated[bool, typer.Option("--story", help="Print all that has happened.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what the Schemes of a project are doing, or one of them."""
    if scheme is None:
        names = overview.names(project)
        if not names:
            fail(USAGE, f"{project}: there is no Scheme in {project / 'Schemes'}")
    else:
        names = [scheme_folder(project, scheme).name]
    seen = [overview.look(project, name) for name in names]
    stories = {
        one.name: runlog.story(runlog.read(one.folder)) if story else list(one.story)
        for one in seen
    }
    if as_json:
        told = [overview.as_dict(one) | {"story": stories[one.name]} for one in seen]
        print_json(told if scheme is None else told[0])
        return
    for number, one in enumerate(seen):
        lines = [f"{one.name}:", *stories[one.name]] if story else words.page(one)
        print("\n".join(([""] if number else []) + lines))


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


def _graph(scheme: Scheme) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in (" ", "node", "what", "next"):
        table.add_column(name, overflow="fold")
    ways = graph.exits(scheme)
    for node in _nodes(scheme):
        mark = "*" if node == scheme.current_node else ""
        lines = (
            f"{one.target} if {one.condition}" if one.boolean else one.target
            for one in ways.get(node, ())
        )
        what = graph.what(scheme, node)
        table.add_row(mark, *map(_cell, (node, what, "\n".join(lines) or "-")))
    return table


def _nodes(scheme: Scheme) -> list[str]:
    reached, rest = graph.order(scheme)
    return reached + rest


def _variables(scheme: Scheme) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("variable", "value", "reset value"):
        table.add_column(name, overflow="fold")
    for _, *cells in words.variables(scheme):
        table.add_row(*map(_cell, cells))
    return table


def _cell(text: str) -> str:
    return escape(overview.plain(text))


def _as_dict(scheme: Scheme) -> dict[str, Any]:
    ways = graph.exits(scheme)
    return {
        "scheme": scheme.name,
        "current_node": scheme.current_node,
        "nodes": {
            node: {
                "what": graph.what(scheme, node),
                "next": {one.condition: one.target for one in ways.get(node, ())},
            }
            for node in _nodes(scheme)
        },
        "variables": {
            name: {"value": variable.value, "reset": variable.reset}
            for field in ("floats", "bools", "strings")
            for name, variable in sorted(getattr(scheme, field).items())
        },
    }
