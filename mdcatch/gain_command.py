"""`mdcatch gain MOVIES --gain FILE`: which way round a gain reference belongs."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer


def register(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command("gain")(gain_command)


def gain_command(
    movies: Annotated[list[Path], typer.Argument(help="Movies of one camera mode, uncorrected.")],
    gain: Annotated[Path, typer.Option(help="Gain reference: MRC or TIFF, multiplied.")],
    rotation: Annotated[int, typer.Option(help="Configured quarter turns.", min=0, max=3)] = 0,
    flip: Annotated[int, typer.Option(help="0 none, 1 up-down, 2 left-right.", min=0, max=2)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell which way round a gain belongs. Exit codes: 0 right, 1 wrong or not certain."""
    from mdcatch.gaincheck import check_gain  # it needs SciPy, which takes a second to come

    check = check_gain(movies, gain, rotation, flip)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(check)).decode())
    else:
        for turns, mirror, correlation in check.scores:
            typer.echo(f"gain_rot {turns}  gain_flip {mirror}  correlation {correlation:8.4f}")
        typer.echo(f"{check.flag or 'ok'}: {check.sentence}")
    raise typer.Exit(1 if check.flag else 0)
