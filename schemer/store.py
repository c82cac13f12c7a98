"""A Scheme on disk: who may change `scheme.star`, and how a run is kept in it.

`scheme.star` is the truth, also while a Scheme runs: RELION, people and other Schemes read it.
What RELION does not keep (clocks, the phase of the current node, exact numbers) stands in blocks
of our own in the same file, so that both change in one step. RELION drops these blocks when it
writes the file, and then nothing stale is left.

Locks are the operating system's and end with the process that holds them: `run.lock` for the one
process that runs the Scheme, `edit.lock` for each change. Source: schemes.md sections 7 and 19.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct, structs

from algorithms.formats import star
from algorithms.formats.atomic import atomic_write
from schemer import starfile
from schemer.errors import SchemeError
from schemer.scheme import Scheme

HIDDEN = ".coldstream"  # folder in the Scheme's folder for what is only ours
BLOCKS = ("coldstream_run", "coldstream_floats")
ABORT_NOW = "RELION_JOB_ABORT_NOW"


class RunInfo(Struct, frozen=True):
    """The process that runs a Scheme: its number, since when (Unix seconds), and its mode."""

    pid: int
    since: float
    strict: bool = False


def running(folder: Path) -> RunInfo | None:
    """Return who runs the Scheme in `folder` at this moment, None if nobody does."""
    try:
        file = open(folder / HIDDEN / "run.lock", encoding="utf-8")
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(ValueError, TypeError):
                return RunInfo(**json.loads(file.read()))
            return RunInfo(0, 0.0)  # it has the lock and has not signed yet
    return None


@contextmanager
def run_lock(project: Path, folder: Path, *, strict: bool) -> Iterator[bool]:
    """Hold the right to run the Scheme in `folder`.

    Yields
    ------
    bool
        Whether the process before was killed, also in the moment between its last transition and
        its exit: then nobody has heard yet how the run ended, see `acknowledge`.

    Raises
    ------
    SchemeError
        Another process runs it, ours or a `relion_schemer`.
    """
    refuse_relion(project, folder)
    path = folder / HIDDEN / "run.lock"
    path.parent.mkdir(exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy(folder) from None
        file.seek(0)
        killed = bool(file.read())
        file.truncate(0)
        file.write(json.dumps(structs.asdict(RunInfo(os.getpid(), time.time(), strict))))
        file.flush()
        yield killed


def acknowledge(folder: Path) -> None:
    """Note that the end of a run was told: the next process may begin a new one."""
    (folder / HIDDEN / "run.lock").write_bytes(b"")


def busy(folder: Path) -> SchemeError:
    """Return the error that says who runs the Scheme."""
    who = running(folder)
    process = f" (process {who.pid})" if who else ""
    return SchemeError(
        f"{folder}: this Scheme is running{process}; stop it with `schemer abort` first"
    )


def refuse_relion(project: Path, folder: Path) -> None:
    """Raise SchemeError if a `relion_schemer` runs the Scheme, or has died while it did."""
    lock = project / f".relion_lock_scheme_{folder.name}"
    if lock.exists():
        raise SchemeError(
            f"{lock} exists: a relion_schemer runs this Scheme; if none does, remove that folder"
        )


@contextmanager
def edit_lock(folder: Path) -> Iterator[None]:
    """Hold the right to replace `scheme.star`; waits for the short time others need."""
    path = folder / HIDDEN / "edit.lock"
    path.parent.mkdir(exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def edit(
    folder: Path, change: Callable[[Scheme], Scheme], *, while_running: bool = False
) -> Scheme:
    """Change a Scheme on disk and return it; the former file is kept as `scheme.star.bck`.

    Parameters
    ----------
    folder
        The Scheme's folder.
    change
        Returns the changed Scheme; if it raises, nothing is written.
    while_running
        Whether the change may reach a running Scheme, which takes it over at its next transition.

    Raises
    ------
    SchemeError
        The Scheme cannot be read, or it runs and `while_running` is not given.
    """
    if not while_running and running(folder) is not None:
        raise busy(folder)
    refuse_relion(folder.resolve().parent.parent, folder)
    with edit_lock(folder):
        path = folder / "scheme.star"
        before = starfile.read(path)
        after = change(before)
        if (after.current_node, after.jobs) != (before.current_node, before.jobs):
            # It goes on from elsewhere: what was kept of the interrupted run is void.
            kept = tuple(block for block in after.unknown if block.name not in BLOCKS)
            after = structs.replace(after, unknown=kept)
        text = starfile.dump(after)
        shutil.copyfile(path, path.with_name("scheme.star.bck"))
        atomic_write(path, text)
    return after


def request_abort(project: Path, folder: Path) -> str:
    """Ask the Scheme, and the job it is at, to stop; return the current node.

    Needs no lock, and works for a `relion_schemer` too.
    """
    scheme = starfile.read(folder)
    row = scheme.jobs.get(scheme.current_node)
    if row is not None and row.current_name.endswith("/"):
        job = project / row.current_name
        if job.is_dir():
            (job / ABORT_NOW).touch()
    (folder / ABORT_NOW).touch()
    return scheme.current_node


def table_of(scheme: Scheme, name: str) -> star.Table | None:
    """Return one of our own blocks, None if RELION or a person wrote the file since."""
    block = next((one for one in scheme.unknown if one.name == name), None)
    return None if block is None else star.Table(block.columns, block.loop)
