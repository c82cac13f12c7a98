"""One iteration: E-step, new references, scalars, masks, resolution.

Source: refinement.md sections 3.5 and 4.11.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from algorithms.refine import masks, maximisation, scalars, schedule, sizes, splitting
from algorithms.refine.expectation import Work, expectation
from algorithms.refine.lookups import Accumulated, Tables
from algorithms.refine.shards import Shards
from algorithms.refine.space import correlation
from algorithms.refine.sums import Sums
from algorithms.refine.tables import tables
from algorithms.refine.types import DataSet, Model, Options

LEAST_CENTRING_PX = 2.0
Tell = Callable[[int], None]


def iterate(
    data: DataSet,
    model: Model,
    options: Options,
    subset: np.ndarray,
    device: torch.device | str = "cpu",
    tell: Tell = lambda n: None,
    shards: Shards | None = None,
    only_class: np.ndarray | None = None,
) -> Sums:
    """Do the iteration `model.iteration + 1`; the model and the particles' columns are changed.

    Parameters
    ----------
    data, model, options
        The particles, what is known, what to do. The model's sampling holds the perturbation.
    subset
        Particles that take part.
    device
        Where the E-step runs.
    tell
        Is called with the number of particles done.
    shards
        Processes that share the E-step.
    only_class
        The one class that each particle of the data is compared with; None: all.
    """
    model.iteration += 1
    if options.gradient:
        place = model.place or model.iteration
        model.tau2_fudge = schedule.fudge(place, options.iterations, options.tau2_fudge)
        last = schedule.LAST_STEP[model.dim]
        model.step_size = schedule.step_size(place, options.iterations, last=last)
    else:
        model.tau2_fudge = options.tau2_fudge
    if shards is not None:
        shards.begin(data, model, options, subset, only_class)
    lookup = tables(model, options, device)
    step = expectation if shards is None else shards.expectation
    sums = step(Work(data, model, options, lookup, device, only_class), subset, tell)
    finish(data, model, options, lookup, sums, is_whole=len(subset) == len(data))
    if _replaces(model, options, "split"):
        splitting.fill(Work(data, model, options, lookup, device), subset)
    return sums


def finish(
    data: DataSet,
    model: Model,
    options: Options,
    lookup: Tables,
    sums: Sums,
    *,
    is_whole: bool,
) -> None:
    """Do all of an iteration that follows the E-step."""
    halves = maximisation.accumulated(sums, lookup, residual=options.gradient)
    finish_with(data, model, options, lookup, sums, halves, is_whole=is_whole)


def finish_with(
    data: DataSet,
    model: Model,
    options: Options,
    lookup: Tables,
    sums: Sums,
    halves: list[Accumulated],
    *,
    is_whole: bool,
) -> None:
    """Do all of an iteration that follows the sums on the lattice: see `finish`."""
    model.current_size = lookup.size
    model.tau2 = lookup.reference.tau2.cpu()
    by_correlation = options.first_cc and model.iteration == 1
    if by_correlation:
        correlation.first_class_for_all(sums, halves)
    if options.gradient:
        _descend(model, options, lookup, halves)
    else:
        _maximise(model, lookup, halves[0])
    mu = options.mu if options.gradient and not is_whole else 0.0
    groups = torch.as_tensor(data.particles.group)
    if options.scale and not by_correlation:
        members = torch.bincount(groups, minlength=len(model.scales)).double()
        scalars.update_scales(model, sums, members, mu)
    scalars.update(model, sums, options, mu, keeps_noise=by_correlation)
    if by_correlation:
        correlation.filtered(model, options)
    if options.center_classes:
        _centre(model, options)
    if options.flatten_solvent:
        model.references = masks.of_solvent(
            model.references, options.particle_diameter_A / model.pixel_A, model.solvent_mask
        )
    if not by_correlation:  # after that the resolution is still the one of the first filter
        model.resolution_shell = sizes.resolution_shell(model.ssnr)


def _maximise(model: Model, lookup: Tables, sums: Accumulated) -> None:
    """EM: the references of largest posterior probability."""
    plane = lookup.reference.plane
    _take_spectra(model, sums.weight, lookup)
    tau2 = lookup.reference.tau2
    maps = maximisation.reconstructed(sums, tau2, model.tau2_fudge, plane)
    empty = sums.weight.sum(1) <= 0.0
    maps[empty] = 0.0
    model.references = maps.float().cpu()


def _descend(model: Model, options: Options, lookup: Tables, halves: list[Accumulated]) -> None:
    """VDAM: one step along the gradient, and perhaps a class that is replaced."""
    assert model.moments is not None  # noqa: S101
    filled = halves[0].weight.sum(1) + halves[1].weight.sum(1) > 1e-6
    active = filled & (model.fractions.to(filled.device) > 0.0)
    found = maximisation.gradient(halves, model.moments, active, lookup)
    _take_spectra(model, halves[0].weight, lookup)
    step = maximisation.class_step(model.step_size, model.fractions).to(filled.device)
    copied = None
    if _replaces(model, options, "copy"):
        copied = maximisation.replacement(model.fractions, found.energy.cpu(), options.inactivity)
    before = model.references
    after = maximisation.stepped(model, found, lookup, model.tau2_fudge, step).float().cpu()
    changed = active.cpu().reshape(-1, *(1 for _ in range(model.dim)))
    model.references = torch.where(changed, after, before)
    if copied is not None:
        _copy(model, before, *copied)


def _replaces(model: Model, options: Options, by: str) -> bool:
    """Tell whether classes that ran empty are replaced in this way, in this iteration."""
    if not options.gradient or options.inactivity <= 0.0 or options.replacement != by:
        return False
    may = schedule.replaces if by == "copy" else schedule.splits
    return may(model.place or model.iteration, options.iterations)


def _take_spectra(model: Model, weight: Tensor, lookup: Tables) -> None:
    found = maximisation.spectra(
        weight, lookup.reference.tau2, model.tau2_fudge, lookup.reference.plane, model.tau2.shape[1]
    )
    model.ssnr, model.sigma2 = found.ssnr.cpu(), found.sigma2.cpu()
    model.coverage = found.coverage.cpu()


def _copy(model: Model, before: Tensor, worst: int, best: int) -> None:
    """Let an inactive class go on from where the most active one was."""
    assert model.moments is not None  # noqa: S101
    model.references[worst] = before[best]
    # Quirk 3 of RELION damps the first row of one moment only; ours damps all of both.
    model.moments.first[:, worst] = 0.9 * model.moments.first[:, best]
    model.moments.second[worst] = model.moments.second[best]
    for values in (model.fractions, model.tau2, model.ssnr, model.coverage, model.sigma2):
        values[worst] = values[best].clone()


def _centre(model: Model, options: Options) -> None:
    """Move references so that their positive mass is in the middle."""
    most = model.sampling.offset_range_A / model.pixel_A
    shifts = masks.centre_shifts(model.references, most)
    if options.gradient:
        length = torch.linalg.vector_norm(shifts, dim=1, keepdim=True)
        least = max(0.01 * options.particle_diameter_A / model.pixel_A, LEAST_CENTRING_PX)
        shifts = torch.where(length < least, 0.0, shifts)
        _shift_moments(model, shifts)
    else:
        ini, mid, _ = schedule.phases(options.iterations)
        if model.iteration >= ini + mid:
            return
    if bool((shifts != 0.0).any()):
        model.references = masks.shifted(model.references, shifts)


def _shift_moments(model: Model, shifts: Tensor) -> None:
    """Turn the phases of the moments as the references were moved."""
    if model.moments is None or not bool((shifts != 0.0).any()):
        return
    size = 2 * model.box
    y = torch.fft.fftfreq(size, dtype=torch.float64)
    x = torch.fft.rfftfreq(size, dtype=torch.float64)
    for k, (dx, dy) in enumerate(shifts.tolist()):
        if dx or dy:
            angle = -2.0 * torch.pi * (y[:, None] * dy + x[None, :] * dx).reshape(-1)
            turn = torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
            model.moments.first[:, k] *= turn
