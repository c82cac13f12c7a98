"""Particles as blobs: the Laplacian-of-Gaussian picker, with RELION's rules and defaults.

The micrograph is filtered with LoG kernels of many sizes. Where the best-fitting size lies in
the wanted range and the response is above the mean, the strongest peak becomes a particle and
clears its surroundings, and so on. Coordinates are px of the micrograph, 0 at the centre of the
first pixel, rows in MRC order.

Source: preprocessing.md section 4.1.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from algorithms.picking.noise import ring_deviation
from algorithms.picking.peaks import greedy, summit, thresholded
from algorithms.picking.response import (
    best_response,
    corner_of,
    filters_of,
    level_of,
    squared_spectrum,
)

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
    shrink
        Size of the image that is searched: 0 lets it follow from `max_resolution_A`; up to 1, a
        share of the micrograph; above 1, px.
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
    shrink: float = 0.0
    max_stddev_noise: float | None = 1.1

    def __post_init__(self) -> None:
        if not 0 < self.diameter_min_A <= self.diameter_max_A < math.inf:
            raise ValueError(
                f"diameters from {self.diameter_min_A} to {self.diameter_max_A} A: "
                "both must be positive, the first not above the second"
            )
        if not self.max_resolution_A > 0 or not self.neighbour > 0:
            raise ValueError("max_resolution_A and neighbour must be positive")
        if not 0 <= self.shrink < math.inf:
            raise ValueError(f"shrink is {self.shrink}: it must be 0 or positive")

    def work_size(self, size: int, pixel_size_A: float) -> int:
        """Return the side, px, of the image that is searched, for a square of `size` px."""
        if self.shrink == 0:
            wanted = 2 * round(size * pixel_size_A / self.max_resolution_A)
        else:
            wanted = round(self.shrink * size if self.shrink <= 1 else self.shrink)
            wanted -= wanted % 2
        return _work_size(wanted, size)


@dataclass(frozen=True, kw_only=True)
class Picks:
    """Particles, the best first: arrays `[n]` in micrograph px, response, and diameter in A."""

    x_px: np.ndarray
    y_px: np.ndarray
    fom: np.ndarray
    diameter_A: np.ndarray

    def __len__(self) -> int:
        return len(self.x_px)

    def where(self, keep: np.ndarray) -> "Picks":
        """Return the picks for which `keep` `[n]` is true."""
        return Picks(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})


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
    if isinstance(image, np.ndarray) and not image.flags.writeable:
        image = image.copy()  # torch has no tensors that cannot be written
    tensor = torch.as_tensor(image, device=device)
    if tensor.ndim != 2:
        shape = tuple(tensor.shape)
        raise ValueError(f"picking needs a two-dimensional image of finite values, not {shape}")
    level = level_of(tensor, options.outlier_z, invert=options.invert)
    if not math.isfinite(level.sigma):
        raise ValueError("picking needs a two-dimensional image of finite values")
    if level.sigma == 0:
        return _picks([], [], [], [])
    ny, nx = tensor.shape
    size = max(ny, nx)
    work = options.work_size(size, pixel_size_A)
    scale = work / size
    sizes_A = diameters(options.diameter_min_A, options.diameter_max_A)
    widths = tuple(size * pixel_size_A / (2 * diameter) for diameter in sizes_A)
    spectrum = squared_spectrum(tensor, level, work, seed)
    fom, index = best_response(spectrum, filters_of(work, widths, str(tensor.device)))
    y, x, diameter_A = _peaks(fom, index, sizes_A, (ny, nx), pixel_size_A, options)
    response = fom.cpu().numpy()
    top, left = corner_of((ny, nx))
    x_px = ((x + summit(response, y, x, 0, 1)) / scale - left).clip(0, nx - 1)
    y_px = ((y + summit(response, y, x, 1, 0)) / scale - top).clip(0, ny - 1)
    found = _picks(x_px, y_px, response[y, x], diameter_A)
    if options.max_stddev_noise is None:
        return found
    diameter_px = options.diameter_max_A / pixel_size_A
    noise = ring_deviation(tensor, level, found.x_px, found.y_px, diameter_px)
    return found.where(noise < options.max_stddev_noise)


def _peaks(
    fom: Tensor,
    index: Tensor,
    sizes_A: list[float],
    shape: tuple[int, int],
    pixel_size_A: float,
    options: LogOptions,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns (px of the work grid) and diameters of the particles, best first."""
    scale = fom.shape[0] / max(shape)
    # Whole px of the micrograph first, as the reference has it.
    margin = max(options.skip_side_px, int(0.5 * options.diameter_min_A / pixel_size_A))
    skip = int(margin * scale)
    inner = torch.zeros_like(fom, dtype=torch.bool)
    (top, left), (ny, nx) = corner_of(shape), shape
    rows = slice(round(top * scale) + skip, round((top + ny) * scale) - skip)
    columns = slice(round(left * scale) + skip, round((left + nx) * scale) - skip)
    inner[rows, columns] = True
    is_wanted = [options.diameter_min_A <= size <= options.diameter_max_A for size in sizes_A]
    wanted = torch.tensor(is_wanted, device=fom.device)[index]
    flags, upper = thresholded(
        fom, wanted, inner, options.adjust_threshold, options.upper_threshold
    )
    sizes = np.array(sizes_A)[index.cpu().numpy()]
    reach = (sizes + options.diameter_min_A) * scale * options.neighbour / (2 * pixel_size_A)
    y, x = greedy(torch.where(flags, fom, 0.0).cpu().numpy(), np.floor(reach + 0.5))
    below = fom.cpu().numpy()[y, x] < upper
    y, x = y[below], x[below]
    return y, x, sizes[y, x]


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
