"""The E-step: particles in batches through both passes, into the sums and their own columns.

Source: refinement.md section 2.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from algorithms.refine import fine, searches, sizes
from algorithms.refine.fine import Batch, FinePass, Outcome, Pairs
from algorithms.refine.images import CtfColumns, Preparer, check_images, ctf_values
from algorithms.refine.lookups import Store
from algorithms.refine.space.given import at_poses
from algorithms.refine.sums import Sums
from algorithms.refine.types import DataSet
from algorithms.refine.work import Work

__all__ = ["Work", "expectation"]

# Shells where the data outweigh the prior this far tell a group's scale.
SCALE_SSNR = 3.0
LEAST_SCALE = 0.001


def expectation(
    work: Work, subset: np.ndarray, tell: Callable[[int], None] = lambda n: None
) -> Sums:
    """Do the E-step for some particles; their columns are written, their sums returned.

    Parameters
    ----------
    work
        Particles, model, tables.
    subset
        Indices of the particles.
    tell
        Is called with the number of particles done.

    Raises
    ------
    RefineError
        An image cannot be used.
    """
    if work.options.skip_align:
        work = replace(work, tables=at_poses(work.tables, work.data.particles))
    sums = _no_sums(work)
    preparer, store = _preparer(work), work.tables.fine.store(sums, work.options)
    done, search = 0, searches.search_of(work)
    for indices in batches(work.data, subset, work.options.batch):
        _batch(work, preparer, indices, sums, store, search)
        done += len(indices)
        tell(done)
    store.finish()
    return sums


def _no_sums(work: Work) -> Sums:
    model, tables = work.model, work.tables
    return Sums.empty(
        (2 if work.options.gradient else 1, *tables.fine.images(model.n_classes)),
        tables.fine.n_directions,
        len(work.data.optics),
        len(model.scales),
        model.box // 2 + 1,
        tables.coarse.power,
    )


def batches(data: DataSet, subset: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield the particles of a subset in batches of one optics group."""
    optics = data.particles.optics[subset]
    for group in np.unique(optics):
        mine = np.sort(subset[optics == group])
        for start in range(0, len(mine), size):
            yield mine[start : start + size]


def _preparer(work: Work) -> Preparer:
    model, options = work.model, work.options
    noise = None if options.zero_mask else torch.sqrt(model.noise.mean(0))
    diameter = options.particle_diameter_A / model.pixel_A
    return Preparer(model.box, diameter, work.tables.fine.pixels, noise, work.device)


def _batch(
    work: Work,
    preparer: Preparer,
    indices: np.ndarray,
    sums: Sums,
    store: Store,
    search: searches.Search,
) -> None:
    batch, moved = make_batch(work, preparer, indices)
    options, tables, model = work.options, work.tables, work.model
    batch, pairs, count = search(batch, indices)
    scaled = (model.ssnr > SCALE_SSNR).to(work.device)
    correlates = work.by_correlation
    limit = sizes.strict_shell(model, options)
    second = FinePass(
        batch,
        tables.fine,
        scaled,
        options.memory_bytes,
        store,
        correlation=correlates,
        limit=limit,
    )
    outcomes = []
    for first, end, some in second.groups(pairs):
        logs = second.log_weights(some)
        local = replace(some, particle=some.particle - first)
        if correlates:
            weights, outcome = fine.only_best(logs, local, end - first)
        else:
            weights, outcome = fine.normalised(logs, local, end - first, options.adaptive_fraction)
        outcomes.append(outcome)
        used = weights.amax(1) > 0.0
        some, weights = some.take(used), weights[used]
        second.add(some, weights)
        _add_priors(work, batch, some, weights, sums)
    norm = second.residual(sums)
    outcome = Outcome.of(outcomes)
    _tell_particles(work, batch, indices, moved, outcome, norm, count, sums)


