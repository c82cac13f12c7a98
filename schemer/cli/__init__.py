"""`schemer`: run, change and look at RELION Schemes from the command line."""

import sys

import typer

from schemer.cli import look
from schemer.cli.common import EXIT_CODES, USAGE

app = typer.Typer(
    help=f"Run, change and look at RELION Schemes.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (look.show, look.check):
    app.command(epilog=EXIT_CODES)(_command)


def main() -> None:
    """Entry point of the `schemer` command; a wrong command line ends with 64, not with 2."""
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        # typer may bring its own copy of click, so its errors are known by what they can do.
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()  # type: ignore[attr-defined]
        sys.exit(USAGE)
    sys.exit(code if isinstance(code, int) else 0)
