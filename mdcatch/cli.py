"""`mdcatch parse FILE`: what a metadata or movie file says, with units and sources."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mdcatch import gain_command, override_command, sessions_command
from mdcatch.launcher.cli import launcher
from mdcatch.parsers.child import ParserChild
from mdcatch.parsers.fields import FIELDS
from mdcatch.parsers.record import Record
from services.kit.errors import Refused, Transient

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Microscope metadata for coldstream."
)

_APART = {"format", "kind", "sections", "notes", "flags", "unknown", "sources"}
_LONGEST = 200  # characters of a nested value that are shown; --json has them all
_ERROR = 1


@app.callback()
def _mdcatch() -> None:
    """Microscope metadata for coldstream."""


@app.command()
def parse(
    file: Annotated[
        Path,
        typer.Argument(
            help="EPU image, fraction table, session, grid square or atlas; SerialEM or Tomo 5 "
            "mdoc; header of MRC, TIFF, EER or DM4."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what FILE says. Exit codes: 0 read, 1 refused (one line tells why), 2 wrong usage.

    Each value comes with its unit and its source: xml, mdoc or header as the file states it, name
    from the path, computed from other values, frames x rate for an estimate.
    """
    try:
        record = _read(file)
    except Refused as error:
        told = error.detail.removeprefix(f"{os.path.abspath(file)}: ")
        _complain(f"{file.name}: {error.code}: {told}")
    except OSError as error:
        _complain(f"{file}: {error.strerror}")
    except Transient as error:
        _complain(str(error))
    else:
        if as_json:
            answer = {"file": file.name, **record.as_json()}
            typer.echo(msgspec.json.format(msgspec.json.encode(answer)).decode())
        else:
            _show(file.name, record)


sessions_command.register(app)
gain_command.register(app)
override_command.register(app)
app.command("launcher")(launcher)


def main() -> None:
    """Entry point of the command."""
    app()


def _complain(line: str) -> None:
    typer.echo(_plain(line), err=True)
    raise typer.Exit(_ERROR)


def _read(file: Path) -> Record:
    """Parse a file as the daemon does: in the parser child, known by the path that was given."""
    place = file.resolve(strict=True)
    with ParserChild([place.parent]) as child:
        return child.parse(place, os.path.abspath(file))


def _show(name: str, record: Record) -> None:
    title = Text(_plain(f"{name}: {record.format}, {record.kind}"))
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for heading in ("field", "value", "unit", "source"):
        table.add_column(heading, overflow="fold")
    for row in _rows(record):
        table.add_row(*(Text(_plain(cell)) for cell in row))
    console = Console(highlight=False)
    console.print(table)
    for note in record.notes:
        console.print(Text(_plain(note)))


def _rows(record: Record) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows: what this kind of file can say, then its keys that have no field here."""
    for key, value in record.as_json().items():
        if key not in _APART:
            source = record.fields[key].source if key in record.fields else "-"
            yield key, _text(value), FIELDS[key].unit, source
    if record.sections:
        yield "sections", f"{len(record.sections)}, see --json", "", "-"
    for key, value in record.unknown.items():
        yield key, value, "", "as written"


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    flat = isinstance(value, tuple | list) and not any(isinstance(v, tuple | dict) for v in value)
    if flat:
        return _cut(", ".join(map(_text, value)))
    return _cut(msgspec.json.encode(value).decode() if isinstance(value, dict | tuple) else value)


def _plain(text: str) -> str:
    """Return a text that cannot command a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _cut(text: object) -> str:
    full = str(text)
    return full if len(full) <= _LONGEST else f"{full[: _LONGEST - 3]}..."
