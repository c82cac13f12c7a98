"""All that the E-step of one iteration is given."""

from dataclasses import dataclass

import numpy as np
import torch

from algorithms.refine.lookups import Tables
from algorithms.refine.types import DataSet, Model, Options


@dataclass(frozen=True)
class Work:
    """Particles, model, tables; and where the E-step runs.

    Parameters
    ----------
    data, model, options, tables, device
        Of the iteration.
    only_class
        The one class that each particle of the data is compared with, `[n]`; None: all.
    """

    data: DataSet
    model: Model
    options: Options
    tables: Tables
    device: torch.device | str = "cpu"
    only_class: np.ndarray | None = None

    @property
    def by_correlation(self) -> bool:
        """Whether it is a first iteration that goes by correlation."""
        return self.options.first_cc and self.model.iteration <= 1
