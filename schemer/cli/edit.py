"""Commands that change a Scheme: `reset`, `abort`, `set`, `set-...`, `add`, `copy`, `relion-it`.

All but `set` and `abort` need a Scheme that nobody runs. Source: schemes.md sections 8, 13 and 17.
"""

from pathlib import Path
from typing import Annotated

import typer
from msgspec import structs

from algorithms.formats.atomic import atomic_write
from schemer import edit, relionit, starfile, store
from schemer.cli import add, relion_it
from schemer.cli.change import ResetOption, change, note, say, say_variable, told
from schemer.cli.common import (
    EXIT_CODES,
    HERE,
    JsonOption,
    ProjectOption,
    SchemeOption,
    print_json,
    scheme_folder,
)
from schemer.errors import SchemeError
from schemer.jobs import JobFile


def reset(scheme: SchemeOption, project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """Put variables to their reset values, forget which jobs ran, begin at the first edge."""
    after = change(scheme_folder(project, scheme), edit.reset)
    say(as_json, f"{after.name} is reset; the next run begins at {after.current_node}", after)


def abort(scheme: SchemeOption, project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """Ask the Scheme, and the job it is at, to stop."""
    folder = scheme_folder(project, scheme)
    with told():
        node = store.request_abort(project, folder)
    is_run = store.running(folder) is not None
    relion = (project / f".relion_lock_scheme_{folder.name}").exists()
    note = "" if is_run or relion else "; nobody seems to run it"
    text = f"asked Schemes/{folder.name}/ to stop at {node}{note}"
    if as_json:
        print_json({"scheme": f"Schemes/{folder.name}/", "node": node, "running": is_run or relion})
    else:
        print(text)


def set_value(
    variable: Annotated[str, typer.Argument(help="Name of a variable.")],
    value: Annotated[str, typer.Argument(help="Number, True or False, or text.")],
    scheme: SchemeOption,
    project: ProjectOption = HERE,
    reset_value: ResetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a variable; a Scheme that runs takes it over at its next step."""
    folder = scheme_folder(project, scheme)
    after = change(
        folder, lambda one: edit.set_variable(one, variable, value, reset_value), while_running=True
    )
    if reset_value == value:
        _record(project, f"{folder.name}__{variable}", value)
    say_variable(as_json, after, variable)


def set_job_option(
    job: Annotated[str, typer.Argument(help="Name of a job node.")],
    option: Annotated[str, typer.Argument(help="Name of the option, as in job.star.")],
    value: Annotated[str, typer.Argument(help="Its value; True and False become Yes and No.")],
    scheme: SchemeOption,
    project: ProjectOption = HERE,
    keep_job: Annotated[
        bool,
        typer.Option("--keep-job", help="Go on in the job's folder, with what is not yet done."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Set an option of a job; it is then done anew in a new folder, from the next visit on."""
    folder = scheme_folder(project, scheme)
    path = folder / job / "job.star"
    with told():
        edit.set_has_started(starfile.read(folder), job, False)  # is there such a job?
        changed = edit.set_job_option(JobFile.load(path), option, value, str(path))
        if not keep_job:
            if store.running(folder) is not None:
                raise SchemeError(f"{store.busy(folder)}, or give --keep-job")
            store.edit(folder, lambda one: edit.set_has_started(one, job, False))
        atomic_write(path, changed.dumps())
    _record(project, f"{folder.name}__{job}__{option}", value)
    text = changed.options[option]
    if as_json:
        print_json({"job": job, "option": option, "value": text, "begins_anew": not keep_job})
    else:
        print(f"{option} of {job} is {text!r}{'' if keep_job else f'; {job} begins anew'}")


def set_current_node(
    node: Annotated[str, typer.Argument(help="Name of a job or operator.")],
    scheme: SchemeOption,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Let the next run begin at a node."""
    after = change(scheme_folder(project, scheme), lambda one: edit.set_current_node(one, node))
    say(as_json, f"{after.name} is at {after.current_node}", after)


def set_job_mode(
    job: Annotated[str, typer.Argument(help="Name of a job node.")],
    mode: Annotated[str, typer.Argument(help="new: a folder for each visit; or continue.")],
    scheme: SchemeOption,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Set whether a job makes a new folder at each visit."""
    after = change(scheme_folder(project, scheme), lambda one: edit.set_job_mode(one, job, mode))
    say(as_json, f"the mode of {job} is {mode}", after)


def set_has_started(
    job: Annotated[str, typer.Argument(help="Name of a job node.")],
    value: Annotated[str, typer.Argument(help="True or False.")],
    scheme: SchemeOption,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Set whether a job has run; if not, it begins anew in a new folder."""
    folder = scheme_folder(project, scheme)
    after = change(
        folder,
        lambda one: edit.set_has_started(one, job, edit.truth(f"has_started of {job}", value)),
    )
    say(as_json, f"{job} {'has' if after.jobs[job].has_started else 'has not'} started", after)


def copy(
    new: Annotated[str, typer.Argument(help="Name of the copy, as prep2.")],
    scheme: SchemeOption,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Copy a Scheme, its path in variables and job options changed to the new name."""
    folder = scheme_folder(project, scheme)
    name = new.rstrip("/").removeprefix("Schemes/")
    target = project / "Schemes" / name
    with told():
        before = starfile.read(folder)
        after = edit.copy(before, name)
        if (target / "scheme.star").exists():
            raise SchemeError(f"{target} is there already; give another name")
        jobs = {job: JobFile.load(folder / job / "job.star") for job in before.jobs}
        for job, content in jobs.items():
            moved = edit.copy_job(content, before.name, after.name)
            atomic_write(target / job / "job.star", moved.dumps())
        blocks = tuple(block for block in after.unknown if block.name not in store.BLOCKS)
        text = starfile.dump(structs.replace(after, unknown=blocks))
        atomic_write(target / "scheme.star", text)
    shared = sorted(name for name, row in after.jobs.items() if row.has_started)
    if shared:
        note(f"{', '.join(shared)} would go on in the original's folders; reset the copy first")
    say(as_json, f"{before.name} is copied to {after.name}", after)


def _record(project: Path, key: str, value: str) -> None:
    """Note a setting for relion_it; the change itself is done, so this cannot fail it."""
    try:
        relionit.record(project, {key: value})
    except (SchemeError, OSError) as error:
        note(f"not noted for relion_it: {error}")


def register(app: typer.Typer) -> None:
    """Give the application these commands."""
    free = {"ignore_unknown_options": True}  # so that a value may begin with a minus
    for name, command in (
        ("reset", reset),
        ("abort", abort),
        ("set", set_value),
        ("set-job-option", set_job_option),
        ("set-current-node", set_current_node),
        ("set-job-mode", set_job_mode),
        ("set-has-started", set_has_started),
        ("copy", copy),
        ("relion-it", relion_it.relion_it),
    ):
        settings = free if name in ("set", "set-job-option") else {}
        app.command(name, epilog=EXIT_CODES, context_settings=settings)(command)
    app.add_typer(add.app, name="add")
