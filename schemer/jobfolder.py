"""The files that RELION expects in a job's folder, and our claim on the folder.

Source: schemes.md sections 7, 9 and 12.
"""

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from algorithms.formats import star
from algorithms.formats.atomic import atomic_write, sync_folder
from schemer import pipeline31
from schemer.errors import ProjectError
from schemer.jobs.jobfile import JobFile, option_table
from schemer.jobs.labels import STAR_VERSION, Generation

MARKER = ".coldstream.json"
# A job is what its first exit file says.
EXIT_FILES = {
    "Succeeded": "RELION_JOB_EXIT_SUCCESS",
    "Failed": "RELION_JOB_EXIT_FAILURE",
    "Aborted": "RELION_JOB_EXIT_ABORTED",
}
ABORT_NOW = "RELION_JOB_ABORT_NOW"
_CONTINUE = "rlnJobIsContinue"


def exit_status(folder: Path) -> str | None:
    """Return how the job ended by its exit files, None while there are none."""
    found = (status for status, name in EXIT_FILES.items() if (folder / name).exists())
    return next(found, None)


def write_exit(folder: Path, status: str) -> None:
    """Leave the exit file of one status as the only one."""
    for other, name in EXIT_FILES.items():
        if other != status:
            (folder / name).unlink(missing_ok=True)
    if not (folder / EXIT_FILES[status]).exists():
        (folder / EXIT_FILES[status]).touch()
        sync_folder(folder)


def clear_control_files(folder: Path) -> None:
    """Remove the three exit files and the request to abort, as before each launch."""
    for name in (*EXIT_FILES.values(), ABORT_NOW):
        (folder / name).unlink(missing_ok=True)


def write_job_star(folder: Path, job: JobFile, generation: Generation) -> None:
    """Write `job.star` with all options if it says something else.

    A job that continues goes on doing so, whatever `job` says.
    """
    path = folder / "job.star"
    is_continue = path.exists() and _load(path)["job"].columns.get(_CONTINUE) == ["1"]
    options, _ = job.type.complete(job.options)
    if generation == "3.1":  # knows the type by number, and warns of the other fields
        what = {"rlnJobType": pipeline31.job_number(job.label), _CONTINUE: int(is_continue)}
        tables = {
            "job": star.Table.of(what, loop=False),
            "joboptions_values": option_table(options),
        }
        text = star.dumps(tables, STAR_VERSION[generation])
    else:
        whole = structs.replace(job, options=options, is_continue=is_continue)
        text = whole.dumps(STAR_VERSION[generation])
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        atomic_write(path, text)


def set_continue(folder: Path, is_continue: bool, generation: Generation) -> None:
    """Say in `job.star` whether the job goes on with what its folder holds."""
    path = folder / "job.star"
    tables = _load(path)
    if tables["job"].columns.get(_CONTINUE) != [str(int(is_continue))]:
        tables["job"].columns[_CONTINUE] = [str(int(is_continue))]
        star.save(path, tables, STAR_VERSION[generation])


def append_note(folder: Path, command: str) -> None:
    """Note a launch in `note.txt`, which belongs to the user: only ever appended to."""
    lines = f"{command}\n" if command else ""
    with open(folder / "note.txt", "a", encoding="utf-8") as note:
        note.write(f"\n ++++ Executing new job on {time.ctime()}\n")
        note.write(f" ++++ with the following command(s): \n{lines} ++++ \n")


class DeclaredNode(NamedTuple):
    """A file that a job declares as its output."""

    name: str
    label: str
    depth: int = 1


def declared_nodes(folder: Path) -> Iterator[DeclaredNode]:
    """Yield what `RELION_OUTPUT_NODES.star` declares, in labels of RELION 5 or in numbers of 3.1.

    Raises
    ------
    ProjectError
        The file cannot be read; names it.
    """
    path = folder / "RELION_OUTPUT_NODES.star"
    try:
        table = star.load(path).get("output_nodes", star.Table())
        if len(table) == 0:
            return
        pipeline31.nodes_to_labels(table, "rlnPipeLineNodeName", pipeline31.Remembered())
        depths = table.columns.get("rlnPipeLineNodeTypeLabelDepth", ["1"] * len(table))
        rows = zip(
            table.strings("rlnPipeLineNodeName"),
            table.strings("rlnPipeLineNodeTypeLabel"),
            map(int, depths),
            strict=True,
        )
        yield from map(DeclaredNode._make, rows)
    except FileNotFoundError:
        return
    except (star.StarError, ProjectError, ValueError) as error:
        raise ProjectError(f"{path}: {error}") from None


