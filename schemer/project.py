"""The RELION project folder: jobs are made, started and finished so that RELION agrees.

Every change re-reads the pipeline under the lock, so rows that a RELION program wrote meanwhile
are kept; every file is replaced in one step, and every call can be repeated after a crash.
Source: schemes.md sections 9 to 12.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from algorithms.formats import star
from algorithms.formats.atomic import atomic_write
from schemer import browser, jobfolder, lock
from schemer.errors import ProjectError
from schemer.jobfolder import EXIT_FILES, Claims
from schemer.jobs import JobFile
from schemer.jobs.labels import GENERATIONS, STAR_VERSION, Generation
from schemer.pipeline import Pipeline
from schemer.pipelinefile import PipelineFile

# Types whose outputs are named by iteration, so that a continued run makes other ones.
_ITERATED = tuple(
    f"relion.{name}" for name in ("class2d", "class3d", "refine3d", "initialmodel", "multibody")
)
Nodes = Sequence[tuple[str, str]]


class Project:
    """One project folder.

    Parameters
    ----------
    root
        The folder; made by `init` if missing.
    generation
        Whose pipeline to write: "5.0", "4.0" or "3.1", for a site's version of RELION. None keeps
        to what the pipeline file is, and to "5.0" in a new project.
    retry_s, tries
        Patience with RELION's lock, see `schemer.lock`; RELION 4 itself tries 40 times.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        generation: Generation | None = None,
        retry_s: float = lock.RETRY_S,
        tries: int = lock.TRIES,
    ):
        if generation is not None and generation not in GENERATIONS:
            raise ProjectError(f"generation {generation!r} is not one of {', '.join(GENERATIONS)}")
        self.root = Path(root)
        self._file = PipelineFile(self.root, generation, retry_s, tries)
        self._claims = Claims(self.root)

    @property
    def pipeline_path(self) -> Path:
        """Return the path of `default_pipeline.star`."""
        return self._file.path

    @property
    def generation(self) -> Generation:
        """Return the version of RELION that the pipeline is written for."""
        return self._file.generation(self.pipeline())

    def init(self) -> None:
        """Make an empty project, or do nothing to one that is there."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / ".gui_projectdir").touch()
        with self.lock():
            if not self.pipeline_path.exists():
                self._file.write(Pipeline())

    def lock(self) -> AbstractContextManager[bool]:
        """Return a context manager that holds the right to change the pipeline file."""
        return self._file.lock()

    def pipeline(self) -> Pipeline:
        """Return the pipeline as it is on disk now, for reading."""
        return self._file.read()

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
        is_tomo: bool = False,
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
        is_tomo
            It is the tomography form of its type, which has other options.

        Raises
        ------
        SchemeError
            Unknown job type.
        ProjectError
            The pipeline file cannot be read, or its lock cannot be had.
        """
        what = JobFile(label, dict(options), is_tomo=is_tomo)
        folder = what.type.folder
        claim = {"scheme": scheme_name, "node": node, "visit": visit}
        with self._file.change() as pipeline:
            rows = pipeline.processes
            process = self._claims.find(folder, claim, pipeline.counter, rows)
            pipeline.add_process(process, label)
            pipeline.counter = max(pipeline.counter, jobfolder.job_number(process) + 1)
            self._describe(pipeline, process, what, inputs, outputs)
        return process

    def update_job(
        self,
        process: str,
        label: str,
        options: Mapping[str, str],
        inputs: Nodes,
        outputs: Nodes,
        *,
        is_tomo: bool = False,
    ) -> None:
        """Write what a job has now that goes on in its folder: `job.star`, inputs and outputs.

        Parameters are those of `create_job`. Where outputs are named by iteration, those that
        do not exist and will not be made any more leave the pipeline, as in RELION.

        Raises
        ------
        ProjectError
            As for `create_job`, or the job is not there (any more).
        """
        what = JobFile(label, dict(options), is_tomo=is_tomo)
        with self._file.change() as pipeline:
            self._require(pipeline, process)
            self._describe(pipeline, process, what, inputs, outputs)

    def set_status(
        self,
        process: str,
        status: str,
        *,
        command: str = "",
        is_continue: bool | None = None,
        by_hand: bool = False,
    ) -> tuple[str, ...]:
        """Start a job or mark it as finished.

        Parameters
        ----------
        process
            `MotionCorr/job002/`.
        status
            Running removes the exit files of an earlier run; Succeeded, Failed and Aborted leave
            theirs, and Succeeded takes over the nodes in RELION_OUTPUT_NODES.star.
        command
            What is run, one line per command, for the job's note.txt.
        is_continue
            Whether a started job goes on with what its folder holds; None: if it has run before.
        by_hand
            A person marks the job as finished: outputs that it did not make leave the pipeline.

        Returns
        -------
        tuple
            Outputs that a job which succeeded did not make. Unless `by_hand`, they stay in the
            pipeline, and RELION warns of each.

        Raises
        ------
        ProjectError
            Another status word, a process that the pipeline does not have (any more), or a
            RELION_OUTPUT_NODES.star that cannot be read.
        """
        if status != "Running" and status not in EXIT_FILES:
            words = ", ".join(("Running", *EXIT_FILES))
            raise ProjectError(f"{process}: status {status!r} is not one of {words}")
        if status == "Running":
            self._start(process, command, is_continue)
            return ()
        with self._file.change() as pipeline:
            self._require(pipeline, process)
            jobfolder.write_exit(self.root / process, status)
            missing = self._finish(pipeline, process, status)
            if by_hand:
                self._remove(pipeline, process, missing)
        return missing

    def check_completion(self) -> dict[str, str]:
        """Mark each running job that left an exit file; return process -> status of those.

        So does an open RELION GUI. Costs a look at the folders of running jobs, no more.

        Raises
        ------
        ProjectError
            As for `set_status`.
        """
        if not self._ended(self.pipeline()):
            return {}
        with self._file.change() as pipeline:
            ended = self._ended(pipeline)
            for process, status in ended.items():
                self._finish(pipeline, process, status)
        return ended

    def set_alias(self, process: str, alias: str) -> str:
        """Give a job a name of its own, or take it away; return the alias folder.

        Parameters
        ----------
        process
            `MotionCorr/job002/`.
        alias
            The name, of which a link in the job type's folder is made; empty for none.

        Raises
        ------
        SchemeError
            A name that RELION would refuse.
        ProjectError
            A job that is not there, or a name that is taken.
        """
        name = f"{process.partition('/')[0]}/{browser.check_alias(alias)}/" if alias else ""
        with self._file.change() as pipeline:
            self._require(pipeline, process)
            old = pipeline.alias(process)
            holder = next((one for one, has in pipeline.aliases.items() if has == name), process)
            if holder != process:
                raise ProjectError(f"alias {name} belongs to {holder} already; choose another one")
            if name:
                browser.link_alias(self.root, process, name)
            pipeline.set_alias(process, name)
            if pipeline.changed:
                self._file.write(pipeline)
            gone = browser.remove_links(self.root, process, name)
            generation, outputs = self._file.generation(pipeline), pipeline.outputs(process)
            for shown in {old, process, *gone} - {pipeline.alias(process)}:
                browser.remove_marks(self.root, pipeline, generation, outputs, shown)
            browser.touch_nodes(self.root, pipeline, generation, outputs)
        return name or process

    def remake_nodes(self) -> None:
        """Bring `.Nodes`, RELION's file browser, to what the pipeline says."""
        with self._file.change() as pipeline:
            browser.remake(self.root, pipeline, self._file.generation(pipeline))

    def _require(self, pipeline: Pipeline, process: str) -> str:
        """Return the status of a job that has to be there."""
        status = pipeline.status(process)
        if status is None or not (self.root / process).is_dir():
            raise ProjectError(f"{process} is not in the project any more; was it deleted?")
        return status

    def _describe(
        self, pipeline: Pipeline, process: str, what: JobFile, inputs: Nodes, outputs: Nodes
    ) -> None:
        """Write what a job is: its own files, and its nodes in the pipeline."""
        folder, generation = self.root / process, self._file.generation(pipeline)
        jobfolder.write_job_star(folder, what, generation)
        for name in ("run.out", "run.err", "note.txt"):
            (folder / name).touch()
        if what.label.startswith(_ITERATED):
            coming = {process + name for name, _ in outputs}
            self._remove(pipeline, process, self._unmade(pipeline, process) - coming)
        for path, node_type in inputs:
            pipeline.add_input(process, path, node_type)
        for name, node_type in outputs:
            pipeline.add_output(process, process + name, node_type)
        if pipeline.changed:
            self._write_job_pipeline(pipeline, process)
        files = [*pipeline.inputs(process), *pipeline.outputs(process)]
        browser.touch_nodes(self.root, pipeline, generation, files)

    def _start(self, process: str, command: str, is_continue: bool | None) -> None:
        folder = self.root / process
        with self._file.change() as pipeline:
            before = self._require(pipeline, process)
            goes_on = before in EXIT_FILES if is_continue is None else is_continue
            if goes_on or is_continue is not None:  # a job that runs already stays as it is
                jobfolder.set_continue(folder, goes_on, self._file.generation(pipeline))
            jobfolder.clear_control_files(folder)
            if command or before != "Running":
                jobfolder.append_note(folder, command)
            pipeline.set_status(process, "Running")
            self._write_job_pipeline(pipeline, process)
            if pipeline.changed:
                self._file.write(pipeline)
            content = self.pipeline_path.read_bytes()
            atomic_write(folder / self.pipeline_path.name, content, durable=False)

    def _ended(self, pipeline: Pipeline) -> dict[str, str]:
        running = (one for one, status in pipeline.processes.items() if status == "Running")
        found = {process: jobfolder.exit_status(self.root / process) for process in running}
        return {process: status for process, status in found.items() if status is not None}

    def _finish(self, pipeline: Pipeline, process: str, status: str) -> tuple[str, ...]:
        """Set the status of a job that left its exit file; return outputs that do not exist."""
        pipeline.set_status(process, status)
        if status != "Succeeded":
            return ()
        generation = self._file.generation(pipeline)
        for declared in jobfolder.declared_nodes(self.root / process):
            pipeline.add_output(process, *declared)
            if generation == "3.1" and pipeline.maker(declared.name) == process:
                # RELION 3.1 takes over such nodes too, but cannot read their label.
                pipeline.relabel(declared.name, declared.label)
        browser.touch_nodes(self.root, pipeline, generation, pipeline.outputs(process))
        return tuple(sorted(self._unmade(pipeline, process)))

    def _unmade(self, pipeline: Pipeline, process: str) -> set[str]:
        return {name for name in pipeline.outputs(process) if not (self.root / name).exists()}

    def _remove(self, pipeline: Pipeline, process: str, names: Collection[str]) -> None:
        """Take files that a job did not make out of the pipeline and of the file browser."""
        generation, shown = self._file.generation(pipeline), pipeline.alias(process)
        browser.remove_marks(self.root, pipeline, generation, names, shown)
        pipeline.remove_nodes(names)

    def _write_job_pipeline(self, pipeline: Pipeline, process: str) -> None:
        generation = self._file.generation(pipeline)
        tables = pipeline.only(process).tables(generation)
        path = self.root / process / "job_pipeline.star"
        star.save(path, tables, STAR_VERSION[generation], durable=False)
