"""`mdcatch sessions [FOLDER...]`: the sessions below folders, or below the site's roots."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from mdcatch.roots import RootConfig
from mdcatch.sessions import MOST, FoundSession, SessionScanner
from services.kit import site as sites
from services.kit.errors import Misuse

MISUSE = 2


def register(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command()(sessions)


def sessions(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders with sessions; default: the site's roots.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: Annotated[Path | None, typer.Option(help="Site file.")] = None,
    most: Annotated[int, typer.Option(min=0, help="Newest sessions that are counted.")] = MOST,
) -> None:
    """List the sessions below FOLDERS, the newest first. Exit codes: 0, 2 wrong usage."""
    try:
        found = SessionScanner(_roots(folders or [], config)).scan(most)
    except Misuse as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(MISUSE) from None
    if as_json:
        document = msgspec.json.encode({"sessions": found})
        typer.echo(msgspec.json.format(document).decode())
    else:
        _show(found)


def _roots(folders: list[Path], config: Path | None) -> list[RootConfig]:
    for folder in folders:
        if not folder.is_dir():
            raise Misuse(f"{folder} is not a folder: give one with sessions in it")
    if folders:
        return [RootConfig(path=str(folder.absolute())) for folder in folders]
    site = sites.load(sites.locate(config))
    if not site.roots:
        raise Misuse("no folder is given, and the site has no [roots]: name a folder")
    return [RootConfig(path=root.path, role=root.role) for root in site.roots.values()]


def _show(found: list[FoundSession]) -> None:
    table = Table(box=box.SIMPLE)
    for title in ("session", "software", "exposures", "squares", "first", "last", "state"):
        table.add_column(title, overflow="fold")
    for one in found:
        counts = ("-" if n is None else str(n) for n in (one.exposures, one.squares))
        table.add_row(one.name, one.software, *counts, one.started, one.last, one.state)
    Console(highlight=False).print(table)
