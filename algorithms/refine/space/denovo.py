"""First volumes from nothing: particles in random orientations, and blobs as bright as they are.

Source: refinement.md section 2.7.
"""

import numpy as np
import torch
from torch import Tensor

from algorithms.orientation import euler
from algorithms.refine.expectation import batches, ctf_columns
from algorithms.refine.geometry import disc, to_fourier
from algorithms.refine.images import ctf_values
from algorithms.refine.sizes import first_filter_A
from algorithms.refine.space import slicing
from algorithms.refine.space.filters import low_passed
from algorithms.refine.space.volume import Space
from algorithms.refine.types import DataSet, Options

BLOBS = 40
LEAST_SHELL = 6  # of the average, which blobs replace
FLOOR = 1e-3  # of the mean weight


def averages(
    data: DataSet, options: Options, order: np.ndarray, noise: Tensor, random: np.random.Generator
) -> Tensor:
    """Return averages of particles in random orientations, at the lowest shells: `[K, N, N, N]`.

    Parameters
    ----------
    data, options
        The particles; classes, CTF and filter.
    order
        Particles that take part; number j goes into class j mod K.
    noise
        Of each optics group `[O, S]`.
    random
        Draws rot, tilt and psi, each uniform in angle.
    """
    box, k = data.images.box, options.n_classes
    filter_A = options.ini_high_A or first_filter_A(box, data.pixel_A)
    shell = max(LEAST_SHELL, round(box * data.pixel_A / filter_A) + 1)
    radius = min(box // 2 - 1, shell)
    space, pixels = Space(box, radius, 1), disc(box, 2 * radius).inner()
    points = slicing.points_of(pixels, space)
    values = torch.zeros((k, space.n), dtype=torch.complex128)
    weights = torch.zeros((k, space.n), dtype=torch.float64)
    rank = np.empty(len(data), np.int64)
    rank[order] = np.arange(len(order))
    for indices in batches(data, order, options.batch):
        optics = int(data.particles.optics[indices[0]])
        ctf = torch.ones((len(indices), pixels.n))
        if options.ctf:
            ctf = ctf_values(ctf_columns(data, indices, optics), pixels, data.pixel_A)
        precision = 1.0 / noise[optics][pixels.shell]
        spectra = to_fourier(data.images.read(indices))[:, pixels.flat]
        turn = torch.as_tensor(random.uniform(0.0, 1.0, (len(indices), 3)))
        turned = euler.matrices(turn * torch.tensor([360.0, 180.0, 360.0]))
        images = (spectra * ctf).to(torch.complex128) * precision
        amounts = (ctf**2).double() * precision
        for klass in range(k):
            mine = torch.as_tensor(np.flatnonzero(rank[indices] % k == klass))
            slicing.spread(
                images[mine], amounts[mine], space, turned[mine], points,
                values[klass], weights[klass],
            )  # fmt: skip
    values, weights = space.repaired(values), space.repaired(weights)
    floor = FLOOR * weights.mean(1, keepdim=True)
    kept = space.distance() <= radius
    values = torch.where(kept, values / torch.maximum(weights, floor), 0.0)
    whole, voxels = space.empty(k, values), space.flat()
    whole[:, voxels[1]] = values[:, voxels[0]]
    return low_passed(space.map_of(whole) / space.gridding(), data.pixel_A, filter_A)


def blobs(maps: Tensor, diameter_px: float, random: np.random.Generator) -> Tensor:
    """Return sums of Gaussian blobs as bright as maps `[K, N, N, N]` where they lie, float64.

    Parameters
    ----------
    maps
        Averages.
    diameter_px
        Of the particle.
    random
        Draws the centres.
    """
    box = maps.shape[-1]
    reach = diameter_px / 3.0
    axis = torch.arange(box, dtype=torch.float64)
    out = []
    for average in maps:
        sets = []
        for _ in range(2):
            centres = random.standard_normal((BLOBS, 3)) * diameter_px / 6.0 + box // 2
            centres = centres.clip(0, box - 1)
            total = torch.zeros_like(maps[0], dtype=torch.float64)
            for centre in centres:
                z, y, x = (_profile(axis - c, reach, diameter_px) for c in centre[::-1])
                at = tuple(int(c) for c in centre[::-1])
                total += float(average[at].abs()) * z[:, None, None] * y[:, None] * x
            sets.append(total)
        made = sets[0] - sets[1] / 2.0
        out.append(made * (average.std() / made.std().clamp(min=1e-12)))
    return torch.stack(out)


def _profile(distance: Tensor, reach: float, diameter_px: float) -> Tensor:
    """Return a blob along one axis; a Gaussian of three is the product of three."""
    inside = distance.abs() <= reach
    return torch.where(inside, torch.exp(-100.0 * distance**2 / diameter_px**2), 0.0)
