"""The `coldstream` command."""

import json
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer

from mdcatch.launch.cli import session_app
from services import micrographs, pages, running, stories, symmetry
from services.doctor import doctor
from services.kit import session as sessions
from services.kit import site as sites
from services.kit.errors import Fatal, Misuse
from services.kit.ledger import Ledger
from services.kit.paths import Layout
from services.ranker.commands import COMMANDS as RANKER

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help=(
        "Cryo-EM single-particle processing while the microscope is running.\n\n"
        "Exit codes: 0 done (also when some movies were refused), 1 nothing found or not done, "
        "2 a wrong command or configuration, 75 a process could not be kept running."
    ),
)
simulate_app = typer.Typer(no_args_is_help=True, help="A microscope with known truth.")
keys_app = typer.Typer(no_args_is_help=True, help="CURVE keys, for TCP between hosts.")
app.add_typer(simulate_app, name="simulate")
app.add_typer(keys_app, name="keys")
app.add_typer(session_app, name="session")
micrograph_app = typer.Typer(
    no_args_is_help=True, help="Look at, keep or reject single micrographs."
)
app.add_typer(micrograph_app, name="micrograph")
ranker_app = typer.Typer(
    no_args_is_help=True, help="The class ranker: a person's word on classes, training, evaluation."
)
app.add_typer(ranker_app, name="ranker")

ProjectOption = Annotated[
    Path, typer.Option("--project", "-p", help="RELION project folder.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
MoviesOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the movies, if the camera writes them elsewhere (default: by the site's "
        "roots)."
    ),
]
GainOption = Annotated[
    Path | None,
    typer.Option(
        help="Gain reference (MRC or TIFF). Default: gain.mrc in the raw folder, or *_gain.tiff "
        "beside the movies."
    ),
]
DiameterOption = Annotated[
    float | None, typer.Option(help="Particle diameter in A; box sizes follow from it.")
]
WorkersOption = Annotated[int | None, typer.Option(help="Worker processes (default: cores).")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Scheme setting in relion_it's form, for example "
        "prep__motioncorr__bin_factor=2. May be repeated.",
    ),
]
PixelOption = Annotated[float | None, typer.Option(help="Movie pixel in A, over the metadata.")]
ClassifyOption = Annotated[
    bool | None,
    typer.Option("--classify/--no-classify", help="2D classification (default: yes)."),
]
RefineOption = Annotated[
    bool | None,
    typer.Option("--refine/--no-refine", help="Maps of the particles (default: yes)."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="The site's file (default: /etc/coldstream/coldstream.toml)."),
]
DoseOption = Annotated[float | None, typer.Option(help="Dose of a movie in e/A2, likewise.")]
VoltageOption = Annotated[float | None, typer.Option(help="Voltage in kV, likewise.")]


def _command(function: Callable[..., int | None]) -> Callable[..., None]:
    """Give a command its errors in one line and its exit code."""

    @wraps(function)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            code = function(*args, **kwargs)
        except Misuse as error:
            typer.echo(f"coldstream: {error}", err=True)
            raise typer.Exit(2) from None
        except Fatal as error:
            typer.echo(f"coldstream: {error}", err=True)
            raise typer.Exit(75) from None
        except BrokenPipeError:
            sys.stderr.close()  # the reader, `head` say, has had enough
            raise typer.Exit(0) from None
        raise typer.Exit(code or 0)

    return wrapped


def _settings(texts: list[str] | None) -> dict[str, str]:
    settings = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise Misuse(f"--set {text}: it must be KEY=VALUE")
        settings[key.strip()] = value.strip()
    return settings


def _run(
    project: Path,
    raw: Path | None,
    changes: dict[str, object],
    texts: list[str] | None,
    config: Path | None,
):
    """Set a project up and run it; returns its ledger."""
    from services.screen import Screen
    from services.setup import set_up
    from services.up import run_session

    gain = changes.get("gain")
    if isinstance(gain, Path):
        if not gain.is_file():
            raise Misuse(f"--gain {gain} is not a file")
        changes["gain"] = str(gain.absolute())
    layout, session = set_up(
        project, raw, changes, _settings(texts), sites.load(sites.locate(config))
    )
    return run_session(layout, session, Screen(bars=session.close_when_idle))