def make_batch(work: Work, preparer: Preparer, indices: np.ndarray) -> tuple[Batch, np.ndarray]:
    """Return particles ready for both passes, and what each was moved by, px `[B, 2]`."""
    model, particles, device = work.model, work.data.particles, work.device
    images = work.data.images.read(indices)
    check_images(images, indices)
    group = particles.group[indices]
    optics = int(particles.optics[indices[0]])
    moved = np.round(particles.offset_A[indices] / model.pixel_A)
    factors = model.mean_norm / particles.norm[indices] if work.options.norm else None
    prepared = preparer.prepare(
        images.to(device, work.options.real),
        torch.as_tensor(np.ones(len(indices)) if factors is None else factors, device=device),
        torch.as_tensor(moved[:, 0], device=device),
        torch.as_tensor(moved[:, 1], device=device),
        [work.options.seed + int(index) for index in indices],
    )
    bare = _transfer(work, indices, optics)
    scale = model.scales[group].clamp(min=LEAST_SCALE).to(device, work.options.real)
    noise = model.noise[optics].to(device)
    precision = torch.where(noise > 0.0, 1.0 / noise, 0.0).to(work.options.real)
    offset_A = torch.as_tensor(moved * model.pixel_A, device=device)
    return (
        Batch(
            prepared.masked,
            prepared.plain,
            bare * scale[:, None],
            bare,
            prepared.tail_power,
            _restricted(work, log_prior(work, offset_A), indices),
            offset_A,
            torch.as_tensor(indices % 2 if work.options.gradient else indices * 0, device=device),
            torch.as_tensor(group, device=device),
            optics,
            precision,
        ),
        moved,
    )


def _transfer(work: Work, indices: np.ndarray, optics: int) -> Tensor:
    pixels = work.tables.fine.pixels
    if not work.options.ctf:
        return torch.ones((len(indices), pixels.n), dtype=work.options.real, device=work.device)
    columns = ctf_columns(work.data, indices, optics, work.device)
    return ctf_values(columns, pixels, work.data.pixel_A, work.options.real)


def ctf_columns(
    data: DataSet, indices: np.ndarray, optics: int, device: torch.device | str = "cpu"
) -> CtfColumns:
    """Return the CTF of particles of one optics group."""
    particles, group = data.particles, data.optics[optics]

    def column(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values[indices], dtype=torch.float64, device=device)

    return CtfColumns(
        defocus_u_A=column(particles.defocus_u_A),
        defocus_v_A=column(particles.defocus_v_A),
        angle_deg=column(particles.defocus_angle_deg),
        phase_shift_deg=column(particles.phase_shift_deg),
        bfactor_A2=column(particles.bfactor_A2),
        scale=column(particles.ctf_scale),
        voltage_kV=group.voltage_kV,
        spherical_aberration_mm=group.spherical_aberration_mm,
        amplitude_contrast=group.amplitude_contrast,
    )


def log_prior(work: Work, offset_A: Tensor) -> Tensor:
    """Return the logarithm of class and offset priors at the coarse shifts, `[B, t, K]`."""
    model, pixel = work.model, work.model.pixel_A
    shifts = work.tables.coarse.grid.shifts_A.to(work.device)
    centre = model.prior_offset_A.to(work.device)
    if work.options.exact_offset_prior:
        away = offset_A[:, None, None] + shifts[None, :, None] - centre
        square = (away**2).sum(-1)
    else:
        # As RELION does (quirk 1): old offsets in px, new ones in A and without the perturbation,
        # all of it times the pixel.
        still = shifts - model.sampling.perturbation * model.sampling.offset_step_A
        away = offset_A[:, None, None] / pixel + still[None, :, None] - centre
        square = (away**2).sum(-1) * pixel**2
    # Both priors are divided by their means over the grid, as RELION does; no weight depends on it.
    offset = -square / (2.0 * model.sigma_offset_A**2)
    offset -= torch.logsumexp(offset.flatten(1), 1)[:, None, None] - math.log(offset[0].numel())
    if model.dim == 2 or work.options.skip_align:
        fractions = model.fractions / model.fractions.mean()
        offset = torch.log(fractions.clamp(min=1e-300)).to(work.device) + offset
    return offset.to(work.options.real)


def _restricted(work: Work, prior: Tensor, indices: np.ndarray) -> Tensor:
    """Close the classes that particles are not compared with."""
    if work.only_class is None:
        return prior
    chosen = torch.as_tensor(work.only_class[indices], device=prior.device)
    other = torch.arange(prior.shape[2], device=prior.device) != chosen[:, None]
    return prior.masked_fill(other[:, None, :], -torch.inf)


