"""A first iteration by correlation, for a reference whose grey scale is not that of the images.

All particles are compared with the first class; the others become copies of it, and the noise and
the scales stay what they were.

Source: refinement.md sections 2.1 and 2.7.
"""

import torch

from algorithms.refine.lookups import Accumulated
from algorithms.refine.space.filters import gain, low_passed
from algorithms.refine.sums import Sums
from algorithms.refine.types import Model, Options


def first_class_for_all(sums: Sums, halves: list[Accumulated]) -> None:
    """Let all classes have what the first one has: priors in equal shares, the map itself."""
    k = len(sums.classes)
    sums.classes[:] = sums.classes[0] / k
    sums.directions[:] = sums.directions[:1] / k
    for half in halves:
        half.data[:], half.weight[:] = half.data[:1].clone(), half.weight[:1].clone()


def filtered(model: Model, options: Options) -> None:
    """Filter the references at the resolution of the first one, and as RELION does their spectra.

    The spectra are those of the reference that the iteration began with.
    """
    if options.ini_high_A <= 0.0:
        return
    maps = low_passed(model.references, model.pixel_A, options.ini_high_A)
    model.references = maps.to(model.references)
    shells = torch.arange(model.tau2.shape[1], dtype=torch.float64)
    share = gain(shells, model.box * model.pixel_A / options.ini_high_A) ** 2
    model.tau2, model.ssnr = model.tau2 * share, model.ssnr * share