@app.command()
@_command
def up(  # noqa: PLR0913
    project: ProjectOption,
    raw: Annotated[
        Path | None,
        typer.Option(help="Folder of the session: EPU, SerialEM or flat. Needed the first time."),
    ] = None,
    movies: MoviesOption = None,
    gain: GainOption = None,
    particle_diameter: DiameterOption = None,
    workers: WorkersOption = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running Dask scheduler.")
    ] = None,
    settle: Annotated[
        float | None, typer.Option(help="Seconds a file must stay unchanged (default: 2).")
    ] = None,
    pixel_size: PixelOption = None,
    dose: DoseOption = None,
    voltage: VoltageOption = None,
    classify: ClassifyOption = None,
    refine: RefineOption = None,
    settings: SetOption = None,
    config: ConfigOption = None,
) -> int:
    """Process a running session, in the foreground, until Ctrl-C.

    Started again with the same project, it goes on where it was.
    """
    changes = {
        "movies": movies,
        "gain": gain,
        "particle_diameter_A": particle_diameter,
        "workers": workers,
        "scheduler": scheduler,
        "settle_s": settle,
        "pixel_size_A": pixel_size,
        "dose_e_A2": dose,
        "voltage_kV": voltage,
        "classify": classify,
        "refine": refine,
        "close_when_idle": False,
    }
    _run(project, raw, changes, settings, config)
    return 0


@app.command()
@_command
def process(  # noqa: PLR0913
    folder: Annotated[
        Path, typer.Argument(help="Folder of a session that is on disk: EPU, SerialEM or flat.")
    ],
    project: ProjectOption,
    movies: MoviesOption = None,
    gain: GainOption = None,
    particle_diameter: DiameterOption = None,
    workers: WorkersOption = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running Dask scheduler.")
    ] = None,
    pixel_size: PixelOption = None,
    dose: DoseOption = None,
    voltage: VoltageOption = None,
    classify: ClassifyOption = None,
    refine: RefineOption = None,
    settings: SetOption = None,
    config: ConfigOption = None,
) -> int:
    """Process a session that is already on disk, then exit.

    Interrupted and started again, it goes on where it was. Exit code 0 also when movies were
    refused: the last line counts them.
    """
    from services.screen import totals_line

    if folder.is_dir() and not any(folder.iterdir()):
        raise Misuse(f"{folder} is empty: give the folder of a session")
    changes = {
        "movies": movies,
        "gain": gain,
        "particle_diameter_A": particle_diameter,
        "workers": workers,
        "scheduler": scheduler,
        "pixel_size_A": pixel_size,
        "dose_e_A2": dose,
        "voltage_kV": voltage,
        "classify": classify,
        "refine": refine,
        "close_when_idle": True,
        # Nothing is being written any more: what is incomplete now stays so.
        "settle_s": 0.5,
        "stuck_s": 3.0,
        "metadata_wait_s": 3.0,
    }
    ledger = _run(project, folder, changes, settings, config)
    for line in stories.not_done_lines(ledger):
        typer.echo(line)
    typer.echo(totals_line(ledger))
    return 0 if ledger.settled() else 1


@app.command()
@_command
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path(
        "demo-session"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the simulated microscope.")] = 1,
    recipe: Annotated[str, typer.Option(help="Recipe of the simulated session.")] = "demo",
    workers: WorkersOption = None,
) -> int:
    """Simulate a session and process it live, end to end; ends with a ledger and a report."""
    from services.demo import run_demo

    return run_demo(out, recipe, seed, workers)


@simulate_app.command("session")
@_command
def simulate_session_command(
    out: Annotated[Path, typer.Option(help="Session folder to write.")],
    recipe: Annotated[str, typer.Option(help="Name of a shipped recipe, or a TOML file.")] = "demo",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 1,
    fast: Annotated[bool, typer.Option("--fast", help="As fast as possible, no pace.")] = False,
) -> int:
    """Write a simulated EPU session at the pace of a microscope, with its truth beside it."""
    from services.demo import simulate

    simulate(out, recipe, seed, realtime=not fast)
    return 0