def _add_priors(work: Work, batch: Batch, pairs: Pairs, weights: Tensor, sums: Sums) -> None:
    """Add what class fractions and offset priors are made of."""
    w = weights.double()
    shifts = work.tables.fine.grid.shifts_A.to(work.device)
    total = w.sum(1)
    old = batch.offset_A[pairs.particle]
    centre = work.model.prior_offset_A.to(work.device)[pairs.klass]
    first = w @ shifts
    sums.classes.index_add_(0, pairs.klass, total)
    table = work.tables.fine
    if table.n_directions > 1:
        place = pairs.klass * table.n_directions + table.direction(pairs.psi)
        sums.directions.view(-1).index_add_(0, place, total)
    sums.offsets.index_add_(0, pairs.klass, first + old * total[:, None])
    if not work.options.exact_offset_prior:
        centre = centre * work.model.pixel_A  # as RELION has it: A taken for px, quirk 1
    away = old - centre
    square = w @ (shifts**2).sum(1) + 2.0 * (away * first).sum(1) + (away**2).sum(1) * total
    sums.offset_square += square.sum()
    sums.total += total.sum()


def _tell_particles(
    work: Work,
    batch: Batch,
    indices: np.ndarray,
    moved: np.ndarray,
    outcome: Outcome,
    norm: Tensor,
    count: Tensor,
    sums: Sums,
) -> None:
    """Write the particles' own columns."""
    particles, model, grid = work.data.particles, work.model, work.tables.fine.grid
    shifts = grid.shifts_A.to(work.device)[outcome.shift].cpu().numpy()
    if not work.options.skip_align:
        _tell_poses(work, indices, grid.angles(outcome.psi).cpu().numpy())
        particles.offset_A[indices] = moved * model.pixel_A + shifts
    particles.classes[indices] = outcome.klass.cpu().numpy()
    particles.pmax[indices] = outcome.pmax.cpu().numpy()
    particles.significant[indices] = count.cpu().numpy()
    likelihood = outcome.log_sum
    if work.by_correlation:
        likelihood = likelihood / torch.sqrt(_power(work, batch))
    else:
        likelihood = likelihood + _constants(work, batch)
    particles.log_likelihood[indices] = likelihood.cpu().numpy()
    if work.options.norm:
        old = particles.norm[indices] / model.mean_norm
        particles.norm[indices] = old * np.sqrt(2.0 * norm.cpu().numpy())
        sums.norm += float(particles.norm[indices].sum())
    sums.log_likelihood += likelihood.sum()
    sums.pmax += outcome.pmax.sum()
    sums.particles += len(indices)


def _tell_poses(work: Work, indices: np.ndarray, angles: np.ndarray) -> None:
    particles = work.data.particles
    particles.psi_deg[indices] = angles[:, 2]
    if work.model.dim == 3:
        particles.rot_deg[indices], particles.tilt_deg[indices] = angles[:, 0], angles[:, 1]


def _power(work: Work, batch: Batch) -> Tensor:
    """Return the power of images in the window, as the correlation has it."""
    count = fine.correlated(work.tables.fine.pixels).double()
    return (batch.masked.real**2 + batch.masked.imag**2).double() @ count


def _constants(work: Work, batch: Batch) -> Tensor:
    """Return what the likelihood has beside the weights: -|X|^2 / 2 sigma^2 - log 2 pi sigma^2."""
    pixels = work.tables.fine.pixels
    precision = torch.where(pixels.shell == 0, 0.0, batch.precision[pixels.shell].double())
    power = (batch.masked.real**2 + batch.masked.imag**2).double() @ precision
    tail = batch.tail_power.double().sum(1)  # as RELION has it: not divided by the noise
    noise = work.model.noise[batch.optics].to(work.device)
    counts = torch.bincount(pixels.shell[pixels.shell > 0], minlength=len(noise))
    logs = torch.where(noise > 0.0, torch.log(2.0 * math.pi * noise.clamp(min=1e-300)), 0.0)
    return -0.5 * (power + tail) - (logs * counts).sum()
