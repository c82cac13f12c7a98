"""One iteration of two halves: each has its own E-step, the maps are made together.

Source: refinement.md sections 3.4, 5.1 and 5.4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.refine import masks, maximisation, scalars
from algorithms.refine.auto import halves as agreement
from algorithms.refine.auto import solvent
from algorithms.refine.expectation import Work, expectation
from algorithms.refine.maximisation import Accumulated
from algorithms.refine.shards import Shards
from algorithms.refine.space import correlation
from algorithms.refine.space.volume import Space
from algorithms.refine.sums import Sums
from algorithms.refine.tables import tables
from algorithms.refine.types import DataSet, Model, Options

NO_PRIOR = 1e30  # of its power: there is none


@dataclass(kw_only=True)
class Half:
    """One half of the particles: its model, and which particles are in it."""

    model: Model
    members: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an iteration is to do.

    Parameters
    ----------
    join_A
        Halves are joined to this resolution; 0: nowhere.
    resolution
        Present one, 1/A.
    mask
        In which the halves are correlated `[N, N, N]`; None: without a mask.
    is_last
        Whether the maps of both halves are to be put together.
    """

    join_A: float
    resolution: float
    mask: Tensor | None = None
    is_last: bool = False


@dataclass(frozen=True, kw_only=True)
class Made:
    """What an iteration made besides the models.

    Parameters
    ----------
    fsc
        Of the halves, `[S]`.
    unfiltered
        Maps of both halves without prior, `[N, N, N]`; empty where nobody asked for them.
    """

    fsc: Tensor
    unfiltered: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class _Seen:
    """What the E-step of one half has found."""

    space: Space
    sums: Sums
    own: Accumulated


def iterate(
    data: DataSet,
    pair: Sequence[Half],
    options: Options,
    plan: Plan,
    device: torch.device | str = "cpu",
    tell: Callable[[int], None] = lambda n: None,
    shards: Shards | None = None,
) -> Made:
    """Do an iteration of both halves; their models and the particles' columns are changed.

    After the last iteration the first model is that of all particles.

    Parameters
    ----------
    data, pair, options
        The particles, the halves with their window and sampling set, what is to be done.
    plan
        Of this iteration.
    device
        Where the E-step runs.
    tell
        Is called with the number of particles done.
    shards
        Processes that share the E-step.
    """
    seen: list[_Seen] = []
    for half in pair:
        before = sum(len(one.members) for one in pair[: len(seen)])
        seen.append(_expected(data, half, options, device, lambda n, b=before: tell(b + n), shards))
    space = seen[0].space
    wants = plan.is_last or plan.mask is not None
    unfiltered = [_without_prior(one.own, space, pair[0].model) for one in seen if wants]
    edge_A = pair[0].model.box * pair[0].model.pixel_A
    shell = agreement.joins_to(plan.join_A, plan.resolution, edge_A)
    first, second = (one.own for one in seen)
    agreement.joined(first.data, second.data, space, shell)
    agreement.joined(first.weight, second.weight, space, shell)
    if plan.mask is not None:
        curve = solvent.corrected(
            unfiltered[0].double(), unfiltered[1].double(), plan.mask, pair[0].model.window
        )
    else:
        both = (first.data[0], second.data[0]), (first.weight[0], second.weight[0])
        curve = agreement.fsc(*both, space).cpu()
    if plan.is_last:
        _together(data, pair, seen, curve, options)
    else:
        for half, one in zip(pair, seen, strict=True):
            _maximise(half.model, one.own, space, curve)
            _update(data, half.model, options, one.sums, half.members)
            _flatten(half.model, options)
    return Made(fsc=curve, unfiltered=tuple(unfiltered))


def _expected(
    data: DataSet,
    half: Half,
    options: Options,
    device: torch.device | str,
    tell: Callable[[int], None],
    shards: Shards | None,
) -> _Seen:
    """Do the E-step of a half."""
    model = half.model
    model.iteration += 1
    model.tau2_fudge = options.tau2_fudge
    if shards is not None:
        shards.begin(data, model, options, half.members)
    lookup = tables(model, options, device)
    step = expectation if shards is None else shards.expectation
    sums = step(Work(data, model, options, lookup, device), half.members, tell)
    model.current_size = lookup.size
    own = maximisation.accumulated(sums, lookup, residual=False)[0]
    # The same numbers are in what was accumulated.
    sums.data, sums.weight = sums.data.new_zeros(0), sums.weight.new_zeros(0)
    space = lookup.reference.plane
    assert isinstance(space, Space)  # noqa: S101
    return _Seen(space, sums, own)


def _without_prior(own: Accumulated, space: Space, model: Model) -> Tensor:
    """Return the map of a half as its images have it."""
    none = torch.full_like(model.tau2, NO_PRIOR).to(own.weight.device)
    return maximisation.reconstructed(own, none, 1.0, space)[0].float().cpu()


def _together(
    data: DataSet, pair: Sequence[Half], seen: Sequence[_Seen], curve: Tensor, options: Options
) -> None:
    """Make one map and one model of both halves, in place of the first half's."""
    first, second = seen
    for mine, theirs in zip(first.sums.tensors(), second.sums.tensors(), strict=True):
        mine += theirs
    whole = Accumulated(first.own.data + second.own.data, first.own.weight + second.own.weight)
    model, everyone = pair[0].model, np.concatenate([half.members for half in pair])
    _maximise(model, whole, first.space, curve, whole=True)
    _update(data, model, options, first.sums, everyone)


def _maximise(
    model: Model, own: Accumulated, space: Space, curve: Tensor, *, whole: bool = False
) -> None:
    """Make the map that is most probable under the prior that the halves' agreement tells."""
    fudge, shells, device = model.tau2_fudge, model.tau2.shape[1], own.weight.device
    nothing = torch.zeros((1, shells), dtype=torch.float64, device=device)
    sigma2 = maximisation.spectra(own.weight, nothing, fudge, space, shells).sigma2
    prior = agreement.prior(curve.to(device), sigma2, fudge, whole=whole)
    found = maximisation.spectra(own.weight, prior.tau2, fudge, space, shells)
    model.fsc = curve
    model.sigma2, model.coverage = found.sigma2.cpu(), found.coverage.cpu()
    model.tau2, model.ssnr = prior.tau2.cpu(), prior.ssnr[None].cpu()
    maps = maximisation.reconstructed(own, prior.tau2, fudge, space)
    model.references = maps.float().cpu()


def _update(data: DataSet, model: Model, options: Options, sums: Sums, members: np.ndarray) -> None:
    """Update noise, priors and scales from the particles that were looked at."""
    by_correlation = options.first_cc and model.iteration == 1
    if options.scale and not by_correlation:
        groups = torch.as_tensor(data.particles.group[members])
        counts = torch.bincount(groups, minlength=len(model.scales)).double()
        scalars.update_scales(model, sums, counts, 0.0)
    scalars.update(model, sums, options, 0.0, keeps_noise=by_correlation)
    if by_correlation:
        correlation.filtered(model, options)


def _flatten(model: Model, options: Options) -> None:
    if options.flatten_solvent:
        diameter = options.particle_diameter_A / model.pixel_A
        model.references = masks.of_solvent(model.references, diameter, model.solvent_mask)
