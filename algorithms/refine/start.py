"""The state before the first iteration: noise of the images and first references.

Source: refinement.md sections 1.7, 2.6 and 2.7.
"""

import math

import numpy as np
import torch
from torch import Tensor

from algorithms.refine import masks
from algorithms.refine.expectation import batches, ctf_columns
from algorithms.refine.geometry import disc, from_fourier, to_fourier
from algorithms.refine.images import Preparer, check_images, ctf_values
from algorithms.refine.sampling import Sampling
from algorithms.refine.sizes import first_filter_A
from algorithms.refine.space import denovo, filters
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.types import DataSet, Model, Moments, Options, RefineError

# So many particles of an optics group tell its noise.
NOISE_PARTICLES = 1000
BLOBS = 40
FILTER_SHELLS = 2


def start(data: DataSet, options: Options, sampling: Sampling, group_names: list[str]) -> Model:
    """Return the model before the first iteration.

    Parameters
    ----------
    data
        The particles.
    options
        What is to be done.
    sampling
        First steps and ranges.
    group_names
        Of the particles' groups.

    Raises
    ------
    RefineError
        There are fewer particles than classes.
    """
    box, k = data.images.box, options.n_classes
    if len(data) < k:
        raise RefineError(f"{len(data)} particles cannot make {k} classes: ask for fewer classes")
    shells = box // 2 + 1
    random = np.random.default_rng(options.seed)
    order = random.permutation(len(data))
    noise = first_noise(data, options, order)
    some = order[: NOISE_PARTICLES * len(data.optics)]
    dim = 3 if isinstance(sampling, Sampling3D) else 2
    filter_A = options.ini_high_A or first_filter_A(box, data.pixel_A)
    references = _first_maps(data, options, some, noise, random, dim, filter_A)
    pad = options.pad if dim == 3 else 2
    zeros = torch.zeros((k, shells), dtype=torch.float64)
    return Model(
        pixel_A=data.pixel_A,
        references=references.float(),
        fractions=torch.full((k,), 1.0 / k, dtype=torch.float64),
        prior_offset_A=torch.zeros((k, 2), dtype=torch.float64),
        noise=noise,
        sigma_offset_A=10.0,
        mean_norm=1.0,
        scales=torch.ones(len(group_names), dtype=torch.float64),
        tau2=zeros.clone(),
        ssnr=zeros.clone(),
        coverage=zeros.clone(),
        sigma2=zeros.clone(),
        resolution_shell=max(5, math.floor(box * data.pixel_A / filter_A + 0.5)),
        current_size=0,
        accuracy_deg=torch.full((k,), 999.0, dtype=torch.float64),
        accuracy_A=torch.full((k,), 999.0, dtype=torch.float64),
        orientability=zeros.clone(),
        sampling=sampling,
        tau2_fudge=options.tau2_fudge,
        moments=Moments.start(k, box, pad, dim) if options.gradient else None,
        group_names=group_names,
        pad=pad,
    )


def _first_maps(
    data: DataSet,
    options: Options,
    order: np.ndarray,
    noise: Tensor,
    random: np.random.Generator,
    dim: int,
    filter_A: float,
) -> Tensor:
    """Return blobs as bright as averages of particles, low-passed and within the particle."""
    diameter_px = options.particle_diameter_A / data.pixel_A
    if dim == 3:
        maps = denovo.averages(data, options, order, noise, random)
        maps = denovo.blobs(maps, diameter_px, random)
        maps = filters.low_passed(maps, data.pixel_A, filter_A)
    else:
        maps = _averages(data, options, order, noise, random)
        maps = low_passed(_blobs(maps, diameter_px, random), data.pixel_A, filter_A)
    return masks.flattened(maps, diameter_px)


