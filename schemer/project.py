"""The RELION project folder: jobs are made, started and finished so that RELION 4 and 5 agree.

Every change re-reads the pipeline under the lock, so rows that a RELION program wrote meanwhile
are kept; every file is replaced in one step. Source: schemes.md sections 9 to 12.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from algorithms.formats import star
from algorithms.formats.atomic import atomic_write
from schemer import lock
from schemer.errors import ProjectError
from schemer.jobs import Generation, JobFile, find
from schemer.jobs.labels import STAR_VERSION
from schemer.pipeline import Pipeline

_MARKER = ".coldstream.json"
_EXIT_FILES = {
    "Succeeded": "RELION_JOB_EXIT_SUCCESS",
    "Failed": "RELION_JOB_EXIT_FAILURE",
    "Aborted": "RELION_JOB_EXIT_ABORTED",
}
_ABORT_NOW = "RELION_JOB_ABORT_NOW"
Nodes = Sequence[tuple[str, str]]


class Project:
    """One project folder.

    Parameters
    ----------
    root
        The folder; made by `init` if missing.
    generation
        "5.0" writes RELION 5's node labels, "4.0" those that RELION 4 sites need.
    retry_s, tries
        Patience with RELION's lock, see `schemer.lock`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        generation: Generation = "5.0",
        retry_s: float = lock.RETRY_S,
        tries: int = lock.TRIES,
    ):
        self.root = Path(root)
        self.generation: Generation = generation
        self.version = STAR_VERSION[generation]
        self._patience = {"retry_s": retry_s, "tries": tries}

    @property
    def pipeline_path(self) -> Path:
        """Return the path of `default_pipeline.star`."""
        return self.root / "default_pipeline.star"

    def init(self) -> None:
        """Make an empty project, or do nothing to one that is there."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / ".gui_projectdir").touch()
        with self.lock():
            if not self.pipeline_path.exists():
                self._write(Pipeline())

    def lock(self) -> AbstractContextManager[None]:
        """Return a context manager that holds the right to change the pipeline file."""
        return lock.pipeline_lock(self.root, **self._patience)

    def pipeline(self) -> Pipeline:
        """Return the pipeline as it is on disk now, for reading."""
        return Pipeline.load(str(self.pipeline_path))

    def create_job(
        self,
        scheme_name: str,
        node: str,
        label: str,
        options: Mapping[str, str],
        inputs: Nodes,
        outputs: Nodes,
        *,
        visit: str = "",
    ) -> str:
        """Return the process of a Scheme's job node, made as *Scheduled* if it is not there.

        Repeating the call after a crash at any moment returns the same process and completes what
        is missing: the claim on the number is a file in the job folder, written before the
        pipeline's row. Repeating it with other options rewrites `job.star`.

        Parameters
        ----------
        scheme_name, node
            Who asks, `Schemes/prep/` and `motioncorr`.
        label
            Process label, `relion.motioncorr.own`; gives the folder and the known options.
        options
            Substituted and resolved; missing ones get RELION's default.
        inputs
            (path below the project, generic node label) of every file that the job reads.
        outputs
            (name in the job folder, node label) of every file it will make; labels of RELION 5.0.
        visit
            Distinguishes the visits of a node of mode `new`, each of which is a job of its own;
            empty for mode `continue`.

        Raises
        ------
        SchemeError
            Unknown job type.
        ProjectError
            The pipeline file cannot be read, or its lock cannot be had.
        """
        job_type = find(label)
        complete, _ = job_type.complete(options)
        claim = {"scheme": scheme_name, "node": node, "visit": visit}
        with self.lock():
            pipeline = self.pipeline()
            process = self._claim(pipeline, job_type.folder, claim)
            folder = self.root / process
            self._write_job_star(folder, label, complete)
            for name in ("run.out", "run.err", "note.txt"):
                (folder / name).touch()
            before = pipeline.tables(self.generation)
            unchanged = star.dumps(before)
            pipeline.add_process(process, label)
            for path, node_type in inputs:
                pipeline.add_input(process, path, node_type)
            for name, node_type in outputs:
                pipeline.add_output(process, process + name, node_type)
            pipeline.counter = max(pipeline.counter, _number(process) + 1)
            if star.dumps(pipeline.tables(self.generation)) != unchanged:
                self._write_job_pipeline(pipeline, process)
                self._write(pipeline)
            self._touch_nodes(pipeline, process)
        return process

    def set_status(self, process: str, status: str, *, command: str = "") -> None:
        """Start a job or mark it as finished.

        Parameters
        ----------
        process
            `MotionCorr/job002/`.
        status
            Running removes the exit files of an earlier run; Succeeded, Failed and Aborted leave
            theirs, and Succeeded takes over the nodes in RELION_OUTPUT_NODES.star.
        command
            What is run, for the job's note.txt.

        Raises
        ------
        ProjectError
            Another status word, or a process that the pipeline does not have (any more).
        """
        if status != "Running" and status not in _EXIT_FILES:
            words = ", ".join(("Running", *_EXIT_FILES))
            raise ProjectError(f"{process}: status {status!r} is not one of {words}")
        folder = self.root / process
        with self.lock():
            pipeline = self.pipeline()
            before = pipeline.processes.get(process)
            if before is None or not folder.is_dir():
                raise ProjectError(f"{process} is not in the project any more; was it deleted?")
            if status == "Running":
                self._launch(folder, before, command)
            else:
                self._finish(pipeline, process, status)
            pipeline.set_status(process, status)
            if status == "Running":
                self._write_job_pipeline(pipeline, process)
            self._write(pipeline)
            if status == "Running":
                atomic_write(
                    folder / self.pipeline_path.name, self.pipeline_path.read_bytes(), durable=False
                )
            self._touch_nodes(pipeline, process)

    # Claims

    def _claim(self, pipeline: Pipeline, folder: str, claim: dict[str, str]) -> str:
        """Return the process that carries this claim, or a new number's with the claim on it."""
        rows = {_number(process): process for process in pipeline.processes}
        for path in sorted(self.root.glob(f"{folder}/job*/{_MARKER}"), reverse=True):
            if json.loads(path.read_text(encoding="utf-8")) != claim:
                continue
            process = f"{folder}/{path.parent.name}/"
            if rows.get(_number(process), process) == process:
                return process
            # A crash came before the pipeline's row, and a RELION program took the number since.
            path.unlink()
        number = pipeline.counter
        while number in rows or self._is_taken(number):
            number += 1
        process = f"{folder}/job{number:03d}/"
        atomic_write(self.root / process / _MARKER, json.dumps(claim))
        return process

    def _is_taken(self, number: int) -> bool:
        """Return whether a job folder of this number holds a claim or anybody's files.

        An empty folder, or one with an unfinished temporary file, is the rest of a claim that a
        crash interrupted: it may be used.
        """
        folders = (
            one / f"job{number:03d}"
            for one in self.root.iterdir()
            if not one.is_symlink()  # the raw data, on another file system
        )
        return any(
            name == _MARKER or not name.startswith(".")
            for folder in folders
            if folder.is_dir()
            for name in os.listdir(folder)
        )

    # Files of one job

    def _write_job_star(self, folder: Path, label: str, options: dict[str, str]) -> None:
        path = folder / "job.star"
        is_continue = JobFile.load(path).is_continue if path.exists() else False
        text = JobFile(label, options, is_continue).dumps(self.version)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            atomic_write(path, text)

    def _write_job_pipeline(self, pipeline: Pipeline, process: str) -> None:
        tables = pipeline.only(process).tables(self.generation)
        star.save(self.root / process / "job_pipeline.star", tables, self.version, durable=False)

    def _launch(self, folder: Path, before: str, command: str) -> None:
        for name in (*_EXIT_FILES.values(), _ABORT_NOW):
            (folder / name).unlink(missing_ok=True)
        if before in _EXIT_FILES:  # it has run before, so it continues
            job = JobFile.load(folder / "job.star")
            text = JobFile(job.label, job.options, is_continue=True).dumps(self.version)
            atomic_write(folder / "job.star", text)
        if before != "Running":
            with open(folder / "note.txt", "a", encoding="utf-8") as note:
                note.write(f"\n ++++ Executing new job on {time.ctime()}\n")
                note.write(f" ++++ with the following command(s): \n{command}\n ++++ \n")

    def _finish(self, pipeline: Pipeline, process: str, status: str) -> None:
        folder = self.root / process
        for other, name in _EXIT_FILES.items():
            if other != status:
                (folder / name).unlink(missing_ok=True)
        atomic_write(folder / _EXIT_FILES[status], b"")
        if status == "Succeeded":
            for name, node_type in _declared_nodes(folder / "RELION_OUTPUT_NODES.star"):
                pipeline.add_output(process, name, node_type)

    def _touch_nodes(self, pipeline: Pipeline, process: str) -> None:
        """Make the empty files by which RELION's input browser finds this job's outputs."""
        scheduled = pipeline.processes[process] == "Scheduled"
        shown, labels = pipeline.alias(process), pipeline.nodes
        for name in pipeline.outputs(process):
            if scheduled or (self.root / name).exists():
                top = labels[name].partition(".")[0]
                mark = self.root / ".Nodes" / top / name.replace(process, shown, 1)
                if not mark.exists():
                    mark.parent.mkdir(parents=True, exist_ok=True)
                    mark.touch()

    def _write(self, pipeline: Pipeline) -> None:
        star.save(self.pipeline_path, pipeline.tables(self.generation), self.version)
        (self.root / ".pipeline_has_changed").touch()


def _number(process: str) -> int:
    """Return the job number in a process name, 0 if it is not named as RELION does."""
    digits = process.rstrip("/").rpartition("/job")[2]
    return int(digits) if digits.isdecimal() else 0


def _declared_nodes(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (path, label) of the nodes that a job declares for itself."""
    try:
        table = star.load(path).get("output_nodes", star.Table())
        if len(table):
            yield from zip(
                table.strings("rlnPipeLineNodeName"),
                table.strings("rlnPipeLineNodeTypeLabel"),
                strict=True,
            )
    except FileNotFoundError:
        return
    except star.StarError as error:
        raise ProjectError(f"{path}: {error}") from None
