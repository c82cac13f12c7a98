"""A whole run: iterations one after another, their files, and going on where a run was stopped.

All that is drawn in an iteration follows from the seed and the number of the iteration, and all
that an iteration needs is in the files of the one before, or in a state file beside them: a run
that was killed ends as one that was not.

Source: refinement.md sections 4.1, 4.8, 4.9 and 8.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from algorithms.formats import star
from algorithms.refine import (
    continued,
    files,
    iteration,
    joining,
    kept,
    schedule,
    start,
    written,
)
from algorithms.refine.accuracy import accuracies
from algorithms.refine.continued import Before
from algorithms.refine.expectation import Work
from algorithms.refine.kept import Kept
from algorithms.refine.sampling import Sampling
from algorithms.refine.shards import Shards
from algorithms.refine.sums import Sums
from algorithms.refine.tables import tables
from algorithms.refine.types import DataSet, Model, Options, Particles, RefineError

WRITE_EVERY = 10  # iterations of VDAM
INVARIANT = 1e-3


@dataclass(frozen=True)
class Progress:
    """What an iteration is about to do, or has done."""

    iteration: int
    iterations: int
    particles: int
    done: int
    log_likelihood: float = 0.0
    resolution_A: float = 0.0


class Run:
    """A run in a folder.

    Parameters
    ----------
    particles
        `particles.star`; or the `_optimiser.star` of an iteration, which the run goes on from.
    root
        `.../run`: files are `<root>_itNNN_*`.
    name
        The root as the project names it.
    project
        What the stacks' paths are relative to.
    options, sampling
        What is to be done.
    device
        Where the E-step runs.
    tell
        Is called with the progress.
    """

    def __init__(
        self,
        particles: Path,
        root: Path,
        name: str,
        project: Path,
        options: Options,
        sampling: Sampling,
        device: str = "cpu",
        tell: Callable[[Progress], None] = lambda progress: None,
    ):
        self.root, self.name, self.options, self.device = root, name, options, device
        self.shards: Shards | None = None  # processes that share the E-step
        self._tell, self._sampling = tell, sampling
        self._before = continued.read(particles) if continued.is_optimiser(particles) else None
        self._table, self._project = self._before.data if self._before else particles, project
        self._blocks, self.data = self._read()
        self._keys = joining.keys_of(self._blocks["particles"])
        check(self.data, options)
        self.model = self._resumed() or self._begun()

    @property
    def finished(self) -> bool:
        """Whether all iterations are done."""
        return self.model.iteration >= self.options.iterations

    def run(self) -> Model:
        """Do all iterations that are left; return the model."""
        while not self.finished:
            self.step()
        return self.model

    def step(self) -> Sums:
        """Do one iteration and write what is to be written."""
        model, options = self.model, self.options
        number = model.iteration + 1
        random = np.random.default_rng((options.seed, number))
        model.sampling = model.sampling.perturbed(random)
        subset = self._subset(number, random)
        size = len(subset)
        if number == 1 or number % 10 == 0 or self._is_last():
            self._measure(random)

        def told(done: int) -> None:
            self._tell(Progress(number, options.iterations, size, done))

        only = self._only_class(number)
        sums = iteration.iterate(
            self.data, model, options, subset, self.device, told, self.shards, only
        )
        verify(model, sums, size)
        resolution = model.box * model.pixel_A / model.resolution_shell
        self._tell(
            Progress(number, options.iterations, size, size, model.log_likelihood, resolution)
        )
        if self.writes(number, size):
            self.write()
        self._keep()
        return sums

    def _measure(self, random: np.random.Generator) -> None:
        """Find how well poses can be known."""
        lookup = tables(self.model, self.options)
        accuracies(Work(self.data, self.model, self.options, lookup), random)

    def _only_class(self, number: int) -> np.ndarray | None:
        """Return the class that each particle is compared with; None: all."""
        return None

    def writes(self, number: int, size: int) -> bool:
        """Tell whether an iteration's files are written."""
        whole = size == len(self.data)
        return not self.options.gradient or number % WRITE_EVERY == 0 or whole

    def write(self) -> Path:
        """Write the files of the present iteration; return their root."""
        suffix = suffix_of(self.model.iteration)
        root = self.root.with_name(self.root.name + suffix)
        written.write_iteration(
            root, self.name + suffix, self._blocks, self.data, self.model, self.options
        )
        return root

    def _subset(self, number: int, random: np.random.Generator) -> np.ndarray:
        n = len(self.data)
        if not self.options.gradient:
            return np.arange(n)
        size = self._batch(number)
        if size >= n:
            return np.arange(n)
        return np.sort(random.permutation(n)[:size])

    def _batch(self, number: int) -> int:
        options = self.options
        return schedule.batch_size(number, options.iterations, len(self.data), options.n_classes)

    def _is_last(self) -> bool:
        return self.model.iteration + 1 == self.options.iterations

    # ---- begin, and go on

    def _read(self) -> tuple[dict[str, star.Table], DataSet]:
        blocks = star.load(self._table)
        return blocks, files.data_of(blocks, self._table, self._project)

    def _begun(self) -> Model:
        names = files.group_names(self._blocks["particles"])
        if self._before is not None:
            return self._continued(self._before, names)
        self.model = self._first_model(names)
        self.write()
        return self.model

    def _first_model(self, names: list[str]) -> Model:
        return start.start(self.data, self.options, self._sampling, names)

    def _continued(self, before: Before, names: list[str]) -> Model:
        """Return the model of another run's iteration."""
        model, rows = before.model(), self._blocks["particles"]
        perturbed = model.sampling
        model.sampling = replace(
            self._sampling, perturbation=perturbed.perturbation, factor=perturbed.factor
        )
        if "rlnGroupNumber" in rows.columns:
            self.data.particles.group = rows.ints("rlnGroupNumber") - 1
        is_missing = self.data.particles.group.max() >= len(model.scales)
        if is_missing or len(model.noise) < len(self.data.optics):
            raise RefineError(
                f"{before.data} has groups or optics groups that its _model.star does not have"
            )
        return model

    def _state_file(self) -> Path:
        return self.root.with_name(f".{self.root.name}_state.pt")

    def _keep(self) -> None:
        """Write all that the next iteration needs, exactly."""
        particles = joining.known(self.data, self._keys)
        kept.save(self._state_file(), Kept(self.model, particles, self._begun_with()))

    def _begun_with(self, told: Callable[[object], str] = kept.told) -> str:
        """Return what a run must not change; EM may go on for more iterations."""
        iterations = self.options.iterations if self.options.gradient else 0
        options = replace(self.options, iterations=iterations, batch=0, memory_bytes=0)
        return told(options) + (
            f" {self._before.root.parent.name}/{self._before.root.name}" if self._before else ""
        )

    def _resumed(self) -> Model | None:
        """Return the model of a run that was stopped, None when there is none.

        Raises
        ------
        RefineError
            It was begun with other particles or options.
        """
        found = kept.load(self._state_file())
        # Older states name all options, by `repr`.
        is_same = found is not None and (
            found.begun_with in (self._begun_with(), self._begun_with(repr))
        )
        if found is None or (self._before and not is_same):
            return None  # whoever goes on from an iteration leaves what came after it
        if not is_same or not self._takes(found.particles.keys):
            raise RefineError(
                f"{self.root.parent} holds a run of other particles or options: begin a new job"
            )
        self._join(found.model, found.particles)
        return found.model

    def _takes(self, keys: np.ndarray) -> bool:
        """Tell whether a run of the particles `keys` is one of ours."""
        return np.array_equal(keys, self._keys)

    def _join(self, model: Model, before: joining.Known) -> joining.Change:
        names = files.group_names(self._blocks["particles"])
        return joining.join(model, before, self.data, self._keys, names)


