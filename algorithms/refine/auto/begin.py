"""The state of both halves before the first iteration.

Source: refinement.md sections 2.6, 2.7 and 5.1.
"""

import copy

from algorithms.refine.auto.settings import Settings
from algorithms.refine.space import begin
from algorithms.refine.types import DataSet, Model, Options


def begun(
    data: DataSet, options: Options, settings: Settings, group_names: list[str], members: list[int]
) -> tuple[Model, Model]:
    """Return the models of both halves before the first iteration.

    Parameters
    ----------
    data, options, settings
        The particles, and what is to be done.
    group_names
        Of the particles' groups.
    members
        Particles in each half.

    Raises
    ------
    RefineError
        The reference or the mask does not fit the particles.
    """
    sampling = settings.first_sampling()
    first = begin.begun(data, options, sampling, group_names, settings.reference, settings.mask)
    second = copy.deepcopy(first)
    for model, many in zip((first, second), members, strict=True):
        model.ssnr = model.ssnr * (many / len(data))
    return first, second
