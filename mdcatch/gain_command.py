"""`mdcatch gain MOVIES`: which way round a gain reference belongs, or one made of the movies."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from services.kit.errors import Misuse


def register(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command("gain")(gain_command)


def gain_command(
    movies: Annotated[list[Path], typer.Argument(help="Movies of one camera mode, uncorrected.")],
    gain: Annotated[Path | None, typer.Option(help="Gain reference: MRC, TIFF or DM4.")] = None,
    estimate: Annotated[
        Path | None, typer.Option(help="Write a gain made of the movies to this MRC file.")
    ] = None,
    rotation: Annotated[int, typer.Option(help="Configured quarter turns.", min=0, max=3)] = 0,
    flip: Annotated[int, typer.Option(help="0 none, 1 up-down, 2 left-right.", min=0, max=2)] = 0,
    min_movies: Annotated[int, typer.Option(help="Least number for --estimate.", min=1)] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell which way round a gain belongs, or make one. Exit codes: 0 right, 1 wrong or unsure."""
    if gain is None and estimate is not None:
        _estimate(movies, estimate, min_movies, as_json)
        return
    if gain is None or estimate is not None:
        raise Misuse("give either --gain FILE to check one, or --estimate FILE to make one")
    from mdcatch.gaincheck import check_gain  # it needs SciPy, which takes a second to come

    check = check_gain(movies, gain, rotation, flip)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(check)).decode())
    else:
        for turns, mirror, correlation in check.scores:
            typer.echo(f"gain_rot {turns}  gain_flip {mirror}  correlation {correlation:8.4f}")
        typer.echo(f"{check.flag or 'ok'}: {check.sentence}")
    raise typer.Exit(1 if check.flag else 0)


def _estimate(movies: list[Path], out: Path, least: int, as_json: bool) -> None:
    from mdcatch.gainestimate import make_gain

    made = make_gain(movies, out, least=least)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(made)).decode())
        return
    for one in made.left_out:
        typer.echo(f"left out: {one}", err=True)
    divides = ", to be divided by" if made.is_inverse else ""
    typer.echo(
        f"{made.gain}{divides}: {made.n_movies} movies, {made.electrons_per_px:.4g} counts per "
        f"pixel, pattern {100 * made.variation:.2f} %, error {100 * made.error:.2f} %, "
        f"{made.n_dead} dead and {made.n_hot} hot pixels"
    )
