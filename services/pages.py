"""`coldstream report` and `coldstream micrograph show`: pages about a session and its micrographs.

Both only read the project, so they work while the session runs, after it, and on a copy of it.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services import stories
from services.kit.errors import Misuse
from services.kit.ledger import Ledger
from services.kit.paths import Layout
from services.report.facts import Told
from services.report.session import facts_of, make_report

if TYPE_CHECKING:
    from services.report.onepage import MicrographPages

ProjectOption = Annotated[
    Path, typer.Option("--project", "-p", help="RELION project folder.", show_default=False)
]
ALIKE_SHOWN = 5


def report(
    project: ProjectOption,
    out: Annotated[Path | None, typer.Option(help="HTML file (default: P/report.html).")] = None,
) -> int:
    """Write a one-file HTML report: throughput, motion, CTF, picks, squares, micrographs.

    Its figures also lie in the folder of its name, as PNG.
    """
    typer.echo(str(make_report(_layout(project), out)))
    return 0


def show(
    project: ProjectOption,
    name: Annotated[
        str,
        typer.Argument(help="Micrograph: its movie's name, a part that no other has, or a file."),
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="Of all micrographs.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file of the report they belong to (default: P/report.html)."),
    ] = None,
) -> int:
    """Write the page of a micrograph: image with picks, CTF, drift, numbers, history."""
    from services.report.onepage import MicrographPages  # loads what draws, half a second

    if bool(name.strip()) == every:
        raise Misuse("name one micrograph, or give --all")
    layout = _layout(project)
    facts, ledger = facts_of(layout)
    try:
        target = out or layout.project / "report.html"
        pages = MicrographPages(
            layout.project, facts, target / "report.html" if target.is_dir() else target
        )
        if not every:
            movie = find(pages.movies, name)
            typer.echo(
                str(pages.write(movie, history(ledger, movie), stories.verdict(ledger, movie)))
            )
            return 0
        made, kept = _write_all(pages, ledger)
        typer.echo(
            f"{made} pages written, {kept} were up to date: {pages.files.folder}/micrographs"
        )
        return 0
    finally:
        ledger.close()


def _write_all(pages: "MicrographPages", ledger: Ledger) -> tuple[int, int]:
    """Write the pages that are not up to date; return how many, and how many are."""
    from rich.console import Console
    from rich.progress import track

    due = [movie for movie in pages.movies if not pages.is_current(movie)]
    screen = Console(stderr=True)
    what = "pages of micrographs"
    for movie in track(due, what, console=screen, transient=True, disable=not screen.is_terminal):
        pages.write(movie, history(ledger, movie), stories.verdict(ledger, movie))
    return len(due), len(pages.movies) - len(due)


def history(ledger: Ledger, movie: str) -> list[Told]:
    """Return all that has happened to a movie, in order."""
    return [
        Told(at=at, service=producer, event=kind, text=text)
        for at, producer, kind, text in stories.story_rows(ledger, movie)
    ]


def find(movies: Sequence[str], text: str) -> str:
    """Return the one movie that `text` names: identity, part of it, or one of its files.

    Raises
    ------
    Misuse
        None or several match; the message has the names that are nearest.
    """
    names = {movie: movie.rpartition("/")[2] for movie in movies}
    file = text.rstrip("/").rpartition("/")[2]
    tries = (
        [movie for movie in movies if text in (movie, names[movie])],
        [movie for movie in movies if text in movie],
        # A file of the movie: its name goes on where that of the movie ends.
        [movie for movie, name in names.items() if name and file.startswith(name)],
    )
    found = next((matching for matching in tries if matching), [])
    if len(found) > 1 and tries[2] is found:
        longest = max(len(names[movie]) for movie in found)
        found = [movie for movie in found if len(names[movie]) == longest]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(names[movie] for movie in found[:ALIKE_SHOWN])
        more = " ..." if len(found) > ALIKE_SHOWN else ""
        raise Misuse(f"{len(found)} micrographs match {text!r}: {some}{more}; name one of them")
    if not movies:
        raise Misuse(f"no micrograph is called {text!r}: the session has seen no movie yet")
    near = difflib.get_close_matches(file, list(names.values()), ALIKE_SHOWN, cutoff=0.5)
    hint = f"; the nearest are {', '.join(near)}" if near else f"; the session has {len(movies)}"
    raise Misuse(f"no micrograph is called {text!r}{hint}")


def _layout(project: Path) -> Layout:
    if not project.is_dir():
        raise Misuse(f"--project {project} is not a folder: give the RELION project")
    return Layout(project)
