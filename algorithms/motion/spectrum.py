"""The power spectrum of a movie that CTF estimation starts from.

The sum of the *amplitudes* of short groups of aligned frames: rings stay sharp while the specimen
moves between groups, and each group has enough dose to show them.

Source: preprocessing.md section 2.9.
"""

import math

import torch
from torch import Tensor

from algorithms import fourier


class GroupedAmplitudes:
    """Running sum of |sum of a group of spectra|.

    Parameters
    ----------
    shape
        (ny, nx) of the frames.
    group
        Frames per group.
    device
        Where the spectra are.
    """

    def __init__(self, shape: fourier.Shape, group: int, device: str = "cpu") -> None:
        half = (shape[0], shape[1] // 2 + 1)
        self._amplitudes = torch.zeros(half, device=device)
        self._group = torch.zeros(half, dtype=torch.complex64, device=device)
        self._shape = shape
        self._size = group
        self._held = 0

    def add(self, spectrum: Tensor) -> None:
        """Add the next frame's half spectrum."""
        if self._held == 0:
            self._group.copy_(spectrum)
        else:
            self._group.add_(spectrum)
        self._held += 1
        if self._held == self._size:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._amplitudes.add_(self._group.abs())
            self._held = 0

    def result(self, pixel_size_A: float, size: int, target_pixel_A: float) -> tuple[Tensor, float]:
        """Centred `[size, size]` amplitudes and their pixel size in A.

        Where the pixel is below `target_pixel_A` the high frequencies are cut off.
        """
        self._flush()
        self._amplitudes[0, 0] = 0.0  # the mean of the frames would ring through the box
        new_pixel = spectrum_pixel_size(self._shape, pixel_size_A, target_pixel_A)
        plane = fourier.zoom_spectrum(self._amplitudes, self._shape, pixel_size_A, size, new_pixel)
        return plane, new_pixel


def spectrum_pixel_size(shape: fourier.Shape, pixel_size_A: float, target_A: float) -> float:
    """Pixel of the cropped spectrum: the one of a whole, even crop nearest above `target_A`."""
    if pixel_size_A >= target_A:
        return pixel_size_A
    side = min(shape)
    crop = math.ceil(side * pixel_size_A / target_A)
    crop += crop % 2
    return side * pixel_size_A / crop


def frames_per_group(dose_per_frame: float, dose_per_group: float) -> int:
    """How many frames have about `dose_per_group` e/A^2 together; at least one."""
    if dose_per_frame <= 0.0:
        return 1
    return max(1, round(dose_per_group / dose_per_frame))
