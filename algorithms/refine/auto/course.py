"""The course of an auto-refinement: what each iteration is to do, and what follows from it.

Source: refinement.md sections 2.6, 5.3 and 5.4.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from algorithms.orientation import healpix, symmetry
from algorithms.refine.accuracy import measure
from algorithms.refine.auto import rules
from algorithms.refine.auto.changes import changes
from algorithms.refine.auto.rules import State
from algorithms.refine.auto.settings import Settings, steps_of
from algorithms.refine.auto.step import Half, Made, Plan
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.tables import reference_of
from algorithms.refine.types import DataSet, Model, Options, RefineError


@dataclass(kw_only=True)
class Course:
    """Where a refinement is.

    Parameters
    ----------
    data, options, settings
        The particles, and what is to be done.
    pair
        Both halves; after the last iteration the first model is that of all particles.
    state
        Of the rules.
    had_classes
        Whether the particles had classes before the first iteration.
    curves, resolutions_A
        FSC and resolution of each iteration.
    """

    data: DataSet
    options: Options
    settings: Settings
    pair: tuple[Half, Half]
    state: State
    had_classes: bool = False
    curves: list[list[float]] = field(default_factory=list)
    resolutions_A: list[float] = field(default_factory=list)

    @property
    def model(self) -> Model:
        """The model of the first half."""
        return self.pair[0].model

    @property
    def sampling(self) -> Sampling3D:
        """The present sampling."""
        sampling = self.model.sampling
        assert isinstance(sampling, Sampling3D)  # noqa: S101
        return sampling

    def prepare(self, number: int, random: np.random.Generator) -> None:
        """Set window, perturbation and steps of an iteration.

        Parameters
        ----------
        number
            Of the iteration.
        random
            Of all that is drawn in it.
        """
        settled = number > 1 and rules.has_converged(self.state, self.settings.rules)
        is_last = settled or number >= self.options.iterations
        self.state = replace(self.state, converged=is_last)
        model = self.model
        size = rules.window(self.state, model.resolution_shell, model.box, model.mean_pmax)
        sampling = self.sampling.perturbed(random)
        for half in self.pair:
            half.model.window, half.model.sampling = size, sampling
        if self._by_correlation(number):
            return
        reference = reference_of(model, size)
        measure(self.data, model, self.options, reference, self.pair[0].members, random)
        if number > 1:
            self._refine_steps()
        other = self.pair[1].model
        other.accuracy_deg, other.accuracy_A = model.accuracy_deg, model.accuracy_A

    def _refine_steps(self) -> None:
        """Take finer steps where that is due."""
        accuracy = float(self.model.accuracy_deg.min()), float(self.model.accuracy_A.min())
        now = steps_of(self.sampling)
        self.state, steps = rules.refined(self.state, now, *accuracy, self.settings.rules)
        if steps == now:
            return
        sampling = replace(
            self.sampling,
            healpix_order=steps.order,
            psi_step_deg=healpix.step_deg(steps.order),
            offset_range_A=steps.offset_range_A,
            offset_step_A=steps.offset_step_A,
            sigma_deg=steps.sigma_deg,
        )
        for half in self.pair:
            half.model.sampling, half.model.pdf_direction = sampling, None

    def plan(self) -> Plan:
        """Return what the iteration is to do that was prepared."""
        mask = self.model.solvent_mask if self.settings.solvent_fsc else None
        return Plan(
            join_A=self.settings.join_A,
            resolution=self.state.resolution,
            mask=None if mask is None else mask.double(),
            is_last=self.state.converged,
        )

    def _by_correlation(self, number: int) -> bool:
        """Tell whether an iteration goes by correlation: its result is a first map, no more."""
        return number == 1 and self.options.first_cc

    def poses(self) -> tuple[np.ndarray, np.ndarray]:
        """Return angles (rot, tilt, psi) `[n, 3]` and offsets `[n, 2]` of the particles."""
        particles = self.data.particles
        angles = (particles.rot_deg, particles.tilt_deg, particles.psi_deg)
        return np.stack(angles, axis=1), particles.offset_A.copy()

    def judge(self, number: int, made: Made, before: tuple[np.ndarray, np.ndarray]) -> None:
        """Draw conclusions from an iteration.

        Parameters
        ----------
        number
            Of the iteration.
        made
            What it made.
        before
            Poses before it.

        Raises
        ------
        RefineError
            A number is not finite.
        """
        self._verify(number)
        model = self.model
        if not self._by_correlation(number):
            jumps = not self.state.converged
            model.resolution_shell = rules.resolution_shell(model.ssnr[0], jumps=jumps)
        other = self.pair[1].model
        other.resolution_shell, other.mean_pmax = model.resolution_shell, model.mean_pmax
        angles, offsets = self.poses()
        group = symmetry.operators(self.options.symmetry)
        found = changes(before[0], angles, before[1], offsets, group)
        if number == 1 and not self.had_classes:
            found = replace(found, reclassed=1.0)
        state = rules.moved(self.state, found, steps_of(self.sampling), self.settings.rules)
        state = rules.judged(state, made.fsc, model.current_size)
        edge_A = model.box * model.pixel_A
        self.state = rules.resolved(state, model.resolution_shell / edge_A)
        self.curves.append(made.fsc.tolist())
        self.resolutions_A.append(edge_A / model.resolution_shell)

    def _verify(self, number: int) -> None:
        for half in self.pair:
            for name in ("references", "noise", "scales", "ssnr"):
                if not bool(torch.isfinite(getattr(half.model, name)).all()):
                    raise RefineError(f"iteration {number}: {name} are not finite; stopped")
