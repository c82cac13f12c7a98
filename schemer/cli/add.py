"""`schemer add`: put variables, operators, jobs and edges into a Scheme. Source: section 8."""

from pathlib import Path
from typing import Annotated

import typer

from algorithms.formats.atomic import atomic_write
from schemer import edit, starfile
from schemer.cli.change import ResetOption, change, made, say, say_variable, told
from schemer.cli.common import EXIT_CODES, HERE, JsonOption, ProjectOption, SchemeOption
from schemer.jobs import JobFile
from schemer.scheme import UNDEFINED

app = typer.Typer(
    help="Add a variable, node or edge; the Scheme is made if it is not there.",
    no_args_is_help=True,
)
_SETTINGS = {"ignore_unknown_options": True}  # so that a value may begin with a minus


@app.command(epilog=EXIT_CODES, context_settings=_SETTINGS)
def variable(
    name: Annotated[str, typer.Argument(help="Name of the variable.")],
    value: Annotated[str, typer.Argument(help="A number, True or False, or text: its type.")],
    scheme: SchemeOption,
    project: ProjectOption = HERE,
    reset_value: ResetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a variable, or set one that is there."""
    folder = made(project, scheme)
    after = change(folder, lambda one: edit.add_variable(one, name, value, reset_value))
    say_variable(as_json, after, name)


@app.command(epilog=EXIT_CODES)
def operator(
    name: Annotated[str, typer.Argument(help="Name of the node.")],
    type: Annotated[str, typer.Argument(help="Type, as bool=gt.")],
    scheme: SchemeOption,
    input1: Annotated[str, typer.Option("--input1", "-i", help="Variable.")] = UNDEFINED,
    input2: Annotated[str, typer.Option("--input2", help="Variable or number.")] = UNDEFINED,
    output: Annotated[str, typer.Option("--output", "-o", help="Variable.")] = UNDEFINED,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Add an operator node."""
    after = change(
        made(project, scheme),
        lambda one: edit.add_operator(one, name, type, input1, input2, output),
    )
    say(as_json, f"{after.name} has the operator {name}", after)


@app.command(epilog=EXIT_CODES)
def job(
    source: Annotated[Path, typer.Argument(help="Folder with a job.star.")],
    scheme: SchemeOption,
    mode: Annotated[str, typer.Option("--mode", "-m", help="new or continue.")] = "continue",
    name: Annotated[str, typer.Option(help="Name of the node; else that of the folder.")] = "",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Add a job node; its job.star is copied into the Scheme."""
    folder = made(project, scheme)
    node = name or (project / source).resolve().name
    with told():
        content = JobFile.load(project / source / "job.star")
        edit.add_job(starfile.read(folder), node, mode)  # is it possible?
        atomic_write(folder / node / "job.star", content.dumps())
    after = change(folder, lambda one: edit.add_job(one, node, mode))
    say(as_json, f"{after.name} has the job {node} ({content.label})", after)


@app.command(epilog=EXIT_CODES)
def edge(
    source: Annotated[str, typer.Argument(help="Node that it leaves.")],
    target: Annotated[str, typer.Argument(help="Node that it leads to.")],
    scheme: SchemeOption,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Add an edge from a node to the next."""
    after = change(made(project, scheme), lambda one: edit.add_edge(one, source, target))
    say(as_json, f"{after.name}: {source} -> {target}", after)


@app.command(epilog=EXIT_CODES)
def fork(
    source: Annotated[str, typer.Argument(help="Node that it leaves.")],
    boolean: Annotated[str, typer.Argument(help="Boolean variable that decides.")],
    if_true: Annotated[str, typer.Argument(help="Next node if it is true.")],
    if_false: Annotated[str, typer.Argument(help="Next node if it is false.")],
    scheme: SchemeOption,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Add a fork."""
    after = change(
        made(project, scheme), lambda one: edit.add_fork(one, source, boolean, if_true, if_false)
    )
    say(as_json, f"{after.name}: {source} -> {if_true} if {boolean}, else {if_false}", after)
