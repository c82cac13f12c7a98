"""`schemer`: run, change and look at RELION Schemes from the command line."""

import os
import sys
from typing import NoReturn

import typer

from schemer.cli import edit, look, relion_names, run, watch
from schemer.cli.common import EXIT_CODES, USAGE

app = typer.Typer(
    help=f"Run, change and look at RELION Schemes.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (run.run, run.job, look.status, look.show, look.check, watch.watch):
    app.command(epilog=EXIT_CODES)(_command)
edit.register(app)


def main() -> None:
    """Entry point of the `schemer` command; a wrong command line ends with 64, not with 2."""
    words = sys.argv[1:]
    code: object
    try:
        if words and words[0].startswith("--") and words[0] != "--help":
            code = relion_names.main(words)
        else:
            code = app(standalone_mode=False)
    except Exception as error:
        # typer may bring its own copy of click, so its errors are known by what they can do.
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()  # type: ignore[attr-defined]
        code = USAGE
    _leave(code if isinstance(code, int) else 0)


def _leave(code: int) -> NoReturn:
    """End at once: a kill while Python tidies up would make an ended run look unheard of."""
    sys.stdout.flush()
    sys.stderr.flush()
    run.acknowledge()
    os._exit(code)
