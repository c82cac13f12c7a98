"""What a person who watches a Scheme wants to know, read from the project's files only.

It works for a Scheme that `schemer run` runs, for one that a `relion_schemer` runs, and for one
that nobody runs. Source: schemes.md sections 7 and 18.
"""

import re
import time
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from algorithms.formats import star
from schemer import graph, runlog, starfile, store
from schemer.errors import ProjectError, SchemeError
from schemer.pipeline import Pipeline
from schemer.scheme import Scheme
from schemer.store import RunInfo

TAIL_BYTES = 64 * 1024  # of an output file or log: far more than a screen shows
# RELION rewrites a file in place: what reads as broken is read once more.
_SECOND_LOOK_S = 0.1
_ENDS = {
    "RELION_JOB_EXIT_SUCCESS": "finished",
    "RELION_JOB_EXIT_FAILURE": "failed",
    "RELION_JOB_EXIT_ABORTED": "aborted",
}
# Colour codes and other control characters do not belong on somebody else's screen.
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class JobLine(Struct, frozen=True, kw_only=True):
    """A job node, with the status of its folder in the pipeline (empty if it has none)."""

    node: str
    mode: str
    folder: str
    has_started: bool
    status: str


class Overview(Struct, frozen=True, kw_only=True):
    """A Scheme at one moment.

    `running` is our process that runs it; `relion` says that RELION's lock is there: its
    relion_schemer runs, or has died. `ended` is how the last run ended, empty while one goes on.
    `waits_until` is the end of the present wait (Unix s). `job` is the job at work, or else the
    one that worked last; its output and the Scheme's are the last lines of their files. `problem`
    says why `scheme.star` cannot be read; the Scheme is None then.
    """

    name: str
    folder: Path
    at: float
    scheme: Scheme | None = None
    problem: str = ""
    running: RunInfo | None = None
    relion: bool = False
    abort_asked: bool = False
    ended: str = ""
    waits_until: float | None = None
    jobs: tuple[JobLine, ...] = ()
    job: str = ""
    job_output: tuple[str, ...] = ()
    job_errors: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    story: tuple[str, ...] = ()

    @property
    def is_running(self) -> bool:
        """Return whether something runs the Scheme, as far as locks can tell."""
        return self.running is not None or self.relion

    @property
    def current_node(self) -> str:
        """Return the node about to be executed or being executed; empty if it is not known."""
        return self.scheme.current_node if self.scheme else ""

    @property
    def statuses(self) -> dict[str, str]:
        """Return job folder -> pipeline status."""
        return {one.folder: one.status for one in self.jobs if one.folder}


def names(project: Path) -> list[str]:
    """Return the names of the project's Schemes, sorted."""
    return sorted(path.parent.name for path in project.glob("Schemes/*/scheme.star"))


def look(project: Path, name: str) -> Overview:
    """Return what there is to know about the Scheme `Schemes/<name>/` now. Changes nothing."""
    folder = project / "Schemes" / name
    running = store.running(folder)
    seen: dict[str, Any] = {
        "name": name,
        "folder": folder,
        "at": time.time(),
        "running": running,
        "relion": running is None and relion_lock(project, name).exists(),
        "abort_asked": (folder / store.ABORT_NOW).exists(),
        "output": tail(folder / "run.out"),
        "errors": tail(folder / "run.err"),
        "story": tuple(runlog.story(_last_entries(folder))),
    }
    try:
        scheme = _read(folder)
    except SchemeError as error:
        return Overview(**seen, problem=str(error))
    jobs, problem = _jobs(project, scheme)
    job = _job_at_work(project, scheme)
    block = _run_block(scheme)
    return Overview(
        **seen,
        scheme=scheme,
        problem=problem,
        ended="" if running or seen["relion"] else _ended(folder, block),
        waits_until=_waits_until(block) if running else None,
        jobs=jobs,
        job=job,
        job_output=tail(project / job / "run.out") if job else (),
        job_errors=tail(project / job / "run.err") if job else (),
    )


def is_running(project: Path, name: str) -> bool:
    """Return whether something runs the Scheme, as far as locks can tell."""
    return (
        store.running(project / "Schemes" / name) is not None or relion_lock(project, name).exists()
    )


def relion_lock(project: Path, name: str) -> Path:
    """Return the folder that a relion_schemer makes while it runs the Scheme."""
    return project / f".relion_lock_scheme_{name}"


