"""A whole auto-refinement: iterations until nothing improves, their files, and going on.

All that is drawn in an iteration follows from the seed and its number, and all that the next one
needs is in state files beside the others: a run that was killed ends as one that was not.

Source: refinement.md sections 5 and 8.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from algorithms.formats import star
from algorithms.refine import files, joining, kept
from algorithms.refine.auto import halves, rules, saved, step, written
from algorithms.refine.auto.begin import begun
from algorithms.refine.auto.course import Course
from algorithms.refine.auto.rules import State
from algorithms.refine.auto.saved import Saved
from algorithms.refine.auto.settings import Settings
from algorithms.refine.auto.step import Half, Made
from algorithms.refine.kept import Kept
from algorithms.refine.run import Progress, check
from algorithms.refine.shards import Shards
from algorithms.refine.types import DataSet, Model, Options, RefineError


class AutoRun:
    """An auto-refinement in a folder.

    Parameters
    ----------
    particles
        `particles.star`.
    root
        `.../run`: files are `<root>_itNNN_*`, and `<root>_*` in the end.
    name
        The root as the project names it.
    project
        What the stacks' paths are relative to.
    options, settings
        What is to be done.
    device
        Where the E-step runs.
    tell
        Is called with the progress.

    Raises
    ------
    RefineError
        Particles, reference or mask cannot be used, or the folder holds another run.
    """

    def __init__(
        self,
        particles: Path,
        root: Path,
        name: str,
        project: Path,
        options: Options,
        settings: Settings,
        device: str = "cpu",
        tell: Callable[[Progress], None] = lambda progress: None,
    ):
        self.root, self.name, self.options, self.settings = root, name, options, settings
        self.device, self._tell, self._project = device, tell, project
        self.shards: Shards | None = None  # processes that share the E-step
        self._blocks = star.load(particles)
        self.data: DataSet = files.data_of(self._blocks, particles, project)
        check(self.data, options)
        self.subset = self._assigned(particles)
        self._keys = joining.keys_of(self._blocks["particles"])
        self._names = files.group_names(self._blocks["particles"])
        self.course = self._resumed() or self._begun()

    @property
    def model(self) -> Model:
        """The model of the first half; after the last iteration that of all particles."""
        return self.course.model

    @property
    def finished(self) -> bool:
        """Whether the last iteration is done."""
        return self.course.state.converged

    @property
    def iteration(self) -> int:
        """Iterations that are done."""
        return self.model.iteration

    def run(self) -> Model:
        """Do all iterations that are left; return the model of all particles."""
        while not self.finished:
            self.step()
        return self.model

    def step(self) -> Made:
        """Do one iteration and write its files."""
        number, course = self.iteration + 1, self.course
        course.prepare(number, np.random.default_rng((self.options.seed, number)))
        before = course.poses()

        def told(done: int, likelihood: float = 0.0, resolution_A: float = 0.0) -> None:
            limit = self.options.iterations
            self._tell(Progress(number, limit, len(self.data), done, likelihood, resolution_A))

        made = step.iterate(
            self.data, course.pair, self.options, course.plan(), self.device, told, self.shards
        )
        course.judge(number, made, before)
        self._write(made)
        self._keep()
        told(len(self.data), self.model.log_likelihood, course.resolutions_A[-1])
        return made

    def _write(self, made: Made) -> None:
        blocks = written.halves_of(self._blocks, self.subset)
        written.write(self.root, self.name, blocks, self.course, made)

    # ---- begin, and go on

    def _assigned(self, particles: Path) -> np.ndarray:
        rows = self._blocks["particles"]
        given = None
        if "rlnRandomSubset" in rows.columns:
            given = np.asarray(rows.ints("rlnRandomSubset"))
        return halves.assigned(given, len(self.data), self.options.seed, particles.name)

    def _begun(self) -> Course:
        members = [int((self.subset == half).sum()) for half in (1, 2)]
        pair = begun(self.data, self.options, self.settings, self._names, members)
        if self.settings.mask is not None:
            for half in pair:
                half.mask_name = os.path.relpath(self.settings.mask, self._project)
        model = pair[0]
        edge_A = model.box * model.pixel_A
        course = self._course(pair, rules.resolved(State(), model.resolution_shell / edge_A))
        self.course = course
        self._write(Made(fsc=torch.zeros(model.box // 2 + 1)))
        return course

    def _course(self, models: tuple[Model, Model], state: State) -> Course:
        rows = self._blocks["particles"]
        first, second = (
            Half(model=model, members=np.flatnonzero(self.subset == half))
            for half, model in enumerate(models, 1)
        )
        return Course(
            data=self.data,
            options=self.options,
            settings=self.settings,
            pair=(first, second),
            state=state,
            had_classes="rlnClassNumber" in rows.columns and min(rows.ints("rlnClassNumber")) > 0,
        )

    def _begun_with(self, told: Callable[[object], str] = kept.told) -> str:
        """Return what a run must not change; a project may move."""
        options = replace(self.options, iterations=0, batch=0, memory_bytes=0)
        mask = self.settings.mask
        settings = replace(
            self.settings,
            reference=Path(self.settings.reference.name),
            mask=None if mask is None else Path(mask.name),
        )
        return f"{told(options)} {told(settings)}"

    def _keep(self) -> None:
        """Write all that the next iteration needs, exactly."""
        course, particles = self.course, joining.known(self.data, self._keys)
        first, second = (Kept(half.model, particles, self._begun_with()) for half in course.pair)
        saved.save(
            self.root,
            Saved(
                halves=(first, second),
                state=course.state,
                curves=course.curves,
                resolutions_A=course.resolutions_A,
            ),
        )

    def _resumed(self) -> Course | None:
        """Return the course of a run that was stopped, None when there is none.

        Raises
        ------
        RefineError
            It was begun with other particles or options.
        """
        found = saved.load(self.root)
        if found is None:
            return None
        first, second = found.halves
        is_same = np.array_equal(first.particles.keys, self._keys)
        # Older states name all options, by `repr`.
        if not is_same or first.begun_with not in (self._begun_with(), self._begun_with(repr)):
            raise RefineError(
                f"{self.root.parent} holds a run of other particles or options: begin a new job"
            )
        for half in found.halves:
            joining.join(half.model, half.particles, self.data, self._keys, self._names)
        course = self._course((first.model, second.model), found.state)
        course.curves, course.resolutions_A = found.curves, found.resolutions_A
        return course
