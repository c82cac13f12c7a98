"""`schemer watch`: look at a Scheme in the terminal or in a window, and act on it."""

import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from schemer import overview
from schemer.cli.common import FAILED, HERE, ProjectOption, SchemeOption, fail, scheme_folder
from schemer.errors import SchemeError
from schemer.monitor import words
from schemer.monitor.actions import Actions


def watch(
    scheme: SchemeOption,
    project: ProjectOption = HERE,
    gui: Annotated[bool, typer.Option("--gui", help="In a window (needs PyQt5).")] = False,
    once: Annotated[bool, typer.Option("--once", help="Print one overview and end.")] = False,
    executor: Annotated[
        str, typer.Option("--executor", "-e", help="For a restart; see `schemer run`.")
    ] = "native",
    strict: Annotated[bool, typer.Option("--strict", help="For a restart.")] = False,
    refresh: Annotated[float, typer.Option(help="Seconds between looks.", min=0.1)] = 1.0,
) -> None:
    """Watch a Scheme and act on it: abort, reset, restart, set variables and job options."""
    name = scheme_folder(project, scheme).name
    actions = Actions(project, name, ("--executor", executor, *(["--strict"] if strict else [])))
    if gui:
        if find_spec("PyQt5") is None:
            fail(
                FAILED,
                "--gui needs PyQt5, which is not installed: pip install 'coldstream[gui]'; "
                "without --gui the monitor runs in this terminal",
            )
        from schemer.monitor import window

        try:
            raise typer.Exit(window.watch(project, name, actions, refresh))
        except SchemeError as error:
            fail(FAILED, str(error))
    if once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("\n".join(words.page(overview.look(project, name))))
        return
    from schemer.monitor import terminal

    try:
        terminal.watch(project, name, actions, refresh)
    except KeyboardInterrupt:
        return
