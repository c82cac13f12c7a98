"""How much of the noise stays with the detector from frame to frame.

Gain errors that correction left behind correlate at lag zero and pull an alignment towards no
motion. Their power is measured at the highest frequencies, where nothing of the specimen
correlates between frames: independent noise adds up in the sum of n frames n times, a fixed
pattern n^2 times.

Source: preprocessing.md section 2.4 (origin peak of residual fixed pattern).
"""

import torch
from torch import Tensor

_MAX_SIDE = 1024
_SIGNIFICANT = 5.0
# Sum of the squared autocorrelation of the difference filter: neighbouring samples are not
# independent, which widens the error of a variance by the root of this.
_CORRELATION = 1.5**2


def centre(images: Tensor) -> Tensor:
    """The middle of images `[..., ny, nx]` that the variances are measured in, a view."""
    ny, nx = images.shape[-2:]
    top, left = max(0, (ny - _MAX_SIDE) // 2), max(0, (nx - _MAX_SIDE) // 2)
    return images[..., top : top + _MAX_SIDE, left : left + _MAX_SIDE]


def checkerboard_variance(image: Tensor) -> float:
    """Variance of the highest frequencies of `[ny, nx]`, in units of white noise per px."""
    rows = image[1:] - image[:-1]
    corners = rows[:, 1:] - rows[:, :-1]
    return float(corners.square_().mean(dtype=torch.float64)) / 4.0


def pattern_variance(of_sum: float, of_frames: float, n_frames: int, n_px: int) -> float:
    """Variance per px and frame of the fixed pattern; 0 unless it is significant.

    Parameters
    ----------
    of_sum, of_frames
        `checkerboard_variance` of the middle of the sum of the frames, and its sum over the frames.
    n_frames
        How many.
    n_px
        Of the whole frame.
    """
    samples = min(n_px, _MAX_SIDE**2)
    error = of_sum * (2.0 * _CORRELATION / samples) ** 0.5
    excess = of_sum - of_frames
    if excess < _SIGNIFICANT * error:
        return 0.0
    return excess / (n_frames * (n_frames - 1))
