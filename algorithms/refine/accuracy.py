"""How far a particle may be turned or moved before one can tell: accuracies of the classes.

Source: refinement.md section 5.2.
"""

import math

import numpy as np
import torch
from torch import Tensor

from algorithms.refine.expectation import Work, ctf_columns
from algorithms.refine.geometry import Disc
from algorithms.refine.images import ctf_values
from algorithms.refine.projector import Slicer

PARTICLES = 10  # of each class, for references in 2D
LEAST_FRACTION = 0.01
UNKNOWN = 999.0
TELLS_APART = -math.log(0.01)


def _steps(table: tuple[tuple[float, float], ...], most: float) -> list[float]:
    """Return growing errors, from (limit, step) pairs."""
    values, error = [], 0.0
    while error <= most:
        error += next((step for limit, step in table if error < limit - 1e-9), table[-1][1])
        values.append(error)
    return values


ROTATIONS = _steps(
    ((0.2, 0.05), (1.0, 0.1), (2.0, 0.2), (5.0, 0.5), (10.0, 1.0), (20.0, 2.0), (30.0, 5.0)), 30.0
)
SHIFTS = _steps(((1.0, 0.1), (2.0, 0.2), (5.0, 0.5), (10.0, 1.0), (20.0, 2.0)), 10.0)


def accuracies(work: Work, random: np.random.Generator) -> None:
    """Write the accuracies of the classes into the model, and what they come from.

    Parameters
    ----------
    work
        Of an iteration.
    random
        Chooses the particles and the axes of the shifts.
    """
    model, data = work.model, work.data
    window = work.tables.fine.pixels
    pixels = window.take(window.shell > 0).inner()
    order = random.permutation(len(data))[:PARTICLES]
    axes = random.integers(0, 2, len(order))
    shape = (model.n_classes, len(order))
    degrees, shifts = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
    spectra = torch.zeros((model.n_classes, model.box // 2 + 1), dtype=torch.float64)
    for column, (index, axis) in enumerate(zip(order, axes, strict=True)):
        rotation, shift, spectrum = _of_particle(work, int(index), int(axis), pixels)
        degrees[:, column], shifts[:, column] = rotation, shift
        spectra.index_add_(1, pixels.shell, spectrum)
    rare = model.fractions < LEAST_FRACTION
    model.accuracy_deg = torch.where(rare, UNKNOWN, degrees.mean(1))
    model.accuracy_A = torch.where(rare, UNKNOWN, shifts.mean(1) * model.pixel_A)
    model.orientability = spectra / spectra.sum(1, keepdim=True).clamp(min=1e-300)


def _of_particle(work: Work, index: int, axis: int, pixels: Disc) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for each class, the errors in degrees and px that show, and where they show.

    The last is the spectrum `[K, P]` of the difference at that rotation.
    """
    model, particles = work.model, work.data.particles
    optics = int(particles.optics[index])
    psi = float(particles.psi_deg[index])
    references = work.tables.reference.values.to(torch.complex64)
    angles = torch.tensor([psi, *(psi + error for error in ROTATIONS)], dtype=torch.float64)
    slices = Slicer(pixels, angles, work.tables.reference.plane).slices(references)
    ctf = torch.ones(pixels.n)
    if work.options.ctf:
        columns = ctf_columns(work.data, np.array([index]), optics)
        ctf = ctf_values(columns, pixels, work.data.pixel_A)[0]
    weight = (ctf**2).double() / (2.0 * model.noise[optics][pixels.shell])
    turned = (slices[:, 1:] - slices[:, :1]).abs().double() ** 2 * weight
    j = (pixels.jx, pixels.jy)[axis].double()
    errors = torch.tensor(SHIFTS, dtype=torch.float64)[:, None]
    # |1 - exp(i a)|^2 = 4 sin^2(a / 2)
    factor = 4.0 * torch.sin(math.pi * j * errors / model.box) ** 2
    moved = (slices[:, 0].abs().double() ** 2 * weight) @ factor.T
    first = _first(turned.sum(-1))
    spectrum = turned[torch.arange(len(turned)), first]
    rotations = torch.tensor(ROTATIONS, dtype=torch.float64)
    return rotations[first], errors[_first(moved), 0], spectrum


def _first(evidence: Tensor) -> Tensor:
    """Return where the evidence `[K, errors]` first tells two images apart, else the last."""
    tells = evidence > TELLS_APART
    tells[:, -1] = True
    return tells.int().argmax(1)