def low_passed(maps: Tensor, pixel_A: float, resolution_A: float) -> Tensor:
    """Return maps `[K, N, N]` low-pass filtered with a soft edge of two shells."""
    box = maps.shape[-1]
    middle = box * pixel_A / resolution_A
    whole = disc(box, box)
    r = torch.sqrt((whole.jx**2 + whole.jy**2).double())
    low, high = middle - FILTER_SHELLS / 2.0, middle + FILTER_SHELLS / 2.0
    ramp = 0.5 - 0.5 * torch.cos(math.pi * (high - r) / FILTER_SHELLS)
    gain = torch.where(r < low, 1.0, torch.where(r > high, 0.0, ramp))
    spectrum = to_fourier(maps.double())
    filtered = torch.zeros_like(spectrum)
    mirror = torch.remainder(-whole.jy, box) * (box // 2 + 1) + whole.jx
    filtered[:, mirror] = spectrum[:, mirror] * gain  # column x = 0 has both halves
    filtered[:, whole.flat] = spectrum[:, whole.flat] * gain
    return from_fourier(filtered, box)


def first_noise(data: DataSet, options: Options, order: np.ndarray) -> Tensor:
    """Return sigma^2 of each optics group: power of the images without that of their mean."""
    box = data.images.box
    whole = disc(box, box)
    noise = torch.zeros((len(data.optics), box // 2 + 1), dtype=torch.float64)
    total_image = torch.zeros((box, box), dtype=torch.float64)
    counted = 0
    counts = whole.sums(torch.ones(whole.n, dtype=torch.float64))
    preparer = Preparer(box, options.particle_diameter_A / data.pixel_A, whole)
    for group in range(len(data.optics)):
        mine = order[data.particles.optics[order] == group][:NOISE_PARTICLES]
        for indices in batches(data, mine, options.batch):
            images = data.images.read(indices)
            check_images(images, indices)
            seen = preparer.masked(images, []) if options.zero_mask else images
            power = to_fourier(seen)[:, whole.flat].abs().double().pow(2).sum(0)
            noise[group] += whole.sums(power) / counts
            total_image += seen.double().sum(0)
            counted += len(indices)
        noise[group] /= max(1, len(mine))
    mean = to_fourier(total_image / max(1, counted))[whole.flat].abs().pow(2)
    noise = noise / 2.0 - whole.sums(mean) / counts / 2.0
    return torch.stack([_positive(row) for row in noise])


def _positive(row: Tensor) -> Tensor:
    """Return a spectrum whose values that are not positive take that of a neighbour."""
    good = (row > 0.0).nonzero()[:, 0]
    if not len(good):
        raise RefineError("the images have no noise: they are not particles of a micrograph")
    out = row.clone()
    for shell in range(len(row)):
        if row[shell] <= 0.0:
            before = good[good < shell]
            out[shell] = row[before[-1]] if len(before) else row[good[0]]
    return out


def _averages(
    data: DataSet, options: Options, order: np.ndarray, noise: Tensor, random: np.random.Generator
) -> Tensor:
    """Return CTF-weighted averages of particles that are shared out and turned at random."""
    box, k = data.images.box, options.n_classes
    whole = disc(box, box)
    sums = torch.zeros((k, whole.n), dtype=torch.complex128)
    weights = torch.zeros((k, whole.n), dtype=torch.float64)
    rank = np.empty(len(data), np.int64)
    rank[order] = np.arange(len(order))
    for indices in batches(data, order, options.batch):
        optics = int(data.particles.optics[indices[0]])
        psi = torch.as_tensor(random.uniform(0.0, 2.0 * math.pi, len(indices)))
        images = _turned(data.images.read(indices), psi)
        spectra = to_fourier(images)[:, whole.flat]
        ctf = torch.ones(1)
        if options.ctf:
            # The astigmatism turns with the image; it does not matter for a first average.
            ctf = ctf_values(ctf_columns(data, indices, optics), whole, data.pixel_A)
        precision = (1.0 / noise[optics])[whole.shell]
        klass = torch.as_tensor(rank[indices] % k)
        sums.index_add_(0, klass, (spectra * ctf).to(torch.complex128) * precision)
        weights.index_add_(0, klass, (ctf**2).expand(len(indices), whole.n).double() * precision)
    flat = torch.zeros((k, box * (box // 2 + 1)), dtype=torch.complex128)
    floor = weights.mean(1, keepdim=True) * 1e-3
    values = sums / torch.maximum(weights, floor)
    mirror = torch.remainder(-whole.jy, box) * (box // 2 + 1) + whole.jx
    column = whole.jx == 0
    flat[:, mirror[column]] = values[:, column].conj()
    flat[:, whole.flat] = values
    filter_A = options.ini_high_A or first_filter_A(box, data.pixel_A)
    return low_passed(from_fourier(flat, box), data.pixel_A, filter_A)


def _turned(images: Tensor, psi: Tensor) -> Tensor:
    """Return images turned by angles, bilinear."""
    cos, sin = torch.cos(psi).float(), torch.sin(psi).float()
    zero = torch.zeros_like(cos)
    theta = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = torch.nn.functional.affine_grid(theta, [len(images), 1, *images.shape[1:]], False)
    turned = torch.nn.functional.grid_sample(images[:, None], grid, align_corners=False)
    return turned[:, 0]


def _blobs(averages: Tensor, diameter_px: float, random: np.random.Generator) -> Tensor:
    """Return sums of Gaussian blobs as bright as the averages where they lie."""
    box = averages.shape[-1]
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    out = []
    for average in averages:
        sets = []
        for _ in range(2):
            centres = random.standard_normal((BLOBS, 2)) * diameter_px / 7.0 + box // 2
            centres = centres.clip(0, box - 1)
            total = torch.zeros((box, box), dtype=torch.float64)
            for x, y in centres:
                amplitude = float(average[int(y), int(x)].abs())
                square = (axis[None, :] + box // 2 - x) ** 2 + (axis[:, None] + box // 2 - y) ** 2
                total += amplitude * torch.exp(-100.0 * square / diameter_px**2)
            sets.append(total)
        made = sets[0] - sets[1] / 2.0
        out.append(made * (average.std() / made.std().clamp(min=1e-12)))
    return torch.stack(out)
