"""Class averages on other grids: Fourier resampling, low-pass, the network's window.

The array's corner is the origin of the transforms, as in RELION's program. Source: class-ranker.md
section 4.
"""

import math

import numpy as np
from scipy import fft

GRID_A = 4.0  # the features' grid; the true pixel is near it
LOW_PASS_A = 25.0
NETWORK_PX = 64


def grid_size(box: int, pixel_A: float) -> int:
    """Return the even box of averages on the features' grid, px."""
    size = math.floor(box * pixel_A / GRID_A + 0.5)
    return size - size % 2


def resampled(images: np.ndarray, size: int, *, shift_px: float = 0.0) -> np.ndarray:
    """Return images on a grid of `size` x `size` px over the same field.

    Parameters
    ----------
    images
        `[K, n, n]`.
    size
        Even. Smaller than n: the square of low frequencies is kept; larger: the circle of all.
    shift_px
        Moves the content, along both axes, by so many of the old pixels.

    Returns
    -------
    np.ndarray
        `[K, size, size]` float64; the mean of each image is kept.
    """
    box = images.shape[-1]
    values = images.astype(np.float64)
    if box == size and not shift_px:
        return values
    spectrum = np.asarray(fft.rfft2(values, norm="forward"))
    if shift_px:
        ky, kx = fft.fftfreq(box)[:, None], fft.rfftfreq(box)[None]
        spectrum = spectrum * np.exp(-2j * np.pi * shift_px * (ky + kx))
    if size < box:
        rows = np.r_[0 : size // 2 + 1, box - size // 2 + 1 : box]
        spectrum = spectrum[:, rows, : size // 2 + 1]
    elif size > box:
        spectrum = _padded(spectrum, box, size)
    return np.asarray(fft.irfft2(spectrum, s=(size, size), norm="forward"))


def _padded(spectrum: np.ndarray, box: int, size: int) -> np.ndarray:
    half = box // 2
    ky = np.arange(box)
    ky = np.where(ky <= half, ky, ky - box)
    inside = ky[:, None] ** 2 + np.arange(half + 1)[None] ** 2 <= half**2
    out = np.zeros((len(spectrum), size, size // 2 + 1), spectrum.dtype)
    out[:, ky % size, : half + 1] = np.where(inside, spectrum, 0.0)
    return out


def low_passed(images: np.ndarray) -> np.ndarray:
    """Return images `[K, m, m]` on the features' grid without what is finer than 25 A."""
    size = images.shape[-1]
    shell = math.floor(size * GRID_A / LOW_PASS_A + 0.5)
    k = np.hypot(fft.fftfreq(size, 1 / size)[:, None], fft.rfftfreq(size, 1 / size)[None])
    factor = 0.5 + 0.5 * np.cos(np.pi * np.clip(k - (shell - 1), 0.0, 2.0) / 2.0)
    spectrum = np.asarray(fft.rfft2(images)) * factor
    return np.asarray(fft.irfft2(spectrum, s=(size, size)))


def network_images(images: np.ndarray, pixel_A: float, diameter_A: float) -> np.ndarray:
    """Return what the network looks at: the particle, 64 px wide, `[K, 64, 64]` float32.

    Parameters
    ----------
    images
        Averages `[K, n, n]`.
    pixel_A
        Their pixel size, A.
    diameter_A
        Of the particle mask, A: the width of the window but for rounding.
    """
    box = images.shape[-1]
    # A whole number of pixels stays one, whatever the division makes of it.
    width = math.ceil(diameter_A / pixel_A - 1e-6) + 1
    width += width % 2
    low = box // 2 - width // 2
    first, last = max(low, 0), min(low + width, box)
    window = np.zeros((len(images), width, width))
    inside = slice(first - low, last - low)
    window[:, inside, inside] = images[:, first:last, first:last]
    return resampled(window, NETWORK_PX).astype(np.float32)