@app.command()
@_command
def status(project: ProjectOption, as_json: JsonOption = False) -> int:
    """Show the ledger: every movie done, refused or pending, and why."""
    ledger = _ledger(project)
    if as_json:
        typer.echo(json.dumps(ledger.as_json(), indent=1))
    else:
        for line in stories.status_lines(ledger):
            typer.echo(line)
    return 0


@app.command()
@_command
def stop(
    project: ProjectOption,
    wait: Annotated[float, typer.Option(help="Seconds to wait for its end.")] = 60.0,
) -> int:
    """Stop a session wherever it was started; `up` or `session open` goes on with it.

    Exit codes: 0 stopped, 1 it did not run, 2 it did not stop.
    """
    layout = _layout(project)
    if running.stop(layout, wait):
        typer.echo(f"the session of {layout.project} has stopped")
        return 0
    typer.echo(f"the session of {layout.project} does not run", err=True)
    return 1


@app.command()
@_command
def why(
    movie: Annotated[str, typer.Argument(help="Movie name, or a part of it.")],
    project: ProjectOption,
    as_json: JsonOption = False,
) -> int:
    """Tell the story of one movie: what happened to it, and what it waits for."""
    ledger = _ledger(project)
    found = ledger.find(movie)
    if len(found) != 1:
        few = "".join(f"\n  {name}" for name in found[:20])
        count = f"{len(found)} movies match" if found else "no movie matches"
        typer.echo(f"{count} {movie!r}{':' if found else ''}{few}", err=True)
        return 1
    if as_json:
        typer.echo(json.dumps(stories.story_json(ledger, found[0]), indent=1))
    else:
        for line in stories.story_lines(ledger, found[0]):
            typer.echo(line)
    return 0


@app.command()
@_command
def tail(  # noqa: PLR0913
    project: ProjectOption,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines to begin with.")] = 20,
    service: Annotated[
        list[str] | None, typer.Option("--service", "-s", help="Of this service; repeatable.")
    ] = None,
    level: Annotated[
        str, typer.Option("--level", "-l", help="Lowest level: DEBUG, INFO, WARNING, ERROR.")
    ] = "DEBUG",
    event: Annotated[
        list[str] | None,
        typer.Option("--event", "-e", help="Of this event, such as 'movie.*'; repeatable."),
    ] = None,
    match: Annotated[
        list[str] | None,
        typer.Option("--match", "-m", help="With this text, such as a movie's name; repeatable."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Not older: 30s, 10m, 2h, 1d, or a time in UTC.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Show the log lines of all services, merged by time, or those that are asked for."""
    from services.screen import COLOURS
    from services.tail import LogTail, make_filter

    wanted = make_filter(service or [], level, event or [], match or [], since)
    shown = LogTail(_layout(project).logs, wanted)
    found = shown.last(lines)
    try:
        while True:
            for line in found:
                colour = None if as_json else COLOURS.get(line.level)
                typer.secho(line.as_json() if as_json else line.text, fg=colour)
            if not follow:
                return 0
            time.sleep(0.2)
            found = shown.new()
    except KeyboardInterrupt:
        return 0


app.command("report")(_command(pages.report))
app.command("doctor")(_command(doctor))
app.command("symmetry")(_command(symmetry.symmetry))
micrograph_app.command("show")(_command(pages.show))
for function in (micrographs.keep, micrographs.reject, micrographs.auto):
    micrograph_app.command(function.__name__)(_command(function))
for name, function in RANKER.items():
    ranker_app.command(name)(_command(function))


@keys_app.command("new")
@_command
def keys_new(
    name: Annotated[str, typer.Argument(help="Name of the key pair.")],
    folder: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path("keys"),
) -> int:
    """Make a CURVE key pair; the secret file is readable by its owner alone."""
    from services.kit.keys import new_pair

    for path in new_pair(folder, name):
        typer.echo(str(path))
    return 0


def _layout(project: Path) -> Layout:
    layout = Layout(project)
    sessions.load(layout)  # says what to do when there is no session
    return layout


def _ledger(project: Path) -> Ledger:
    ledger = Ledger(_layout(project))
    ledger.update()
    return ledger


def main() -> None:
    """Run the command line."""
    app()
