"""Commands that do something in a project: `run` a Scheme, do one `job`."""

import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from schemer import edit, runlog, store
from schemer.cli.common import (
    ABORTED,
    FAILED,
    HERE,
    USAGE,
    JsonOption,
    ProjectOption,
    SchemeOption,
    fail,
    print_json,
    scheme_folder,
)
from schemer.errors import ProjectError, SchemeError
from schemer.executors import Executor
from schemer.executors.command import CommandExecutor
from schemer.executors.native import NativeExecutor
from schemer.executors.relion import RelionExecutor
from schemer.jobs import Generation
from schemer.project import Project
from schemer.runlog import Entry
from schemer.runner import Result, Runner
from schemer.workbench import Workbench, prepared, read_job

StrictOption = Annotated[
    bool, typer.Option("--strict", help="Do as RELION does, with its quirks and exit codes.")
]
GenerationOption = Annotated[
    Generation | None,
    typer.Option(
        "--relion",
        help="Write the pipeline for this RELION. Default: as the file is; a new one for 5.0.",
        show_default=False,
    ),
]
ExecutorOption = Annotated[
    str,
    typer.Option(
        "--executor",
        "-e",
        help="How jobs are done: native, relion, command:PROGRAM, or several with commas: the "
        "first that can do a job does it.",
    ),
]


def executors(text: str, root: Path) -> tuple[Executor, ...]:
    """Return the executors that an option names.

    Raises
    ------
    SchemeError
        An unknown word, or a program that is not there.
    """
    return tuple(_executor(word.strip(), root) for word in text.split(","))


def _executor(word: str, root: Path) -> Executor:
    if word == "native":
        return NativeExecutor()
    if word == "relion":
        return RelionExecutor(root)
    kind, _, path = word.partition(":")
    if kind != "command" or not path:
        raise SchemeError(
            f"--executor {word!r} is none of native, relion and command:PROGRAM; write one of them"
        )
    if "/" in path and Path(path).exists():
        path = str(Path(path).absolute())  # as the person means it, from where the person is
    return CommandExecutor(path, root)


