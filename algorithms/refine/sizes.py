"""How much of the transforms takes part in an iteration.

Source: refinement.md section 2.6.
"""

import math

from torch import Tensor

from algorithms.refine.types import Model, Options

LEAST_SHELL = 5
INCREMENT = 10
_COARSE = {2: 1.5, 3: 1.2}  # of the coarse pass, by the dimension of the references


def resolution_shell(ssnr: Tensor) -> int:
    """Return the shell up to which the data outweigh the prior, of spectra `[K, S]`."""
    best = LEAST_SHELL
    for row in ssnr:
        below = (row[1:] < 1.0).nonzero()
        first = int(below[0, 0]) + 1 if len(below) else len(row)
        best = max(best, first - 1)
    return min(best, ssnr.shape[1] - 1)


def current_size(model: Model) -> int:
    """Return the edge of the window for the next iteration, px."""
    if model.window:
        return model.window
    box, increment = model.box, INCREMENT
    if model.mean_pmax > 0.1 and model.has_high_fsc:
        increment = round(0.25 * box / 2)
    return min(2 * (model.resolution_shell + increment), box)


def strict_shell(model: Model, options: Options) -> int:
    """Return the last shell that both passes compare, 0 where there is no limit."""
    if options.strict_highres_A <= 0.0:
        return 0
    return max(1, round(model.box * model.pixel_A / options.strict_highres_A))


def coarse_size(model: Model, options: Options, size: int) -> int:
    """Return the edge of the window of the first pass, px: as fine as its steps can tell."""
    edge_A = model.box * model.pixel_A
    if limit := strict_shell(model, options):
        return min(2 * limit, size)
    step = model.sampling.angular_step / 360.0
    resolution = step * math.pi * options.particle_diameter_A / _COARSE[model.dim]
    return min(2 * math.ceil(edge_A / resolution), size)


def first_filter_A(box: int, pixel_A: float) -> float:
    """Return the low-pass filter of first references where none is given: 0.07 of sampling."""
    return box * pixel_A / round(0.07 * box)