def remove_leftovers(folder: Path, names: Collection[str]) -> None:
    """Remove unfinished copies of files that a killed writer left; only one may write `names`."""
    for path in folder.glob(".*.tmp"):
        if path.name[1:].rpartition(".tmp")[0].rpartition(".")[0] in names:
            path.unlink(missing_ok=True)


class Claims:
    """Which job folder was made for which visit of which node: a file in each such folder.

    The file is written before the row in the pipeline, so a call that is repeated after a crash
    finds its folder again. Folders are read once; later calls read only those added since.

    Parameters
    ----------
    root
        Project folder.
    """

    def __init__(self, root: Path):
        self._root = root
        self._known: dict[tuple[str, bytes], str] = {}  # (folder, content) -> process
        self._read_below: dict[str, int] = {}  # folder -> number of the first job not read yet

    def find(
        self, folder: str, claim: Mapping[str, str], counter: int, rows: Collection[str]
    ) -> str:
        """Return the process that carries this claim, or a new number's with the claim on it.

        Parameters
        ----------
        folder
            Folder of the job type, `MotionCorr`.
        claim
            Who asks; the same call has the same words.
        counter
            Number of the next job in the pipeline.
        rows
            Processes in the pipeline.
        """
        content = json.dumps(claim).encode()
        self._read(folder, counter)
        process = self._known.get((folder, content))
        if process is not None and self._is_mine(process, content, rows):
            return process
        number = counter
        while self._is_taken(number, rows):
            process = _process(folder, number)
            if self._is_mine(process, content, rows):
                return process
            number += 1
        process = _process(folder, number)
        atomic_write(self._root / process / MARKER, content)
        self._known[folder, content] = process
        return process

    def _is_mine(self, process: str, content: bytes, rows: Collection[str]) -> bool:
        """Return whether this claim holds; give it up if a RELION program took the number.

        That happens when a crash came between the claim and the pipeline's row. (With a row of its
        own the job stays: RELION chooses a number before it has the lock, and two may be alike.)
        """
        if self._marker(process) != content:
            return False
        ending = process[process.rindex("/job") :]
        if process not in rows and any(row.endswith(ending) for row in rows):
            (self._root / process / MARKER).unlink()
            return False
        return True

    def _read(self, folder: str, counter: int) -> None:
        """Read the claims below `counter` that were not read yet."""
        first = self._read_below.get(folder, 0)
        if first == 0:
            numbers = sorted(job_number(f"{folder}/{name}/") for name in self._jobs(folder))
        else:
            numbers = range(first, counter)
        for number in numbers:
            process = _process(folder, number)
            if number < counter and (content := self._marker(process)) is not None:
                self._known[folder, content] = process
        self._read_below[folder] = max(first, counter)

    def _jobs(self, folder: str) -> list[str]:
        try:
            return [name for name in os.listdir(self._root / folder) if name.startswith("job")]
        except FileNotFoundError:
            return []

    def _marker(self, process: str) -> bytes | None:
        try:
            return (self._root / process / MARKER).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _is_taken(self, number: int, rows: Collection[str]) -> bool:
        """Return whether this number is a row's, or a job folder's with a claim or any files.

        An empty folder, or one with an unfinished temporary file, is the rest of a claim that a
        crash interrupted: it may be used.
        """
        if f"/job{number:03d}/\n" in "\n".join((*rows, "")):
            return True
        with os.scandir(self._root) as entries:
            # Links lead to the raw data, on another file system.
            folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        return any(
            name == MARKER or not name.startswith(".")
            for folder in folders
            for name in _names(f"{folder}/job{number:03d}")
        )


def job_number(process: str) -> int:
    """Return the job number in a process name, 0 if it is not named as RELION does."""
    digits = process.rstrip("/").rpartition("/job")[2]
    return int(digits) if digits.isdecimal() else 0


def _process(folder: str, number: int) -> str:
    return f"{folder}/job{number:03d}/"


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _load(path: Path) -> dict[str, star.Table]:
    try:
        tables = star.load(path)
    except FileNotFoundError:
        raise ProjectError(
            f"{path} is missing; copy it from a job of the same type, or delete the job"
        ) from None
    except star.StarError as error:
        raise ProjectError(str(error)) from None
    if "job" not in tables:
        raise ProjectError(f"{path}: no block data_job: not a job.star")
    return tables
