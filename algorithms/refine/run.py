"""A whole run: iterations one after another, their files, and going on where a run was stopped.

All that is drawn in an iteration follows from the seed and the number of the iteration, and all
that an iteration needs is in the files of the one before, or in a state file beside them: a run
that was killed ends as one that was not.

Source: refinement.md sections 4.1, 4.8, 4.9 and 8.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algorithms.formats import star
from algorithms.formats.atomic import atomic_write
from algorithms.refine import files, iteration, schedule, start, written
from algorithms.refine.accuracy import accuracies
from algorithms.refine.expectation import Work
from algorithms.refine.sampling import Sampling
from algorithms.refine.sums import Sums
from algorithms.refine.tables import tables
from algorithms.refine.types import DataSet, Model, Moments, Options, Particles, RefineError

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
        `particles.star`, or the `_data.star` of an iteration.
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
        self._tell, self._sampling = tell, sampling
        self._blocks = star.load(particles)
        self.data = files.read_data(particles, project)
        self.group_names = files.group_names(self._blocks["particles"])
        check(self.data, options)
        self.model = self._resumed() or self._started()

    def run(self) -> Model:
        """Do all iterations that are left; return the model."""
        while self.model.iteration < self.options.iterations:
            self.step()
        return self.model

    def step(self) -> Sums:
        """Do one iteration and write what is to be written."""
        model, options = self.model, self.options
        number = model.iteration + 1
        random = np.random.default_rng((options.seed, number))
        model.sampling = model.sampling.perturbed(random)
        subset = self._subset(number, random)
        if number == 1 or number % 10 == 0 or number == options.iterations:
            lookup = tables(model, options)
            accuracies(Work(self.data, model, options, lookup), random)
        size = len(subset)

        def told(done: int) -> None:
            self._tell(Progress(number, options.iterations, size, done))

        sums = iteration.iterate(self.data, model, options, subset, self.device, told)
        verify(model, sums, size)
        resolution = model.box * model.pixel_A / model.resolution_shell
        self._tell(
            Progress(number, options.iterations, size, size, model.log_likelihood, resolution)
        )
        if self.writes(number, size):
            self.write()
        self._keep()
        return sums

    def writes(self, number: int, size: int) -> bool:
        """Tell whether an iteration's files are written."""
        whole = size == len(self.data)
        return not self.options.gradient or number % WRITE_EVERY == 0 or whole

    def write(self) -> Path:
        """Write the files of the present iteration; return their root."""
        suffix = f"_it{self.model.iteration:03d}"
        root = self.root.with_name(self.root.name + suffix)
        written.write_iteration(
            root, self.name + suffix, self._blocks, self.data, self.model, self.options
        )
        return root

    def _subset(self, number: int, random: np.random.Generator) -> np.ndarray:
        n = len(self.data)
        if not self.options.gradient:
            return np.arange(n)
        size = schedule.batch_size(number, self.options.iterations, n, self.options.n_classes)
        if size >= n:
            return np.arange(n)
        return np.sort(random.permutation(n)[:size])

    # ---- begin, and go on

    def _started(self) -> Model:
        model = start.start(self.data, self.options, self._sampling, self.group_names)
        self.model = model
        self.write()
        return model

    def _state_file(self) -> Path:
        return self.root.with_name(f".{self.root.name}_state.pt")

    def _keep(self) -> None:
        """Write all that the next iteration needs, exactly."""
        buffer = io.BytesIO()
        particles = {name: getattr(self.data.particles, name) for name in _WRITTEN}
        torch.save(
            {
                "model": _plain(self.model),
                "moments": None if self.model.moments is None else vars(self.model.moments),
                "particles": {name: torch.as_tensor(v) for name, v in particles.items()},
                "n": len(self.data),
                "options": self._begun_with(),
            },
            buffer,
        )
        atomic_write(self._state_file(), buffer.getvalue())

    def _begun_with(self) -> str:
        """Return what a run must not change; EM may go on for more iterations."""
        iterations = self.options.iterations if self.options.gradient else 0
        return repr(replace(self.options, iterations=iterations, batch=0, memory_bytes=0))

    def _resumed(self) -> Model | None:
        """Return the model of a run that was stopped, None when there is none.

        Raises
        ------
        RefineError
            It was begun with other particles or options.
        """
        path = self._state_file()
        if not path.exists():
            return None
        kept = torch.load(path, weights_only=True)
        if (kept["n"], kept["options"]) != (len(self.data), self._begun_with()):
            raise RefineError(
                f"{path.parent} holds a run of other particles or options: begin a new job"
            )
        for name, values in kept["particles"].items():
            getattr(self.data.particles, name)[:] = values.numpy()
        return _model(kept["model"], kept["moments"])


_WRITTEN = ("psi_deg", "offset_A", "classes", "norm", "log_likelihood", "pmax", "significant")


def _plain(model: Model) -> dict[str, Any]:
    values = {name: value for name, value in vars(model).items() if name != "moments"}
    return values | {"sampling": dict(vars(model.sampling))}


def _model(values: dict[str, Any], moments: dict[str, Any] | None) -> Model:
    fields: dict[str, Any] = dict(values)
    fields["sampling"] = Sampling(**values["sampling"])
    return Model(**fields, moments=None if moments is None else Moments(**moments))


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
