"""`mdcatch launcher`: opens the window."""

from pathlib import Path
from typing import Annotated

import typer

from mdcatch.launch.cli import ConfigOption, StateOption, mailbox
from mdcatch.launch.found import Scanner
from mdcatch.launch.survey import query
from mdcatch.launcher.model import Model
from mdcatch.launcher.remote import Remote
from services.kit import site as sites
from services.kit.errors import Fatal, Misuse

MISUSE = 2


def launcher(
    raw: Annotated[Path | None, typer.Argument(help="A session to begin with.")] = None,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Open the launcher: sessions found, what was parsed, and Go. Needs PyQt5 and a display."""
    try:
        from mdcatch.launcher.window import show
    except ImportError:
        typer.echo(
            "mdcatch: the launcher needs PyQt5: pip install 'coldstream[gui]', or open sessions "
            "with `coldstream session open`",
            err=True,
        )
        raise typer.Exit(MISUSE) from None
    try:
        place = sites.locate(config)
        scanner = Scanner(() if place is None else ("--config", str(place)))
        model = Model(
            sites.load(place), scanner, lambda asked: query(asked, place), Remote(mailbox(state))
        )
        if raw is not None:
            model.choose(str(raw.absolute()))
        code = show(model)
    except (Misuse, Fatal) as error:
        typer.echo(f"mdcatch: {error}", err=True)
        raise typer.Exit(MISUSE) from None
    raise typer.Exit(code)
