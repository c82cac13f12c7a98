"""The M-step: new references and spectra from the sums, for EM and for VDAM.

Source: refinement.md sections 3.1 to 3.3 and 4.2 to 4.5.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.refine import masks, projector
from algorithms.refine.lookups import Accumulated, Tables, shell_means, shell_of_voxels
from algorithms.refine.projector import Lattice, Plane
from algorithms.refine.sizes import LEAST_SHELL
from algorithms.refine.sums import Sums
from algorithms.refine.types import Model, Moments

# Of the shell's mean weight: less than this share counts as this share.
LEAST_WEIGHT = 0.001
FIRST_DECAY, SECOND_DECAY = 0.9, 0.999
TINY = 1e-12


@dataclass(frozen=True)
class Spectra:
    """Of each class, `[K, S]` float64."""

    ssnr: Tensor
    sigma2: Tensor
    coverage: Tensor


def accumulated(sums: Sums, tables: Tables, *, residual: bool) -> list[Accumulated]:
    """Return each half's sums on the padded plane.

    Parameters
    ----------
    sums, tables
        Of the iteration.
    residual
        Subtract what the references explain (VDAM).
    """
    return tables.fine.accumulated(sums, residual=residual)


def spectra(weight: Tensor, tau2: Tensor, fudge: float, plane: Lattice, shells: int) -> Spectra:
    """Return data over prior, noise of the reference and coverage from Fourier weights.

    Parameters
    ----------
    weight
        `[K, voxels]`.
    tau2
        `[K, S]`.
    fudge
        T.
    plane
        Of the voxels.
    shells
        S.
    """
    shell = shell_of_voxels(plane, weight.device, edge=True)
    shell = torch.where(shell < shells, shell, -1)
    mean = shell_means(plane.pd * weight, shell, shells)
    prior = torch.where(tau2 > 0.0, fudge * tau2, 0.0)
    ratio = plane.pd * weight * prior[:, shell.clamp(min=0)]
    reached = torch.arange(shells, device=weight.device) <= plane.radius // plane.pad
    none = torch.zeros((), dtype=torch.float64, device=weight.device)
    return Spectra(
        ssnr=torch.where(reached, shell_means(ratio, shell, shells), none),
        sigma2=torch.where(mean > 0.0, 1.0 / mean.clamp(min=1e-300), none),
        coverage=shell_means((ratio >= 1.0).double(), shell, shells),
    )


def reconstructed(sums: Accumulated, tau2: Tensor, fudge: float, plane: Lattice) -> Tensor:
    """Return the maps that have the largest posterior probability, `[K, N, N]` float64.

    Parameters
    ----------
    sums
        Data and weight.
    tau2, fudge
        Prior `[K, S]` and T.
    plane
        Of the voxels.
    """
    device = sums.weight.device
    shell = shell_of_voxels(plane, device)
    weight = sums.weight.clone()
    prior = 1.0 / (plane.pd * fudge * tau2).clamp(min=1e-300)
    has_prior = (shell >= LEAST_SHELL) & (shell < tau2.shape[1])
    index = shell.clamp(0, tau2.shape[1] - 1)
    added = torch.where(
        tau2[:, index] > 0.0, prior[:, index], 1.0 / (0.001 * weight).clamp(min=1e-300)
    )
    weight = torch.where(has_prior, weight + added, weight)
    floor = torch.floor(plane.distance(device) / plane.pad).long()
    kept = plane.distance(device) <= plane.radius + 1e-4
    counted = torch.where(kept, floor, -1)
    means = shell_means(weight, counted, int(floor.max()) + 1)
    least = LEAST_WEIGHT * means[:, floor]
    values = sums.data / torch.maximum(weight, least).clamp(min=1e-300)
    values = torch.where(kept, values, torch.zeros((), dtype=values.dtype, device=device))
    return plane.gridding(device) ** -1 * masks.edge_masked(_map(values, plane))


def _map(values: Tensor, plane: Lattice) -> Tensor:
    # Padded volumes are large: one class at a time.
    few = len(values) if isinstance(plane, Plane) else 1
    return torch.cat(
        [
            plane.map_of(projector.off_plane(some, plane, plane.empty(len(some), some)))
            for some in values.split(few)
        ]
    )


# ---- VDAM


@dataclass(frozen=True)
class Gradient:
    """What VDAM goes by: direction `[K, voxels]`, disagreement of the halves `[K, S]`, energy."""

    direction: Tensor
    noise: Tensor
    energy: Tensor


def gradient(
    halves: list[Accumulated], moments: Moments, active: Tensor, tables: Tables
) -> Gradient:
    """Update the moments; return the direction.

    Parameters
    ----------
    halves
        Residuals and weights of both halves.
    moments
        Are updated; they are on the CPU, wherever the sums are.
    active
        Classes that are, bool `[K]`.
    tables
        Of the iteration.
    """
    plane, box = tables.reference.plane, tables.reference.plane.box
    shells = box // 2 + 1
    device = halves[0].data.device
    shell = shell_of_voxels(plane, device)
    inside = shell >= 0
    g = torch.stack([half.data / half.weight.clamp(min=1.0) for half in halves])
    g = torch.where(inside, g, torch.zeros((), dtype=g.dtype, device=device))
    first = torch.stack([projector.on_plane(m, plane, within=False) for m in moments.first])
    first = first.to(device)
    second = projector.on_plane(moments.second, plane, within=False).to(device)
    is_new = (moments.first.abs().amax(-1) == 0.0).unsqueeze(-1).to(device)
    moved = torch.where(is_new, g, FIRST_DECAY * first.to(g.dtype) + (1.0 - FIRST_DECAY) * g)
    mean = (g[0] + g[1]) / 2.0
    apart = (g[1] - g[0]).abs() ** 2 / (mean.abs() ** 2 + TINY)
    spread = SECOND_DECAY * second.double() + (1.0 - SECOND_DECAY) * apart
    update = inside & active[:, None]
    moved = torch.where(update, moved, first.to(g.dtype))
    spread = torch.where(update, spread, second.double())
    for half in range(2):
        projector.off_plane(moved[half].to(torch.complex64).cpu(), plane, moments.first[half])
    projector.off_plane(spread.float().cpu(), plane, moments.second)
    direction = (moved[0] + moved[1]) / 2.0 / (torch.sqrt(spread) + TINY)
    direction = torch.where(inside, direction, torch.zeros((), dtype=g.dtype, device=device))
    noise = shell_means((moved[0] - moved[1]).abs(), shell, shells)
    stored = moments.second.shape[1]
    return Gradient(direction, noise, (direction.abs() ** 2).sum(1) / stored)


def stepped(model: Model, found: Gradient, tables: Tables, fudge: float, step: Tensor) -> Tensor:
    """Return the references after one step along the gradient, `[K, N, N]` float64.

    Parameters
    ----------
    model
        Before it.
    found
        The direction.
    tables
        Of the iteration.
    fudge
        T.
    step
        Learning rate of each class `[K]`.
    """
    plane, box = tables.reference.plane, model.box
    device = found.direction.device
    transform = plane.transform(model.references.to(device).double())
    values = projector.on_plane(transform, plane, within=False)
    shell = shell_of_voxels(plane, device)
    power = shell_means(values.abs(), shell, box // 2 + 1)
    ratio = torch.where(found.noise > 0.0, 2.0 * fudge * power / found.noise.clamp(min=1e-300), 0.0)
    share = (ratio / (1.0 + ratio)).clamp(0.0, 1.0)[:, shell.clamp(min=0)]
    moved = values + step[:, None] * (share * found.direction - (1.0 - share) * values)
    moved = torch.where(shell >= 0, moved, values)
    out = plane.map_of(projector.off_plane(moved, plane, transform.clone()))
    return masks.edge_masked(out)


def class_step(step: float, fractions: Tensor) -> Tensor:
    """Return the learning rate of each class: rare classes move less, `[K]`."""
    k = len(fractions)
    return step * (1.0 - torch.exp(-(3.0 * k + 10.0) * fractions))


def replacement(fractions: Tensor, energy: Tensor, threshold: float) -> tuple[int, int] | None:
    """Return (inactive class, class that is copied into it), None when all are active.

    Parameters
    ----------
    fractions, energy
        Of each class `[K]`.
    threshold
        Share of the mean fraction of the active classes.
    """
    active = int((fractions > 0.0).sum())
    worst = int(torch.argmin(fractions))
    best = int(torch.argmax(energy * fractions))
    if active == 0 or worst == best or float(fractions[worst]) >= threshold / active:
        return None
    return worst, best
