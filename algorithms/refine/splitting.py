"""Filling classes that have run empty: the largest classes are split in two.

RELION lets an empty class go on from a copy of another; both then look for the same particles, and
most copies run empty again. Here the members of a large class that are in the mini-batch are put
in one frame, what their class and one factor for each image explain is taken off, and they are
parted along the direction in which the rest varies most. The empty class and the large one begin
anew from the averages of the two parts.

It is the first principal component of residuals that are weighted by the transfer function, so
what no image tells does not take part. All follows from the state of the run and its seed.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.refine import masks
from algorithms.refine.expectation import Work, _preparer, batches, make_batch
from algorithms.refine.geometry import Disc, from_fourier, to_fourier
from algorithms.refine.types import Model

# Shares of the mean class: one below is filled, and one above may be split.
EMPTY, LARGE = 0.25, 1.5
# Members that tell how a class varies, at least and at most.
LEAST_MEMBERS, MOST_MEMBERS = 20, 300
# Of the classes are filled in one iteration, at most: what is new needs its turn.
SHARE = 0.1
_TINY = 1e-12


@dataclass(frozen=True)
class _Varying:
    """Members of a class in its frame: transforms at some pixels, `[n, P]` complex.

    `rest` is the residual times the transfer function, `weight` `[P]` the mean square of that.
    """

    rest: Tensor
    weight: Tensor


def fill(work: Work, subset: np.ndarray) -> list[tuple[int, int]]:
    """Split large classes into empty ones.

    Parameters
    ----------
    work
        Of the iteration that was done; its model is changed.
    subset
        The particles of its mini-batch.

    Returns
    -------
    list
        Pairs of the class that was empty and the one that was split.
    """
    model = work.model
    random = np.random.default_rng((work.options.seed, model.iteration, 1))
    done = []
    for empty, large in chosen(model.fractions, max(1, int(SHARE * model.n_classes))):
        members = subset[work.data.particles.classes[subset] == large]
        if len(members) < LEAST_MEMBERS:
            continue
        members = np.sort(random.permutation(members)[:MOST_MEMBERS])
        _part(work, members, empty, large)
        done.append((empty, large))
    return done


def chosen(fractions: Tensor, most: int) -> list[tuple[int, int]]:
    """Return (empty class, class to split), the emptiest and the largest first.

    Parameters
    ----------
    fractions
        Of the classes `[K]`, sum 1.
    most
        Pairs at most.
    """
    mean = 1.0 / len(fractions)
    order = torch.argsort(fractions, stable=True).tolist()
    empty = [k for k in order if fractions[k] < EMPTY * mean]
    large = [k for k in reversed(order) if fractions[k] > LARGE * mean]
    return list(zip(empty, large, strict=False))[:most]


def _part(work: Work, members: np.ndarray, empty: int, large: int) -> None:
    """Let two classes begin from the two parts of one."""
    model = work.model
    varying = _varying(work, members, large)
    pixels = _pixels(work).to("cpu")
    sides = direction(varying.rest)
    mean = (varying.rest * sides[:, None]).mean(0)
    noise = model.noise.mean(0)[pixels.shell]
    prior = (len(members) * model.tau2_fudge * model.tau2[large]).clamp(min=1e-300)[pixels.shell]
    apart = _image(mean / (varying.weight + noise / prior), pixels, model.box)
    if work.options.flatten_solvent:
        apart = masks.flattened(apart, work.options.particle_diameter_A / model.pixel_A)
    whole = model.references[large].double()
    _copy(model, empty, large)
    model.references[empty] = (whole + apart).to(model.references)
    model.references[large] = (whole - apart).to(model.references)


def direction(rest: Tensor) -> Tensor:
    """Return the side, 1 or -1, of each residual `[n, P]` along where they vary most, `[n]`."""
    flat = torch.view_as_real(rest).flatten(1)
    flat = flat - flat.mean(0)
    _, vectors = torch.linalg.eigh(flat @ flat.T)
    scores = vectors[:, -1]
    return torch.where(scores > scores.median(), 1.0, -1.0)


def _pixels(work: Work) -> Disc:
    """Return the pixels up to the present resolution, without the origin."""
    return work.tables.fine.pixels.take(_inside(work))


def _inside(work: Work) -> Tensor:
    shell = work.tables.fine.pixels.shell
    return (shell > 0) & (shell <= work.model.resolution_shell)


def _varying(work: Work, members: np.ndarray, klass: int) -> _Varying:
    model, particles = work.model, work.data.particles
    preparer = _preparer(work)
    pixels, take = _pixels(work), _inside(work)
    reference = model.references[klass].double().to(work.device)
    rest, weight = [], []
    for indices in batches(work.data, members, work.options.batch):
        batch, moved = make_batch(work, preparer, indices)
        transfer = batch.transfer[:, take].double()
        angle = torch.as_tensor(np.radians(particles.psi_deg[indices]), device=work.device)
        left = torch.as_tensor(particles.offset_A[indices] / model.pixel_A - moved)
        seen = batch.masked[:, take].to(torch.complex128)
        seen = seen * _turns(left.to(work.device), pixels)
        turned = to_fourier(turned_by(reference.expand(len(indices), -1, -1), angle))
        shown = transfer * turned[:, pixels.flat]
        factor = (seen * shown.conj()).real.sum(1) / shown.abs().pow(2).sum(1).clamp(min=_TINY)
        residual = transfer * (seen - factor[:, None] * shown)
        back = turned_by(_image(residual, pixels, model.box), -angle)
        rest.append(to_fourier(back)[:, pixels.flat])
        weight.append(transfer**2)
    return _Varying(torch.cat(rest).cpu(), torch.cat(weight).mean(0).cpu())


def _turns(shifts_px: Tensor, pixels: Disc) -> Tensor:
    """Return what moves images by shifts `[n, 2]`, `[n, P]`."""
    angle = (-2.0 * math.pi / pixels.box) * (
        shifts_px[:, :1] * pixels.jx.double() + shifts_px[:, 1:] * pixels.jy.double()
    )
    return torch.polar(torch.ones_like(angle), angle)


def _image(values: Tensor, pixels: Disc, box: int) -> Tensor:
    """Return images `[..., N, N]` of values `[..., P]` at some pixels, 0 elsewhere."""
    flat = values.new_zeros((*values.shape[:-1], box * (box // 2 + 1)))
    column = pixels.jx == 0
    mirror = torch.remainder(-pixels.jy[column], box) * (box // 2 + 1)
    flat[..., mirror] = values[..., column].conj()
    flat[..., pixels.flat] = values
    return from_fourier(flat, box)


def turned_by(images: Tensor, angle: Tensor) -> Tensor:
    """Return images `[n, N, N]` as a projection at in-plane angles `[n]` (radians) shows them."""
    box = images.shape[-1]
    axis = torch.arange(box, device=images.device, dtype=images.dtype) - box // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cos, sin = (part.to(images)[:, None, None] for part in (torch.cos(angle), torch.sin(angle)))
    where = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
    grid = 2.0 * (where + box // 2) / (box - 1) - 1.0
    out = torch.nn.functional.grid_sample(images[:, None], grid, align_corners=True)
    return out[:, 0]


def _copy(model: Model, empty: int, large: int) -> None:
    """Let an empty class go on from where another is, each with half of its particles."""
    for values in (
        model.fractions, model.prior_offset_A, model.tau2, model.ssnr, model.coverage, model.sigma2,
    ):  # fmt: skip
        values[empty] = values[large]
    model.fractions[[empty, large]] *= 0.5
    model.fractions /= model.fractions.sum()
    if model.moments is not None:
        model.moments.first[:, empty] = model.moments.first[:, large]
        model.moments.second[empty] = model.moments.second[large]
