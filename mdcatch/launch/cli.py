"""`coldstream session`: open a session, do the commands of a host, and say what was done."""

import json
import os
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from mdcatch.launch.daemon import Daemon, stop_signals
from mdcatch.launch.found import Scanner
from mdcatch.launch.opening import Opener
from mdcatch.launch.policy import Policy
from mdcatch.launch.request import (
    KIND,
    PICKERS,
    PIPELINES,
    from_arguments,
    site_defaults,
    to_arguments,
)
from services.kit import site as sites
from services.kit.commands import Answer, Command, Inbox, Mailbox, new_id
from services.kit.errors import Fatal, Misuse
from services.kit.faults import name_process
from services.kit.logs import Log
from services.kit.sitetables import Site

session_app = typer.Typer(no_args_is_help=True, help="Sessions: open them, see what was opened.")

NOT_DONE, MISUSE, FATAL = 1, 2, 75
STATE = "COLDSTREAM_STATE"
WAIT_S = 900.0

StateOption = Annotated[
    Path | None,
    typer.Option(help=f"Folder of the commands (default: ${STATE}, else ~/.local/state)."),
]
ConfigOption = Annotated[
    Path | None, typer.Option(help="The site's TOML file (default: /etc/coldstream).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
ProjectOption = Annotated[
    Path | None,
    typer.Option("--project", "-p", help="Project to make (default: by the session's name)."),
]
MoviesOption = Annotated[Path | None, typer.Option(help="Folder of the movies, if apart.")]
PipelineOption = Annotated[str | None, typer.Option(help=f"{', '.join(PIPELINES)}.")]
PickerOption = Annotated[str | None, typer.Option(help=f"{', '.join(PICKERS)}.")]
ModelOption = Annotated[Path | None, typer.Option(help="Trained model of Topaz or crYOLO.")]
DiameterOption = Annotated[
    float | None, typer.Option(help="Longest diameter, or a filament's width, in A.")
]
HelicalOption = Annotated[bool, typer.Option("--helical", help="The particles are filaments.")]
SymmetryOption = Annotated[str | None, typer.Option(help="Point group: C1, D2, T, O, I.")]
GainOption = Annotated[Path | None, typer.Option(help="Gain reference, over what is found.")]
PixelOption = Annotated[float | None, typer.Option(help="Movie pixel in A, over the metadata.")]
DoseOption = Annotated[float | None, typer.Option(help="Dose of a movie in e/A2, likewise.")]
GpusOption = Annotated[str | None, typer.Option(help="Numbers of the GPUs, such as 0,1.")]
WithOption = Annotated[
    list[str] | None,
    typer.Option("--with", help="Any other field of the request, FIELD=VALUE; repeatable."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Option of a Scheme, KEY=VALUE; repeatable.")
]
IdOption = Annotated[
    str | None, typer.Option("--id", help="Of the command; an id that was answered is not redone.")
]


def _command(function: Callable[..., int | None]) -> Callable[..., None]:
    """Give a command its errors in one line and its exit code."""

    @wraps(function)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            code = function(*args, **kwargs)
        except Misuse as error:
            typer.echo(f"coldstream: {error}", err=True)
            raise typer.Exit(MISUSE) from None
        except Fatal as error:
            typer.echo(f"coldstream: {error}", err=True)
            raise typer.Exit(FATAL) from None
        raise typer.Exit(code or 0)

    return wrapped


def mailbox(state: Path | None) -> Mailbox:
    """Return the folder of the commands: of the option, the environment, or the person."""
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    folder = state or Path(os.environ.get(STATE) or Path(home, "coldstream")).expanduser()
    return Mailbox(folder / "commands")


@session_app.command("open")
@_command
def open_session(  # noqa: PLR0913
    raw: Annotated[Path, typer.Argument(help="The session's folder.")],
    project: ProjectOption = None,
    movies: MoviesOption = None,
    pipeline: PipelineOption = None,
    picker: PickerOption = None,
    picker_model: ModelOption = None,
    particle_diameter: DiameterOption = None,
    helical: HelicalOption = False,
    symmetry: SymmetryOption = None,
    gain: GainOption = None,
    pixel_size: PixelOption = None,
    dose: DoseOption = None,
    gpus: GpusOption = None,
    more: WithOption = None,
    settings: SetOption = None,
    start: Annotated[bool, typer.Option(help="Start the processing.")] = True,
    command_id: IdOption = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = WAIT_S,
    state: StateOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Open a session: make its project and start its processing.

    A daemon of this host does it, if one runs; else this process does. Exit codes: 0 opened,
    1 not opened, 2 wrong usage.
    """
    site = sites.load(sites.locate(config))
    given = {
        "raw": _absolute(raw),
        "project": _absolute(project or Path(site.defaults.projects) / raw.absolute().name),
        "movies": _absolute(movies),
        "pipeline": pipeline,
        "picker": picker,
        "picker_model": _absolute(picker_model),
        "particle_diameter_A": particle_diameter,
        "helical": helical or None,
        "symmetry": symmetry,
        "gain": _absolute(gain),
        "pixel_size_A": pixel_size,
        "dose_e_A2": dose,
        "gpus": gpus,
        "start": None if start else False,
    }
    wanted = site_defaults(site) | {key: v for key, v in given.items() if v is not None}
    wanted |= _pairs("--with", more)
    wanted["settings"] = {**wanted.get("settings", {}), **_pairs("--set", settings)}
    arguments = to_arguments(from_arguments(wanted, strict=False))
    command = Command(
        id=command_id or new_id(), kind=KIND, arguments=arguments, sent_at=time.time()
    )
    return _show(_do(mailbox(state), command, site, wait), as_json)


@session_app.command("serve")
@_command
def serve(
    auto_open: Annotated[
        bool, typer.Option("--auto-open", help="Open new sessions that grow, without being asked.")
    ] = False,
    at_least: Annotated[int, typer.Option(help="Exposures before a session is opened.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Names to open, with wildcards.")] = None,
    never: Annotated[list[str] | None, typer.Option(help="Names to leave alone.")] = None,
    look: Annotated[float, typer.Option(help="Seconds between looks at the sessions.")] = 60.0,
    state: StateOption = None,
    config: ConfigOption = None,
    log_level: Annotated[str, typer.Option(help="Lowest level shown.")] = "INFO",
) -> int:
    """Do the commands of this host until it is stopped: what the launcher's Go sends.

    Sessions go on when it ends. Exit codes: 0 stopped, 2 wrong usage, 75 to be started again.
    """
    name_process("launch")
    site = sites.load(sites.locate(config))
    policy = None
    if auto_open:
        policy = _policy(at_least=at_least, only=tuple(only or ("*",)), never=tuple(never or ()))
    arguments = ("--config", str(config)) if config is not None else ()
    log = Log("launch", level=log_level)
    daemon = Daemon(mailbox(state), Opener(site), log, policy, Scanner(arguments), look)
    with stop_signals() as stopped:
        daemon.run(stopped)
    return 0


@session_app.command("list")
@_command
def list_sessions(state: StateOption = None, as_json: JsonOption = False) -> int:
    """Show what was opened, what was refused and what waits."""
    box = mailbox(state)
    rows: list[dict[str, Any]] = [
        {
            "id": one.answer.id,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.answer.at)),
            "state": "done" if one.answer.done else "refused",
            "raw": (one.command.arguments if one.command else {}).get("raw", ""),
            "text": one.answer.text,
        }
        for one in box.exchanges()
    ]
    for waiting in box.waiting():
        command = box.command(waiting)
        raw = command.arguments.get("raw", "") if command else ""
        rows.append({"id": waiting, "at": "", "state": "waits", "raw": raw, "text": ""})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        typer.echo(f"{row['at'] or 'now':<21}{row['state']:<9}{row['raw']}\n    {row['text']}")
    if not rows:
        typer.echo("no session was opened by command")
    return 0


def _do(box: Mailbox, command: Command, site: Site, wait_s: float) -> Answer:
    """Have a command done: by the daemon, or here where there is none."""
    box.send(command)
    if box.answer(command.id) is None and box.served_by() is None:
        opener = Opener(site)
        try:
            with Inbox(box, opener.handle) as inbox:
                try:
                    return inbox.do(command.id)
                except KeyboardInterrupt:
                    inbox.forget(command.id)
                    raise
                finally:
                    opener.let_go()
        except Misuse:
            if box.served_by() is None:
                raise
    answer = box.wait(command.id, wait_s)
    if answer is None:
        raise Misuse(
            f"no answer within {wait_s:g} s; the command is kept and will be done: ask again with "
            f"--id {command.id}"
        )
    return answer


def _show(answer: Answer, as_json: bool) -> int:
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(answer)).decode())
    else:
        typer.echo(answer.text, err=not answer.done)
        for warning in answer.facts.get("warnings", ()):
            typer.echo(f"note: {warning}")
    return 0 if answer.done else NOT_DONE


def _policy(**fields: Any) -> Policy:
    try:
        return msgspec.convert(fields, Policy)
    except msgspec.ValidationError as error:
        raise Misuse(f"--at-least: {error}") from error


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(Path(os.path.normpath(path.absolute())))


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise Misuse(f"{option} {text}: it must be KEY=VALUE")
        found[key.strip()] = value.strip()
    return found
