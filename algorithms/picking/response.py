"""From a micrograph to its Laplacian-of-Gaussian response, in two readings of the image.

The image goes through the processor's cache in bands of rows: levels first; then each band is
normalised, transformed along x, and cut down to the frequencies that are wanted.
Source: preprocessing.md section 4.1, steps 1 to 5.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

# Pixels of a band on the processor; a device takes the image in few pieces.
BAND_PIXELS = {"cpu": 1 << 17, "cuda": 1 << 25}
# Pixels of the response maps worked on at a time.
MAP_PIXELS = {"cpu": 600_000, "cuda": 1 << 26}


class Level(NamedTuple):
    """Mean and standard deviation of an image, and the z-score beyond which a pixel is wrong."""

    mean: float
    sigma: float
    outlier_z: float
    sign: float  # -1 makes dark particles positive

    def normalised(self, rows: Tensor) -> Tensor:
        """Return rows with mean 0 and sigma 1, outliers at the mean, particles positive."""
        values = rows.to(torch.float32) - self.mean
        values *= self.sign / self.sigma
        low, high = torch.aminmax(values)
        if low < -self.outlier_z or high > self.outlier_z:  # in few bands
            values.masked_fill_(values.abs() > self.outlier_z, 0.0)
        return values


def bands(image: Tensor) -> Iterator[slice]:
    """Yield the rows of an image `[ny, nx]` band by band."""
    ny, nx = image.shape
    step = max(1, BAND_PIXELS[image.device.type] // nx)
    return (slice(first, min(first + step, ny)) for first in range(0, ny, step))


def level_of(image: Tensor, outlier_z: float, *, invert: bool) -> Level:
    """Return the level of an image `[ny, nx]`; not finite where a pixel is not."""
    zero = float(image[image.shape[0] // 2].double().mean())
    zero = zero if math.isfinite(zero) else 0.0
    total = squares = 0.0
    for rows in bands(image):
        band = image[rows].to(torch.float32) - zero
        total += float(band.sum(1).double().sum())
        squares += float(torch.linalg.vector_norm(band, dim=1).double().square().sum())
    mean = total / image.numel()
    variance = squares / image.numel() - mean**2
    sigma = math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else math.nan
    return Level(mean + zero, sigma, outlier_z, 1.0 if invert else -1.0)


def corner_of(shape: tuple[int, int]) -> tuple[int, int]:
    """Return (top, left) of an image of `shape` in the middle of a square of its longer side."""
    size = max(shape)
    return size // 2 - shape[0] // 2, size // 2 - shape[1] // 2


def squared_spectrum(image: Tensor, level: Level, work: int, seed: int) -> Tensor:
    """Half spectrum `[work, work // 2 + 1]` of the image in a square of its longer side.

    Parameters
    ----------
    image
        `[ny, nx]`.
    level
        Of it.
    work
        Frequencies up to half of this are kept; even.
    seed
        Of the white noise that fills the square.

    The transform carries the factor 1 / pixels, so that values are kept.
    """
    (ny, nx), size = image.shape, max(image.shape)
    top, left = corner_of((ny, nx))
    half = work // 2 + 1
    generator = torch.Generator(image.device).manual_seed(seed)
    spectra = image.new_empty((size, half), dtype=torch.complex64)
    for rows in bands(image):
        band = level.normalised(image[rows])
        if nx < size:
            noise = torch.randn((len(band), size), generator=generator, device=image.device)
            noise[:, left : left + nx] = band
            band = noise
        columns = torch.fft.rfft(band, norm="forward")[:, :half]
        spectra[rows.start + top : rows.start + top + len(band)] = columns
    for rows in (slice(0, top), slice(top + ny, size)):
        noise = torch.randn(
            (rows.stop - rows.start, size), generator=generator, device=image.device
        )
        if len(noise):
            spectra[rows] = torch.fft.rfft(noise, norm="forward")[:, :half]
    spectrum = torch.fft.fft(spectra, dim=0, norm="forward")
    if work == size:
        return spectrum
    return torch.cat([spectrum[: work // 2], spectrum[size - work // 2 :]])


def best_response(spectrum: Tensor, filters: Tensor) -> tuple[Tensor, Tensor]:
    """Largest response `[work, work]` of every pixel, and the index of the filter that gave it.

    Parameters
    ----------
    spectrum
        `[work, work // 2 + 1]`.
    filters
        `[n, work, work // 2 + 1]`, see `filters_of`.
    """
    work = spectrum.shape[0]
    step = max(1, MAP_PIXELS[spectrum.device.type] // work**2)
    best: Tensor | None = None
    index = torch.zeros(0)
    for first in range(0, len(filters), step):
        product = spectrum * filters[first : first + step]
        maps = torch.fft.irfft2(product, s=(work, work), norm="forward")
        if best is None:
            best, index = maps.max(dim=0)
        elif len(maps) == 1:
            index.masked_fill_(maps[0] > best, first)
            torch.maximum(best, maps[0], out=best)
        else:
            higher, which = maps.max(dim=0)
            index = torch.where(higher > best, which + first, index)
            torch.maximum(best, higher, out=best)
    assert best is not None  # noqa: S101
    return best, index


@lru_cache(maxsize=4)
def filters_of(work: int, widths: tuple[float, ...], device: str) -> Tensor:
    """Return LoG filters `[n, work, work // 2 + 1]`, (r/q)^2 exp(-(r/q)^2 / 2) of widths q.

    Widths are in Fourier px; the micrographs of a session share them.
    """
    ky = torch.fft.fftfreq(work, 1 / work, device=device)[:, None]
    kx = torch.arange(work // 2 + 1, device=device)[None, :]
    square = (ky**2 + kx**2)[None]
    ratio = square / torch.tensor(widths, device=device)[:, None, None] ** 2
    return ratio * torch.exp(-ratio / 2)
