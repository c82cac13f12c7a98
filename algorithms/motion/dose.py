"""Exposure weighting.

A frame that ends at dose D has the weight exp(-D / 2 Ne(k)), divided by the root of the sum of
the squared weights of all frames, which keeps the power of white noise. What came before the first
used frame (skipped frames, pre-exposure) is a common factor and cancels. As functions of the frame
and of k the weights have a rank of about five: the frames are added up in real space, five times
with other factors, and five transforms stand for one per frame.

Source: preprocessing.md section 2.8 (Grant and Grigorieff 2015).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_STEPS = 2000  # of a table
_ERROR = 3e-4


def critical_exposure(frequency: Tensor, voltage_kV: float) -> Tensor:
    """Ne(k) in e/A^2 for spatial frequencies in 1/A; infinite at 0.

    The measured curve is for 300 kV; 200 and 100 kV carry factors of 0.8 and 0.64, and voltages
    in between are interpolated.
    """
    factor = float(np.interp(voltage_kV, [100.0, 200.0, 300.0], [0.64, 0.8, 1.0]))
    return factor * (0.245 * frequency.pow(-1.665) + 2.81)


def frame_weights(
    frequency: Tensor, dose: float | Sequence[float], voltage_kV: float, n_frames: int
) -> Tensor:
    """Weights `[n_frames, ...]`, float64, of the frames at frequencies `[...]` in 1/A.

    Their squares add up to 1 at every frequency, which keeps the power of white noise. `dose` is
    that of a frame, in e/A^2, or of each of them.
    """
    rate = 1.0 / (2.0 * critical_exposure(frequency.double(), voltage_kV))
    each = np.broadcast_to(np.asarray(dose, np.float64), n_frames)
    since = torch.from_numpy(np.cumsum(each) - each[0]).to(frequency.device)
    weights = torch.exp(-since.reshape(-1, *[1] * frequency.dim()) * rate)
    return weights / weights.square().sum(0).sqrt()


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Weights as a short sum: w_f(k) = sum over r of `frames[r, f]` times `tables[r]` at k.

    Parameters
    ----------
    frames
        float64 `[r, n]`; the first row is 1: the first sum is the plain sum of the frames.
    tables
        float64 `[r, t]` at multiples of `step`.
    step
        1/A.
    error
        Largest error of a weight, relative to the largest weight.
    """

    frames: np.ndarray
    tables: np.ndarray
    step: float
    error: float


def low_rank(
    n_frames: int, dose: float | Sequence[float], voltage_kV: float, highest: float
) -> LowRank:
    """Factor the weights of a movie.

    Parameters
    ----------
    n_frames, dose, voltage_kV
        As above.
    highest
        Frequency up to which they are wanted, 1/A.

    As many factors are taken as bring the error below 3e-4: four to six for usual movies.
    The first factor is kept for the plain sum, which makes the mean exact and gives the unweighted
    image for nothing; the others are the singular vectors of what it leaves.
    """
    step = highest / (_STEPS - 2)
    k = torch.arange(_STEPS, dtype=torch.float64) * step
    weights = frame_weights(k, dose, voltage_kV, n_frames).numpy()
    mean = weights.mean(0)
    left, size, right = np.linalg.svd(weights - mean, full_matrices=False)
    plain = np.ones((1, n_frames))
    for kept in range(n_frames):
        frames = np.vstack([plain, left[:, :kept].T])
        tables = np.vstack([mean, size[:kept, None] * right[:kept]])
        error = float(np.abs(frames.T @ tables - weights).max() / weights.max())
        if error < _ERROR:
            return LowRank(frames=frames, tables=tables, step=step, error=error)
    raise ValueError(f"a movie must have frames, not {n_frames}")