def suffix_of(number: int) -> str:
    """Return the end of an iteration's file names."""
    return f"_it{number:03d}"


def check(data: DataSet, options: Options) -> None:
    """Refuse particles that cannot be classified.

    Raises
    ------
    RefineError
        Names what is wrong and the remedy.
    """
    box = data.images.box
    if box % 2 or box < 16:
        raise RefineError(f"images of {box} px: the box has to be even, and at least 16 px")
    if options.particle_diameter_A > box * data.pixel_A:
        raise RefineError(
            f"particle_diameter {options.particle_diameter_A:g} A is larger than the box of "
            f"{box * data.pixel_A:g} A: give a smaller one, or extract with a larger box"
        )
    if len(data) < options.n_classes:
        raise RefineError(
            f"{len(data)} particles cannot make {options.n_classes} classes: ask for fewer"
        )
    particles: Particles = data.particles
    no_ctf = np.flatnonzero(~np.isfinite(particles.defocus_u_A) | (particles.defocus_u_A == 0.0))
    if options.ctf and len(no_ctf):
        raise RefineError(
            f"particle {no_ctf[0] + 1} (of {len(no_ctf)} such) has no defocus: estimate the CTF "
            "first, or switch CTF correction off"
        )


def verify(model: Model, sums: Sums, size: int) -> None:
    """Check what always holds after an iteration.

    Raises
    ------
    RefineError
        A number is not finite, classes do not add up, or a particle has no weight.
    """
    for name in ("references", "noise", "fractions", "scales", "ssnr"):
        if not bool(torch.isfinite(getattr(model, name)).all()):
            raise RefineError(f"iteration {model.iteration}: {name} are not finite; stopped")
    if abs(float(model.fractions.sum()) - 1.0) > INVARIANT:
        raise RefineError(f"iteration {model.iteration}: class fractions do not sum to 1; stopped")
    if float(sums.particles) != size or float(sums.total) < 0.998 * size:
        raise RefineError(f"iteration {model.iteration}: a particle has no class; stopped")
