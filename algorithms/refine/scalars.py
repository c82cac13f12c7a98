"""Noise, norm, scales and priors after an E-step.

Source: refinement.md sections 1.7, 2.2 and 4.6.
"""

import math

import torch
from torch import Tensor

from algorithms.refine.sums import Sums
from algorithms.refine.types import Model, Options

LEAST_NOISE = 1e-14
LEAST_OFFSET_A2 = 2.0
SCALE_RANGE = 5.0


def update(
    model: Model, sums: Sums, options: Options, mu: float, *, keeps_noise: bool = False
) -> None:
    """Update a model's scalars and noise spectra.

    Parameters
    ----------
    model
        Is changed.
    sums
        Of the E-step.
    options
        Whether norm and scale are corrected.
    mu
        Share of the old values that is kept.
    keeps_noise
        Whether the noise stays what it was.
    """
    total = float(sums.total)
    model.fractions = mu * model.fractions + (1.0 - mu) * sums.classes.cpu() / total
    model.fractions /= model.fractions.sum()
    square = float(sums.offset_square) / (2.0 * total)
    variance = mu * model.sigma_offset_A**2 + (1.0 - mu) * square
    model.sigma_offset_A = math.sqrt(max(variance, LEAST_OFFSET_A2))
    if model.dim == 2:
        # Divided by the weight of all classes: quirk 2.
        offsets = sums.offsets.cpu() / total
        model.prior_offset_A = mu * model.prior_offset_A + (1.0 - mu) * offsets
    else:
        _directions(model, sums, mu)
    if not keeps_noise:
        _noise(model, sums, mu)
    if options.norm:
        model.mean_norm = mu * model.mean_norm + (1.0 - mu) * float(sums.norm) / total
    model.log_likelihood = float(sums.log_likelihood)
    model.mean_pmax = float(sums.pmax) / total


def _directions(model: Model, sums: Sums, mu: float) -> None:
    """Update the shares of the directions; what was known of other directions is forgotten."""
    shares = sums.directions if sums.directions.shape[1] > 1 else sums.classes[:, None]
    found = shares.cpu() / float(sums.total)
    before = model.pdf_direction
    if before is None or before.shape != found.shape:
        before = model.fractions[:, None].expand_as(found) / found.shape[1]
    model.pdf_direction = mu * before + (1.0 - mu) * found


def _noise(model: Model, sums: Sums, mu: float) -> None:
    counts = model.shell_counts()
    for group, weight in enumerate(sums.optics.cpu()):
        if weight <= 0.0:
            continue
        new = sums.noise[group].cpu() / (2.0 * weight * counts)
        noise = mu * model.noise[group] + (1.0 - mu) * new
        for shell in range(1, len(noise)):
            if noise[shell] < LEAST_NOISE:
                noise[shell] = noise[shell - 1]
        model.noise[group] = noise


def update_scales(model: Model, sums: Sums, members: Tensor, mu: float) -> None:
    """Update the intensity scales of the groups; their mean over the particles stays 1.

    Parameters
    ----------
    model, sums
        Is changed; of the E-step.
    members
        Particles in each group `[G]`.
    mu
        Share of the old values that is kept.
    """
    if len(model.scales) < 2:
        return
    cross, power = sums.cross.cpu(), sums.self.cpu()
    new = torch.where(power > 0.0, cross / power.clamp(min=1e-300), 1.0)
    scales = mu * model.scales + (1.0 - mu) * new
    median = float(torch.quantile(scales, 0.5))
    scales = scales.clamp(median / SCALE_RANGE, median * SCALE_RANGE)
    mean = float((scales * members).sum() / members.sum())
    model.scales = scales / mean
