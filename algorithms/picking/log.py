"""Particles as blobs: the Laplacian-of-Gaussian picker, with RELION's rules and defaults.

The micrograph is filtered with LoG kernels of many sizes. Where the best-fitting size lies in
the wanted range and the response is above the mean, the strongest peak becomes a particle and
clears its surroundings, and so on. Coordinates are px of the micrograph, 0 at the centre of the
first pixel, rows in MRC order.

Source: preprocessing.md section 4.1.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms import fourier

LARGEST_FACTOR = 5  # sizes up to 5 times beyond the range compete, to recognise what is no particle


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """How to pick.

    Parameters
    ----------
    diameter_min_A, diameter_max_A
        Smallest and largest particle.
    max_resolution_A
        Finer detail is not looked at.
    adjust_threshold, upper_threshold
        A peak counts from mean + adjust x sigma of the figure of merit, up to mean + upper x sigma.
    neighbour
        Cleared radius around a peak, as a fraction of the mean of its and the smallest diameter.
    invert
        True where particles are white.
    outlier_z
        Pixels further than this many sigma from the mean become the mean.
    skip_side_px
        Border to leave out; half the smallest diameter at least.
    max_stddev_noise
        Limit for the standard deviation of the pixels in a ring around a peak, the micrograph
        having 1: ice crystals, carbon edges and gold exceed it. None switches it off (RELION).
    """

    diameter_min_A: float
    diameter_max_A: float
    max_resolution_A: float = 20.0
    adjust_threshold: float = 0.0
    upper_threshold: float = 999.0
    neighbour: float = 1.0
    invert: bool = False
    outlier_z: float = 8.0
    skip_side_px: float = 0.0
    max_stddev_noise: float | None = 1.1

    def __post_init__(self) -> None:
        if not 0 < self.diameter_min_A <= self.diameter_max_A < math.inf:
            raise ValueError(
                f"diameters from {self.diameter_min_A} to {self.diameter_max_A} A: "
                "both must be positive, the first not above the second"
            )
        if not self.max_resolution_A > 0 or not self.neighbour > 0:
            raise ValueError("max_resolution_A and neighbour must be positive")


@dataclass(frozen=True, kw_only=True)
class Picks:
    """Particles, the best first: arrays `[n]` in micrograph px, response, and diameter in A."""

    x_px: np.ndarray
    y_px: np.ndarray
    fom: np.ndarray
    diameter_A: np.ndarray

    def __len__(self) -> int:
        return len(self.x_px)


def pick_log(
    image: np.ndarray | Tensor,
    pixel_size_A: float,
    options: LogOptions,
    *,
    seed: int,
    device: str | torch.device = "cpu",
) -> Picks:
    """Pick the particles of one micrograph.

    Parameters
    ----------
    image
        `[ny, nx]`, particles dark unless `options.invert`.
    pixel_size_A
        Of the image.
    options
        Diameters and thresholds.
    seed
        Of the noise that fills the image up to a square.
    device
        Where to compute.

    Raises
    ------
    ValueError
        The image is not 2-D or holds values that are not finite.
    """
    tensor = torch.as_tensor(image, device=device).to(torch.float32)
    if tensor.ndim != 2 or not torch.isfinite(tensor).all():
        raise ValueError("picking needs a two-dimensional image of finite values")
    ny, nx = tensor.shape
    if tensor.std() == 0:
        return _picks([], [], [], [])
    square = _squared(_normalised(tensor, options), seed)
    size = square.shape[0]
    work = _work_size(2 * round(size * pixel_size_A / options.max_resolution_A), size)
    scale = work / size
    fom, diameter = _best_response(square, work, pixel_size_A, options)
    left, top = size // 2 - nx // 2, size // 2 - ny // 2
    skip = int(max(options.skip_side_px, 0.5 * options.diameter_min_A / pixel_size_A) * scale)
    inner = torch.zeros_like(fom, dtype=torch.bool)
    rows = slice(round(top * scale) + skip, round((top + ny) * scale) - skip)
    columns = slice(round(left * scale) + skip, round((left + nx) * scale) - skip)
    inner[rows, columns] = True
    flags, upper = _thresholded(fom, diameter, inner, options)
    response, sizes = fom.cpu().numpy(), diameter.cpu().numpy()
    radius_scale = scale * options.neighbour / (2 * pixel_size_A)
    radii = np.floor((sizes + options.diameter_min_A) * radius_scale + 0.5)
    y, x = _greedy(np.where(flags.cpu().numpy(), response, 0), radii)
    below = response[y, x] < upper
    y, x = y[below], x[below]
    x_px = (x + _parabola(response, y, x, 0, 1)) / scale - left
    y_px = (y + _parabola(response, y, x, 1, 0)) / scale - top
    found = _picks(x_px.clip(0, nx - 1), y_px.clip(0, ny - 1), response[y, x], sizes[y, x])
    if options.max_stddev_noise is None:
        return found
    noise = _ring_deviation(square, found.x_px + left, found.y_px + top, pixel_size_A, options)
    quiet = noise < options.max_stddev_noise
    return _picks(found.x_px[quiet], found.y_px[quiet], found.fom[quiet], found.diameter_A[quiet])


def diameters(minimum_A: float, maximum_A: float) -> list[float]:
    """Diameters to try, in A: the range, and fractions and multiples that compete with it."""
    factors = range(2, LARGEST_FACTOR + 1)
    smaller = [math.floor(minimum_A / factor + 0.5) for factor in reversed(factors)]
    larger = [math.floor(maximum_A * factor + 0.5) for factor in factors]
    return [*smaller, minimum_A, (minimum_A + maximum_A) / 2, maximum_A, *larger]


def _work_size(wanted: int, largest: int) -> int:
    """Even size nearest to the wanted one with small prime factors: the reference's own choice.

    With its grid, and so its rounded radii, the same flanks survive next to a cleared disc.
    """
    if wanted >= largest:
        return largest
    steps = (step for reach in range(0, wanted, 2) for step in (-reach, reach))
    sizes = (wanted + step for step in steps)
    return next(n for n in sizes if max(_largest_prime(n), _largest_prime(n // 2 + 1)) <= 43)


def _largest_prime(number: int) -> int:
    prime = 2
    while prime * prime <= number:
        if number % prime:
            prime += 1
        else:
            number //= prime
    return number


def _picks(x: object, y: object, fom: object, diameter: object) -> Picks:
    arrays = (np.asarray(values, dtype=np.float64) for values in (x, y, fom, diameter))
    return Picks(**dict(zip(("x_px", "y_px", "fom", "diameter_A"), arrays, strict=True)))


def _normalised(image: Tensor, options: LogOptions) -> Tensor:
    """Mean 0, sigma 1, outliers at the mean, particles positive."""
    sigma, mean = torch.std_mean(image.double(), correction=0)
    image = (image - mean.float()) / sigma.float()
    image = torch.where(image.abs() > options.outlier_z, 0.0, image)
    return image if options.invert else -image


def _squared(image: Tensor, seed: int) -> Tensor:
    """Centre the image in a square of its longer side; white noise fills the rest."""
    ny, nx = image.shape
    size = max(ny, nx)
    if ny == nx:
        return image
    generator = torch.Generator(image.device).manual_seed(seed)
    square = torch.randn((size, size), generator=generator, device=image.device)
    top, left = size // 2 - ny // 2, size // 2 - nx // 2
    square[top : top + ny, left : left + nx] = image
    return square


def _best_response(
    square: Tensor, work: int, pixel_size_A: float, options: LogOptions
) -> tuple[Tensor, Tensor]:
    """Largest LoG response `[work, work]` of every pixel, and the diameter in A that gave it."""
    size = square.shape[0]
    spectrum = fourier.crop_rfft(fourier.rfft2(square), (size, size), (work, work))
    tried = torch.tensor(
        diameters(options.diameter_min_A, options.diameter_max_A), device=square.device
    )
    radius = fourier.radius((work, work), device=square.device) * work
    width = size * pixel_size_A / (2 * tried)
    ratio = (radius / width[:, None, None]) ** 2
    maps = fourier.irfft2(spectrum * ratio * torch.exp(-ratio / 2), (work, work))
    fom, index = maps.max(dim=0)
    return fom, tried[index]


def _thresholded(
    fom: Tensor, diameter: Tensor, inner: Tensor, options: LogOptions
) -> tuple[Tensor, float]:
    """Pixels that may be particles, and the upper limit of their figure of merit."""
    wanted = (diameter >= options.diameter_min_A) & (diameter <= options.diameter_max_A)
    if not wanted.any():
        return wanted, math.inf
    # As the reference does, the border takes part in the statistics, with zeros.
    sigma, mean = torch.std_mean(torch.where(inner, fom, 0.0)[wanted].double(), correction=0)
    lowest = mean + options.adjust_threshold * sigma
    return wanted & inner & (fom >= lowest), float(mean + options.upper_threshold * sigma)


def _greedy(fom: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take the highest pixel, clear the disc of its radius, repeat; returns rows and columns.

    All candidates are walked in falling order, not only local maxima: what remains of a flank
    outside a cleared disc counts, as in the reference.
    """
    ny, nx = fom.shape
    free = fom > 0
    candidates = np.flatnonzero(free)
    order = candidates[np.argsort(-fom.ravel()[candidates], kind="stable")]
    flat_free = free.ravel()
    chosen: list[int] = []
    for index in order.tolist():
        if not flat_free[index]:
            continue
        chosen.append(index)
        y, x = divmod(index, nx)
        reach = int(radii[y, x])
        rows = np.arange(max(0, y - reach), min(ny, y + reach + 1))
        columns = np.arange(max(0, x - reach), min(nx, x + reach + 1))
        near = (rows[:, None] - y) ** 2 + (columns[None, :] - x) ** 2 < reach**2
        free[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] &= ~near
    return np.divmod(np.array(chosen, dtype=np.intp), nx)


