"""Real transforms with the number of threads as an argument (torch's is global to the process).

Unlike `algorithms.fourier`, the forward transform has no factor: spectra are sums over pixels.
Layout and signs of frequencies are the same.
"""

import numpy as np
import scipy.fft
from numpy.typing import NDArray


def forward(image: NDArray[np.float32], threads: int) -> NDArray[np.complex64]:
    """Half spectrum `[ny, nx // 2 + 1]` of an image `[ny, nx]`."""
    return np.asarray(scipy.fft.rfft2(image, workers=threads))


def inverse(
    spectrum: NDArray[np.complexfloating], shape: tuple[int, int], threads: int
) -> NDArray[np.float32]:
    """Image of `shape` (ny, nx) of a half spectrum."""
    return np.asarray(scipy.fft.irfft2(spectrum, s=shape, workers=threads))


def forward_cropped(images: NDArray[np.float32], size: int, threads: int) -> NDArray[np.complex64]:
    """Low-frequency block `[n, size, size // 2 + 1]` of the spectra of square images.

    `size` is even and at most the images' own. Columns that are not wanted are dropped before
    the second axis is transformed.
    """
    rows = np.asarray(scipy.fft.rfft(images, axis=-1, workers=threads))
    kept = rows[..., : size // 2 + 1]
    columns = np.asarray(scipy.fft.fft(kept, axis=-2, workers=threads))
    half = size // 2
    return np.concatenate([columns[:, :half], columns[:, columns.shape[1] - half :]], axis=1)
