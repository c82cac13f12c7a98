"""`mdcatch override PROJECT MOVIE`: what a person decides about one exposure.

Source: acquisition.md section 8 (7).
"""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from mdcatch.orders import KIND, mailbox
from services.kit import session as sessions
from services.kit.commands import Command, new_id
from services.kit.errors import Misuse
from services.kit.ledger import Ledger
from services.kit.paths import Layout

FAILED, MISUSE = 1, 2


def register(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command()(override)


def override(
    project: Annotated[Path, typer.Argument(help="Project of the session.")],
    movie: Annotated[str, typer.Argument(help="Exposure, or a part of its name.")],
    choose: Annotated[
        Path | None, typer.Option(help="The movie file that counts, of several.")
    ] = None,
    metadata: Annotated[Path | None, typer.Option(help="The metadata file that counts.")] = None,
    accept: Annotated[
        bool | None,
        typer.Option("--accept/--no-accept", help="Publish it although it waits or is short."),
    ] = None,
    ignore: Annotated[
        bool | None, typer.Option("--ignore/--no-ignore", help="Never publish it.")
    ] = None,
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for the answer.")] = 10.0,
) -> None:
    """Decide about one exposure, while the session runs or before it goes on.

    The decision is kept when nobody answers in time: it is carried out at the next start. Exit
    codes: 0 decided or kept, 1 not done, 2 wrong usage.
    """
    try:
        code, text = _send(project, movie, (choose, metadata, accept, ignore), wait)
    except Misuse as error:
        code, text = MISUSE, str(error)
    typer.echo(text, err=code != 0)
    raise typer.Exit(code)


def _send(
    project: Path,
    movie: str,
    asked: tuple[Path | None, Path | None, bool | None, bool | None],
    wait_s: float,
) -> tuple[int, str]:
    layout = Layout(project)
    session = sessions.load(layout)
    if all(one is None for one in asked):
        raise Misuse("nothing is decided: give --choose, --metadata, --accept or --ignore")
    found = _exposure(layout, movie)
    choose, metadata, accept, ignore = asked
    arguments = {
        "movie": found,
        "choose": _named(choose, Path(session.raw), found),
        "metadata_path": _named(metadata, Path(session.raw), found),
        "accept": accept,
        "ignore": ignore,
    }
    box = mailbox(layout)
    command = Command(id=new_id(), kind=KIND, arguments=arguments, sent_at=time.time())
    box.send(command)
    kept = f"kept: {found} is decided when the session goes on"
    if box.served_by() is None:
        return 0, kept
    answer = box.wait(command.id, wait_s)
    if answer is None:
        return 0, f"{kept}; the watcher has not answered for {wait_s:g} s"
    return (0 if answer.done else FAILED), answer.text


def _exposure(layout: Layout, text: str) -> str:
    ledger = Ledger(layout)
    try:
        ledger.update()
        found = ledger.find(text)
    finally:
        ledger.close()
    if len(found) != 1:
        few = "".join(f"\n  {one}" for one in found[:20])
        raise Misuse(f"{len(found) or 'no'} exposures are named {text!r}{':' if few else ''}{few}")
    return found[0]


def _named(file: Path | None, raw: Path, movie: str) -> str | None:
    """Return a file as the watcher names it: below the raw folder, or absolute elsewhere."""
    if file is None:
        return None
    beside = raw / Path(movie).parent / file
    places = (file.absolute(), raw / file, beside)
    place = next((one for one in places if one.is_file()), None)
    if place is None:
        raise Misuse(f"{file} is not there, neither below {raw} nor beside the movie")
    path = Path(os.path.normpath(place))
    return str(path.relative_to(raw) if path.is_relative_to(raw) else path)
