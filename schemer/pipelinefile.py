"""`default_pipeline.star` on disk: read whole, changed under the lock, replaced in one step.

Every change starts from the file as it is now, so what a RELION program wrote meanwhile is kept.
Source: schemes.md sections 7 and 11.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from algorithms.formats import star
from algorithms.formats.atomic import atomic_write
from schemer import browser, jobfolder, lock
from schemer.errors import ProjectError
from schemer.jobs.labels import STAR_VERSION, Generation
from schemer.pipeline import Pipeline, Remembered

_LOOKS, _LOOK_S = 20, 0.05  # patience with a RELION program that writes while we only read


class PipelineFile:
    """The pipeline file of one project.

    Parameters
    ----------
    root
        Project folder.
    generation
        Whose labels to write; None keeps to those of the file.
    retry_s, tries
        Patience with RELION's lock.
    """

    def __init__(self, root: Path, generation: Generation | None, retry_s: float, tries: int):
        self.path = root / "default_pipeline.star"
        self._root = root
        self._wanted: Generation | None = generation
        self._retry_s, self._tries = retry_s, tries
        self._kept: tuple[bytes | None, Pipeline] | None = None  # the file as last seen

    def lock(self) -> AbstractContextManager[bool]:
        """Return a context manager that holds the right to change the file."""
        return lock.pipeline_lock(self._root, retry_s=self._retry_s, tries=self._tries)

    def read(self) -> Pipeline:
        """Return the pipeline as it is now, for reading.

        RELION writes the file piece by piece under its lock, so it is not read meanwhile.
        """
        content = None
        for _ in range(_LOOKS):
            before, foreign = self._stamp(), lock.is_foreign(self._root)
            content = self._content()
            if not foreign and self._stamp() == before and not lock.is_foreign(self._root):
                break
            time.sleep(_LOOK_S)
        return self._parsed(content)

    @contextmanager
    def change(self) -> Iterator[Pipeline]:
        """Hold the lock and give the pipeline as it is now; write it if it was changed."""
        with self.lock() as interrupted:
            if interrupted:
                jobfolder.remove_leftovers(self._root, [self.path.name])
            content, pipeline = self._load()
            yield pipeline
            if pipeline.changed:
                self.write(pipeline)
            elif self._kept is None:
                self._kept = (content, pipeline)

    def write(self, pipeline: Pipeline) -> None:
        """Replace the file; the lock is held."""
        generation = self.generation(pipeline)
        if generation == "3.1":
            remembered = msgspec.json.encode(pipeline.remember())
            path = self._remembered_path
            if not path.exists() or path.read_bytes() != remembered:
                atomic_write(path, remembered)
        text = star.dumps(pipeline.tables(generation), STAR_VERSION[generation])
        atomic_write(self.path, text)
        (self._root / ".pipeline_has_changed").touch()
        pipeline.changed = False
        pipeline.generation = generation
        self._kept = (text.encode(), pipeline)

    def generation(self, pipeline: Pipeline) -> Generation:
        """Return for which version of RELION this pipeline is written."""
        return self._wanted or pipeline.generation or "5.0"

    def _load(self) -> tuple[bytes | None, Pipeline]:
        """Return the file and what it says, for a change; the lock is held."""
        kept, self._kept = self._kept, None  # a change that fails must not leave half of itself
        content = self._content()
        if kept is not None and kept[0] == content:
            return kept
        pipeline = self._parsed(content)
        browser.repair_links(self._root, pipeline)
        return content, pipeline

    def _content(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def _parsed(self, content: bytes | None) -> Pipeline:
        if content is None:
            return Pipeline()
        return Pipeline.loads(content, str(self.path), self._remembered())

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    @property
    def _remembered_path(self) -> Path:
        return self._root / ".coldstream" / "labels.json"

    def _remembered(self) -> Remembered:
        path = self._remembered_path
        try:
            return msgspec.json.decode(path.read_bytes(), type=Remembered)
        except FileNotFoundError:
            return Remembered()
        except msgspec.DecodeError as error:
            raise ProjectError(
                f"{path}: {error}; remove the file: no more than details of labels are lost"
            ) from None
