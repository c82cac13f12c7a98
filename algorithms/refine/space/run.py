"""A whole 3D classification.

Source: refinement.md sections 2.7 and 3.6.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from algorithms.refine import kept
from algorithms.refine.accuracy import measure
from algorithms.refine.run import Progress, Run
from algorithms.refine.sizes import current_size
from algorithms.refine.space.begin import begun, drawn_classes
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.tables import reference_of
from algorithms.refine.types import Model, Options


@dataclass(frozen=True)
class Maps:
    """Files a run begins with: the first map of all classes, and a solvent mask or None."""

    reference: Path
    mask: Path | None = None


class SpaceRun(Run):
    """A run in a folder, as `Run`.

    Parameters
    ----------
    particles, root, name, project, options, device, tell
        As of `Run`.
    steps
        Sampling, and the maps.
    """

    def __init__(
        self,
        particles: Path,
        root: Path,
        name: str,
        project: Path,
        options: Options,
        steps: tuple[Sampling3D, Maps],
        device: str = "cpu",
        tell: Callable[[Progress], None] = lambda progress: None,
    ):
        sampling, self._maps = steps
        if options.skip_align:
            sampling = replace(sampling, factor=0.0, perturbation=0.0)
        super().__init__(particles, root, name, project, options, sampling, device, tell)

    def _first_model(self, names: list[str]) -> Model:
        sampling, maps = self._sampling, self._maps
        assert isinstance(sampling, Sampling3D)  # noqa: S101
        self.data.particles.classes[:] = 0
        model = begun(self.data, self.options, sampling, names, maps.reference, maps.mask)
        model.mask_name = self._named(maps.mask)
        return model

    def _begun_with(self, told: Callable[[object], str] = kept.told) -> str:
        """Return what a run must not change: the maps and the sampling, too."""
        if told is repr:  # older states do not name them
            return super()._begun_with(told)
        maps = self._maps
        names = [self._named(one) for one in (maps.reference, maps.mask)]
        return " ".join([super()._begun_with(told), *names, told(self._sampling)])

    def _named(self, path: Path | None) -> str:
        """Return a file as the project names it, which may move."""
        return "None" if path is None else os.path.relpath(path, self._project)

    def _only_class(self, number: int) -> np.ndarray | None:
        options, n = self.options, len(self.data)
        if options.first_cc and number == 1:
            return np.zeros(n, np.int64)
        if options.n_classes > 1 and number == (2 if options.first_cc else 1):
            return drawn_classes(n, options.n_classes, options.seed)
        return None

    def _measure(self, random: np.random.Generator) -> None:
        model = self.model
        reference = reference_of(model, current_size(model))
        everyone = np.arange(len(self.data))
        measure(self.data, model, self.options, reference, everyone, random)