def _parabola(fom: np.ndarray, y: np.ndarray, x: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Offset in px, at most half, of the summit through a peak and its two neighbours."""
    ny, nx = fom.shape
    before = fom[(y - dy).clip(0), (x - dx).clip(0)]
    after = fom[(y + dy).clip(max=ny - 1), (x + dx).clip(max=nx - 1)]
    curvature = before - 2 * fom[y, x] + after
    is_summit = (fom[y, x] >= before) & (fom[y, x] >= after) & (curvature < 0)
    offset = 0.5 * (before - after) / np.where(is_summit, curvature, 1)
    return np.where(is_summit, offset, 0).clip(-0.5, 0.5)


def _ring_deviation(
    square: Tensor, x: np.ndarray, y: np.ndarray, pixel_size_A: float, options: LogOptions
) -> np.ndarray:
    """Standard deviation of the pixels between 0.5 and 1 x the largest diameter around (x, y)."""
    # Block means of v and v^2 keep the variance of the single pixels on a grid fine enough for
    # the ring.
    block = max(1, int(options.diameter_max_A / pixel_size_A / 16))
    moments = torch.stack([square, square**2])[None]
    moments = torch.nn.functional.avg_pool2d(moments, block)[0]
    side = moments.shape[-1]
    axis = torch.fft.fftfreq(side, device=square.device) * side * block * pixel_size_A
    distance = torch.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    ring = (distance > options.diameter_max_A / 2) & (distance <= options.diameter_max_A)
    kernel = torch.fft.rfft2(ring.float() / ring.sum().clamp(min=1))
    mean, square_mean = torch.fft.irfft2(torch.fft.rfft2(moments) * kernel, s=(side, side))
    deviation = torch.sqrt((square_mean - mean**2).clamp(min=0)).cpu().numpy()
    rows = (y / block).astype(np.intp).clip(0, side - 1)
    columns = (x / block).astype(np.intp).clip(0, side - 1)
    return deviation[rows, columns]
