"""A whole run that makes an initial model from nothing, by VDAM in three dimensions.

Source: refinement.md sections 2.7, 4.1, 4.9 and 4.10.
"""

from dataclasses import replace

import numpy as np

from algorithms.refine import schedule
from algorithms.refine.accuracy import measure
from algorithms.refine.auto import rules
from algorithms.refine.auto.rules import Changes, Rules, State, Steps
from algorithms.refine.run import Run
from algorithms.refine.sizes import current_size
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.sums import Sums
from algorithms.refine.tables import reference_of

SAMPLING_EVERY = 10  # iterations; before the first of them a lack of progress does not count
FINEST_ORDER = 3  # of the coarse grid: one finer, and searches would have to be local
FIRST_ORDER, PSI_STEP_DEG = 1, 30.0
OFFSET_RANGE_PX, OFFSET_STEP_PX = 6.0, 2.0


def first_sampling(pixel_A: float, symmetry: str) -> Sampling3D:
    """Return the coarse sampling that RELION's job begins with."""
    return Sampling3D(
        healpix_order=FIRST_ORDER,
        symmetry=symmetry,
        psi_step_deg=PSI_STEP_DEG,
        offset_range_A=OFFSET_RANGE_PX * pixel_A,
        offset_step_A=OFFSET_STEP_PX * pixel_A,
    )


class FirstModelRun(Run):
    """A run in a folder: as `Run`, with a sampling in three dimensions."""

    def step(self) -> Sums:
        """Do one iteration and write what is to be written."""
        particles = self.data.particles
        self._offsets, self._likelihood = particles.offset_A.copy(), particles.log_likelihood.copy()
        self._shell = self.model.resolution_shell
        return super().step()

    def _keep(self) -> None:
        """Judge what the iteration has changed, and write that with all the rest."""
        model, particles = self.model, self.data.particles
        took_part = particles.log_likelihood != self._likelihood
        if took_part.any():
            moved = (particles.offset_A - self._offsets)[took_part]
            model.moved_A = float(np.sqrt((moved**2).sum() / (2.0 * len(moved))))
        gained = model.resolution_shell > self._shell or model.iteration < SAMPLING_EVERY
        model.no_gain = 0 if gained else model.no_gain + 1
        super()._keep()

    def _batch(self, number: int) -> int:
        options = self.options
        return schedule.batch_size(number, options.iterations, len(self.data), options.n_classes, 3)

    def _measure(self, random: np.random.Generator) -> None:
        model = self.model
        reference = reference_of(model, current_size(model))
        everyone = np.arange(len(self.data))
        measure(self.data, model, self.options, reference, everyone, random)
        if model.iteration > 0 and (model.iteration + 1) % SAMPLING_EVERY == 0:
            self._take_finer_steps()

    def _take_finer_steps(self) -> None:
        """Search more finely once the resolution has stopped to grow, as far as that tells."""
        model, sampling = self.model, self.model.sampling
        assert isinstance(sampling, Sampling3D)  # noqa: S101
        if sampling.healpix_order >= FINEST_ORDER:
            return
        steps = Steps(
            order=sampling.healpix_order,
            offset_range_A=sampling.offset_range_A,
            offset_step_A=sampling.offset_step_A,
        )
        state = State(no_gain=model.no_gain, changes=Changes(shifted_A=model.moved_A))
        told = Rules(
            particle_diameter_A=self.options.particle_diameter_A,
            local_order=FINEST_ORDER + 1,
            oversampling=sampling.order,
            ignore_angles=True,
        )
        accuracy = float(model.accuracy_deg.min()), float(model.accuracy_A.min())
        state, finer = rules.refined(state, steps, *accuracy, told)
        if finer.order == steps.order:
            return
        model.no_gain = 0
        model.pdf_direction = None  # of other directions
        model.sampling = replace(
            sampling,
            healpix_order=finer.order,
            psi_step_deg=sampling.psi_step_deg / 2.0,
            offset_range_A=finer.offset_range_A,
            offset_step_A=finer.offset_step_A,
        )
