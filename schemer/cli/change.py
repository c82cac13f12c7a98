"""What the commands that change a Scheme share: the change itself, its errors, what is printed."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from algorithms.formats.atomic import atomic_write
from schemer import edit, starfile, store
from schemer.cli.common import FAILED, USAGE, fail, print_json, scheme_folder
from schemer.errors import ProjectError, SchemeError
from schemer.scheme import Scheme

ResetOption = Annotated[
    str | None, typer.Option("--reset-value", "--original_value", help="What a reset restores.")
]


@contextmanager
def told() -> Iterator[None]:
    """Turn an error into a message and the exit code."""
    try:
        yield
    except (SchemeError, ProjectError, OSError) as error:
        fail(FAILED, str(error))


def change(
    folder: Path, function: Callable[[Scheme], Scheme], *, while_running: bool = False
) -> Scheme:
    """Change the Scheme of a folder and return it; ends the command if that is not possible."""
    with told():
        return store.edit(folder, function, while_running=while_running)


def made(project: Path, scheme: str) -> Path:
    """Return the folder of a Scheme; makes an empty one, as RELION does, if it is not there."""
    name = scheme.rstrip("/").removeprefix("Schemes/")
    folder = project / "Schemes" / name
    if (folder / "scheme.star").exists():
        return folder
    if not project.is_dir():
        fail(USAGE, f"{project}: there is no such project folder")
    with told():
        atomic_write(folder / "scheme.star", starfile.dump(edit.empty(name)))
    return scheme_folder(project, name)


def say(as_json: bool, text: str, scheme: Scheme, **more: Any) -> None:
    """Print what was done, for a person or for a program."""
    if as_json:
        print_json({"scheme": scheme.name, "current_node": scheme.current_node, **more})
    else:
        print(text)


def say_variable(as_json: bool, scheme: Scheme, name: str) -> None:
    """Print the values of a variable."""
    field = edit.field_of(scheme, name)
    if field is None:
        return
    one = getattr(scheme, field)[name]
    more = {"variable": name, "value": one.value, "reset": one.reset}
    say(as_json, f"{name} is {one.value!r}, after a reset {one.reset!r}", scheme, **more)


def note(text: str) -> None:
    """Say something that is worth knowing and no error."""
    print(f"note: {text}", file=sys.stderr)