def tail(path: Path, size: int = TAIL_BYTES) -> tuple[str, ...]:
    """Return the last lines of a text file, as a terminal would show them; none without a file.

    A progress bar that goes back to the beginning of its line leaves its last state.
    """
    try:
        with open(path, "rb") as file:
            length = file.seek(0, 2)
            file.seek(max(0, length - size))
            text = file.read(size).decode(errors="replace")
    except OSError:
        return ()
    if length > size:
        text = text.partition("\n")[2]
    return tuple(
        plain(line.rstrip("\r").rpartition("\r")[2]).expandtabs()
        for line in text.rstrip("\n").split("\n")
        if text
    )


def plain(text: str) -> str:
    """Return a text without what would steer a terminal."""
    return _ESCAPES.sub("", text)


def _read(folder: Path) -> Scheme:
    try:
        return starfile.read(folder)
    except SchemeError:
        time.sleep(_SECOND_LOOK_S)
        return starfile.read(folder)


def _last_entries(folder: Path) -> list[runlog.Entry]:
    """Return the last entries of the log, however long it is."""
    decoder = msgspec.json.Decoder(runlog.Entry)
    entries = []
    for line in tail(folder / store.HIDDEN / "log.jsonl"):
        try:
            entries.append(decoder.decode(line))
        except msgspec.MsgspecError:
            continue  # a line being written
    return entries


def _jobs(project: Path, scheme: Scheme) -> tuple[tuple[JobLine, ...], str]:
    """Return the jobs in the order of the graph, and why their status is not known."""
    try:
        statuses, problem = Pipeline.load(str(project / "default_pipeline.star")).processes, ""
    except ProjectError as error:
        statuses, problem = {}, str(error)
    reached, rest = graph.order(scheme)
    lines = []
    for node in (*reached, *rest):
        row = scheme.jobs.get(node)
        if row is not None:
            folder = row.current_name if row.current_name.endswith("/") else ""
            line = JobLine(
                node=node,
                mode=row.mode,
                folder=folder,
                has_started=row.has_started,
                status=statuses.get(folder, ""),
            )
            lines.append(line)
    return tuple(lines), problem


def _job_at_work(project: Path, scheme: Scheme) -> str:
    current = scheme.jobs.get(scheme.current_node)
    if current is not None and current.current_name.endswith("/"):
        return current.current_name
    folders = [row.current_name for row in scheme.jobs.values() if row.current_name.endswith("/")]
    return max(folders, key=lambda folder: _changed(project / folder / "run.out"), default="")


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _run_block(scheme: Scheme) -> dict[str, str]:
    """Return what our run has kept in the file; empty if RELION or a person wrote it since."""
    table = store.table_of(scheme, store.BLOCKS[0])
    try:
        return table.row(0) if table is not None else {}
    except (IndexError, star.StarError):
        return {}


def _ended(folder: Path, block: dict[str, str]) -> str:
    """Return how the last run ended; `interrupted` if it was ours and nothing says that it did."""
    if block:
        return block.get("coldstreamEnded", "") or "interrupted"
    return next((end for name, end in _ENDS.items() if (folder / name).exists()), "")


def _waits_until(block: dict[str, str]) -> float | None:
    if block.get("coldstreamPhase") != "sleep":
        return None
    try:
        return float(block["coldstreamSleepUntil"])
    except (KeyError, ValueError):
        return None


def as_dict(seen: Overview) -> dict[str, Any]:
    """Return an overview as plain data for `--json`; times are Unix seconds."""
    scheme, running = seen.scheme, seen.running
    kinds = (scheme.floats, scheme.bools, scheme.strings) if scheme else ()
    return {
        "scheme": f"Schemes/{seen.name}/",
        "running": seen.is_running,
        "by": "schemer" if running else "relion_schemer" if seen.relion else None,
        "pid": running.pid if running else None,
        "since": running.since if running else None,
        "strict": running.strict if running else None,
        "abort_asked": seen.abort_asked,
        "ended": seen.ended or None,
        "current_node": seen.current_node or None,
        "waits_until": seen.waits_until,
        "problem": seen.problem or None,
        "variables": {
            name: {"value": variable.value, "reset": variable.reset}
            for variables in kinds
            for name, variable in sorted(variables.items())
        },
        "jobs": {
            one.node: {
                "mode": one.mode,
                "folder": one.folder or None,
                "has_started": one.has_started,
                "status": one.status or None,
            }
            for one in seen.jobs
        },
        "job": seen.job or None,
        "story": list(seen.story),
    }
