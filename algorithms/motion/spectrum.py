"""The power spectrum of a movie that CTF estimation starts from.

The sum of the *amplitudes* of short groups of aligned frames: rings stay sharp while the specimen
moves between groups, and each group has enough dose to show them.

Source: preprocessing.md section 2.9.
"""

import math

from torch import Tensor

from algorithms import fourier


def group_amplitudes(group: Tensor, shape: fourier.Shape, cropped: fourier.Shape) -> Tensor:
    """Amplitudes of a sum of frames `[ny, nx]`, binned to `cropped`, the mean taken out."""
    spectrum = fourier.crop_rfft(fourier.rfft2(group), shape, cropped)
    spectrum[0, 0] = 0.0  # the mean of the frames would ring through the box
    return fourier.power(spectrum).sqrt_()


def power_spectrum(
    amplitudes: Tensor, shape: fourier.Shape, pixel_size_A: float, size: int, new_pixel_A: float
) -> Tensor:
    """Centred `[size, size]` amplitudes at the pixel `new_pixel_A` of a sum of amplitudes.

    `shape` is that of the images they were made from; where the new pixel is larger the high
    frequencies are cut off.
    """
    return fourier.zoom_spectrum(amplitudes, shape, pixel_size_A, size, new_pixel_A)


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
