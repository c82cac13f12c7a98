"""What the commands share: options, exit codes, messages, and where a Scheme is.

Exit codes of all `schemer` commands: 0 done, 1 failed, 2 aborted, 3 stopped by exit_maxtime,
64 wrong command line or no Scheme there. RELION and the `command` executor use 2 for aborted too.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

FAILED, ABORTED, TIMEOUT, USAGE = 1, 2, 3, 64
EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 aborted, 3 stopped by exit_maxtime, "
    "64 wrong command line or no Scheme."
)

ProjectOption = Annotated[
    Path, typer.Option("--project", "-p", help="RELION project folder.", show_default="here")
]
SchemeOption = Annotated[
    str, typer.Option("--scheme", "-s", help="Name of the folder in Schemes/, as prep.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
HERE = Path(".")


def fail(code: int, message: str) -> NoReturn:
    """Say what is wrong on standard error and end with an exit code."""
    print(f"schemer: {message}", file=sys.stderr)
    raise typer.Exit(code)


def scheme_folder(project: Path, scheme: str) -> Path:
    """Return the folder of a Scheme in a project; ends the command where there is none."""
    name = scheme.rstrip("/").removeprefix("Schemes/")
    folder = project / "Schemes" / name
    if not (folder / "scheme.star").is_file():
        known = sorted(path.parent.name for path in project.glob("Schemes/*/scheme.star"))
        there = f"there are {', '.join(known)}" if known else "the project has none"
        fail(USAGE, f"{folder}: there is no Scheme {name!r}; {there}")
    return folder


def print_json(content: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(content, indent=2))