def run(
    scheme: SchemeOption,
    project: ProjectOption = HERE,
    strict: StrictOption = False,
    executor: ExecutorOption = "native",
    grace: Annotated[
        float, typer.Option(help="Seconds that an aborted job gets to stop by itself.")
    ] = 30.0,
    relion: GenerationOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no steps.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a Scheme from its current node until it ends; a killed run goes on where it was."""
    bench = _bench(project, executor, relion, strict=strict, grace_s=grace)
    folder = scheme_folder(project, scheme)
    raise typer.Exit(_run(bench, folder, strict, as_json=as_json, quiet=quiet))


# Runs whose end was printed, but not acknowledged: that is done in the last moment.
_told: list[Path] = []


def acknowledge() -> None:
    """Note that the ends of this process's runs were told."""
    while _told:
        store.acknowledge(_told.pop())


def run_scheme(
    project: Path,
    scheme: str,
    *,
    strict: bool = False,
    executor: str = "native",
    as_json: bool = False,
    quiet: bool = False,
) -> int:
    """Run a Scheme and return the exit code; see `run`."""
    folder = scheme_folder(project, scheme)
    bench = _bench(project, executor, None, strict=strict)
    return _run(bench, folder, strict, as_json=as_json, quiet=quiet)


def _bench(
    project: Path, executor: str, generation: Generation | None, **settings: Any
) -> Workbench:
    try:
        ways = executors(executor, project)
    except SchemeError as error:
        fail(FAILED, str(error))
    return Workbench(Project(project, generation=generation), ways, **settings)


def _run(bench: Workbench, folder: Path, strict: bool, *, as_json: bool, quiet: bool) -> int:
    try:
        with _Steps(show=not (as_json or quiet)) as steps:
            result = Runner(bench, folder.name, strict=strict, report=steps.print).run()
    except (SchemeError, ProjectError) as error:
        fail(FAILED, str(error))
    if as_json:
        print_json(_as_json(result, bench.project, strict))
    else:
        _print_end(result, folder)
    _told.append(folder)
    return result.exit_code


class _Steps:
    """Prints what a Scheme does; on a terminal, also what it is busy with."""

    def __init__(self, *, show: bool):
        self._show = show
        self._console = Console(highlight=False, soft_wrap=True)
        self._status = self._console.status("begins")

    def __enter__(self) -> "_Steps":
        if self._show and self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def print(self, entry: Entry) -> None:
        """Print the lines of a log entry."""
        if not self._show:
            return
        lines = runlog.story([entry])
        for line in lines:
            self._console.print(line, markup=False)
            self._console.file.flush()
        if entry.kind == "InputsThere":
            self._status.update(f"job {escape(entry.node)} runs")
        elif lines:
            self._status.update(escape(lines[-1].partition(" ")[2]))


def _print_end(result: Result, folder: Path) -> None:
    detail = f": {result.detail}" if result.detail else ""
    stream = sys.stdout if result.exit_code == 0 else sys.stderr
    print(
        f"{result.scheme.name} ended at {result.walk.state.current_node} ({result.ended}{detail})",
        file=stream,
    )


def _as_json(result: Result, project: Project, strict: bool) -> dict[str, Any]:
    state = result.walk.state
    statuses = project.pipeline().processes
    return {
        "scheme": result.scheme.name,
        "strict": strict,
        "ended": result.ended,
        "detail": result.detail,
        "exit_code": result.exit_code,
        "visited": result.visited,
        "current_node": state.current_node,
        "variables": {**state.floats, **state.bools, **state.strings},
        "jobs": {
            name: {
                "name": row.current_name,
                "mode": row.mode,
                "has_started": row.has_started,
                "status": statuses.get(row.current_name, ""),
            }
            for name, row in sorted({**state.phantoms, **state.jobs}.items())
        },
    }


def job(
    job_star: Annotated[Path, typer.Argument(help="A job.star, or the folder that holds it.")],
    project: ProjectOption = HERE,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="option=value over the job.star's.")
    ] = None,
    executor: ExecutorOption = "native",
    relion: GenerationOption = None,
    go_on: Annotated[
        str, typer.Option("--continue", help="Go on in this job's folder, MotionCorr/job002/.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Do one job of the pipeline, outside of any Scheme."""
    path = job_star / "job.star" if job_star.is_dir() else job_star
    if not path.is_file():
        fail(USAGE, f"{path}: there is no job.star; give the file or its folder")
    try:
        bench = _bench(project, executor, relion)
        process, status, detail = _do_job(path, bench, settings or (), go_on)
    except (SchemeError, ProjectError) as error:
        fail(FAILED, str(error))
    if as_json:
        print_json({"job": process, "status": status, "detail": detail})
    else:
        print(f"{process} {status}{detail and ': ' + detail}")
    raise typer.Exit({"Succeeded": 0, "Aborted": ABORTED}.get(status, FAILED))


def _do_job(
    path: Path, bench: Workbench, settings: Sequence[str], go_on: str
) -> tuple[str, str, str]:
    kind, file, _ = read_job(path)
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise SchemeError(f"--set {setting!r}: write option=value")
        file = edit.set_job_option(file, name, value, f"--set {setting!r}")
    for name, value in file.options.items():
        if "$$" in value:
            raise SchemeError(
                f"{path}: option {name!r}: {value!r} needs a variable of a Scheme; give a value "
                f"with --set {name}=..."
            )
    bench.project.init()
    job = prepared(kind, file, is_continue=bool(go_on))
    bench.refuse(str(path), job)
    visit = uuid.uuid4().hex
    missing = bench.missing(job)
    if missing:
        raise SchemeError(
            f"{path}: the input {missing} does not exist in {bench.project.root}; make it first"
        )
    if go_on:
        process = go_on.rstrip("/") + "/"
        bench.renew(process, job)
    else:
        process = bench.make("", path.parent.name or "job", job, visit)
    status, detail = bench.run(process, job, visit, is_continue=bool(go_on), look=lambda: False)
    return process, status, detail
