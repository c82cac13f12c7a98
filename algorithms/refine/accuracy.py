"""How far a particle may be turned or moved before one can tell: accuracies of the classes.

Source: refinement.md section 5.2.
"""

import math

import numpy as np
import torch
from torch import Tensor

from algorithms.orientation import euler
from algorithms.refine.expectation import Work, ctf_columns
from algorithms.refine.geometry import Disc, disc
from algorithms.refine.images import ctf_values
from algorithms.refine.projector import Lattice, Plane, Slicer
from algorithms.refine.sizes import strict_shell
from algorithms.refine.space import slicing
from algorithms.refine.space.volume import Space
from algorithms.refine.tables import Reference
from algorithms.refine.types import DataSet, Model, Options, Particles

PARTICLES = {2: 10, 3: 100}  # of each class, by the dimension of the references
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
        Chooses the particles and the axes.
    """
    everyone = np.arange(len(work.data))
    measure(work.data, work.model, work.options, work.tables.reference, everyone, random)


def measure(
    data: DataSet,
    model: Model,
    options: Options,
    reference: Reference,
    among: np.ndarray,
    random: np.random.Generator,
) -> None:
    """Do as `accuracies` without the tables of an iteration.

    Parameters
    ----------
    data, model, options
        The model's accuracies are changed.
    reference
        Its references as the next E-step sees them.
    among
        Particles of which some are looked at.
    random
        Chooses them, and the axes.
    """
    plane = reference.plane
    pixels = disc(model.box, 2 * (plane.radius // plane.pad))
    pixels = pixels.take(pixels.shell > 0).inner()
    if limit := strict_shell(model, options):
        pixels = pixels.take(pixels.shell <= limit)
    values = reference.values.to(torch.complex64).cpu()
    order = random.permutation(among)[: PARTICLES[model.dim]]
    axes = random.integers(0, 2, len(order))
    turned = random.integers(0, 3, len(order)) if model.dim == 3 else np.full(len(order), 2)
    shape = (model.n_classes, len(order))
    degrees, shifts = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
    spectra = torch.zeros((model.n_classes, model.box // 2 + 1), dtype=torch.float64)
    for column, index in enumerate(order):
        angles = _turned(data.particles, int(index), int(turned[column]))
        slices = _slices(values, plane, angles, pixels)
        weight = _weight(data, model, options, int(index), pixels)
        rotation, shift, spectrum = _of_particle(
            slices, weight, (pixels.jx, pixels.jy)[axes[column]] / model.box
        )
        degrees[:, column], shifts[:, column] = rotation, shift
        spectra.index_add_(1, pixels.shell, spectrum)
    rare = model.fractions < LEAST_FRACTION
    model.accuracy_deg = torch.where(rare, UNKNOWN, degrees.mean(1))
    model.accuracy_A = torch.where(rare, UNKNOWN, shifts.mean(1) * model.pixel_A)
    model.orientability = spectra / spectra.sum(1, keepdim=True).clamp(min=1e-300)


def _turned(particles: Particles, index: int, axis: int) -> Tensor:
    """Return the pose (rot, tilt, psi) of a particle, and with errors of one of the three."""
    columns = (particles.rot_deg, particles.tilt_deg, particles.psi_deg)
    pose = torch.tensor([float(column[index]) for column in columns], dtype=torch.float64)
    angles = pose.repeat(len(ROTATIONS) + 1, 1)
    angles[1:, axis] += torch.tensor(ROTATIONS, dtype=torch.float64)
    return angles


def _slices(values: Tensor, plane: Lattice, angles_deg: Tensor, pixels: Disc) -> Tensor:
    """Return slices of all references at poses (rot, tilt, psi), complex64 `[K, n, P]`."""
    if isinstance(plane, Plane):
        return Slicer(pixels, angles_deg[:, 2], plane).slices(values)
    assert isinstance(plane, Space)  # noqa: S101
    points, matrices = slicing.points_of(pixels, plane), euler.matrices(angles_deg)
    return torch.stack([slicing.sample(one, plane, matrices, points) for one in values])


def _weight(data: DataSet, model: Model, options: Options, index: int, pixels: Disc) -> Tensor:
    """Return the squared CTF over twice the noise, `[P]`."""
    optics = int(data.particles.optics[index])
    ctf = torch.ones(pixels.n)
    if options.ctf:
        columns = ctf_columns(data, np.array([index]), optics)
        ctf = ctf_values(columns, pixels, data.pixel_A)[0]
    return (ctf**2).double() / (2.0 * model.noise[optics][pixels.shell])


def _of_particle(slices: Tensor, weight: Tensor, j: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for each class, the errors in degrees and px that show, and where they show.

    The last is the spectrum `[K, P]` of the difference at that rotation. `j` are the frequencies
    along the axis of the shift, in cycles for each px.
    """
    turned = (slices[:, 1:] - slices[:, :1]).abs().double() ** 2 * weight
    errors = torch.tensor(SHIFTS, dtype=torch.float64)[:, None]
    # |1 - exp(i a)|^2 = 4 sin^2(a / 2)
    factor = 4.0 * torch.sin(math.pi * j.double() * errors) ** 2
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
