"""The state before the first iteration of a 3D classification: a map for all classes, and noise.

Source: refinement.md sections 1.7, 2.6 and 2.7.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from algorithms.refine import sizes, start
from algorithms.refine.space.filters import low_passed
from algorithms.refine.space.firstmap import read_map, read_mask
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.tables import reference_of
from algorithms.refine.types import DataSet, Model, Options

SIGMA_OFFSET_A = 10.0


def begun(
    data: DataSet,
    options: Options,
    sampling: Sampling3D,
    group_names: list[str],
    reference: Path,
    mask: Path | None = None,
) -> Model:
    """Return the model before the first iteration.

    Parameters
    ----------
    data, options
        The particles, and what is to be done.
    sampling
        First steps and ranges.
    group_names
        Of the particles' groups.
    reference, mask
        MRC files of the first map of all classes, and of the solvent mask.

    Raises
    ------
    RefineError
        A map does not fit the particles, or cannot be used.
    """
    box = data.images.box
    fits = options.resize_reference
    whole = read_map(reference, data, resize=fits)[None]
    if options.ini_high_A > 0.0:
        whole = low_passed(whole, data.pixel_A, options.ini_high_A)
    model = _model(data, options, sampling, group_names, whole)
    model.solvent_mask = None if mask is None else read_mask(mask, data, resize=fits)
    model.tau2 = reference_of(model, box).tau2.cpu()
    model.ssnr = _first_ratio(model, len(data))
    given = 0
    if options.ini_high_A > 0.0:
        given = math.floor(box * data.pixel_A / options.ini_high_A + 0.5)
    known = given or sizes.resolution_shell(model.ssnr)
    model.resolution_shell = max(sizes.LEAST_SHELL, min(known, box // 2))
    return model


def _model(
    data: DataSet, options: Options, sampling: Sampling3D, group_names: list[str], whole: Tensor
) -> Model:
    """Return a model whose classes are all one map `[1, N, N, N]`."""
    k, box = options.n_classes, data.images.box
    order = np.random.default_rng(options.seed).permutation(len(data))
    zeros = torch.zeros((k, box // 2 + 1), dtype=torch.float64)
    unknown = torch.full((k,), 999.0, dtype=torch.float64)
    return Model(
        pixel_A=data.pixel_A,
        references=whole.float().repeat(k, 1, 1, 1),
        fractions=torch.full((k,), 1.0 / k, dtype=torch.float64),
        prior_offset_A=torch.zeros((k, 2), dtype=torch.float64),
        noise=start.first_noise(data, options, order),
        sigma_offset_A=SIGMA_OFFSET_A,
        mean_norm=1.0,
        scales=torch.ones(len(group_names), dtype=torch.float64),
        tau2=zeros.clone(),
        ssnr=zeros.clone(),
        coverage=zeros.clone(),
        sigma2=zeros.clone(),
        resolution_shell=0,
        current_size=0,
        accuracy_deg=unknown.clone(),
        accuracy_A=unknown.clone(),
        orientability=zeros.clone(),
        sampling=sampling,
        tau2_fudge=options.tau2_fudge,
        group_names=group_names,
        pad=options.pad,
    )


def _first_ratio(model: Model, n: int) -> Tensor:
    """Return the data over the prior if all particles were there, evenly spread over the shells."""
    shell = torch.arange(model.tau2.shape[1], dtype=torch.float64)
    evidence = n * model.fractions[:, None] / model.noise.mean(0) / (2.0 * shell).clamp(min=1.0)
    return model.tau2_fudge * model.tau2 * evidence


def drawn_classes(n: int, n_classes: int, seed: int) -> np.ndarray:
    """Return a random class for each particle: where all begin from one map they become unlike."""
    return np.random.default_rng((seed, n_classes)).integers(0, n_classes, n)
