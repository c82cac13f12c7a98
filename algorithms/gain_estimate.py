"""A gain reference from the movies themselves, where none was recorded.

Over hundreds of movies specimen and ice average out: what is left of the mean of raw frames is
1 / gain, times the shape of the beam, which is divided out with it. Counting noise is left as
well; each pixel's pattern is drawn towards none by the share of noise in it, so that an estimate
from few electrons corrects less instead of adding noise.

Source: preprocessing.md section 1.5.
"""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

# Px; the pattern of a pixel is told against the mean of its neighbours within about this.
_SMOOTH_PX = 8.0
# Response, relative to the neighbours', below or above which a pixel is a defect.
_DEAD, _HOT = 0.5, 2.0
# Least share of the pattern in the variance of pixels: with less, more is guessed than known.
_LEAST_SHARE = 0.5


class TooFewElectrons(ValueError):
    """The frames do not tell the gain; the message says how many more are needed."""


@dataclass(frozen=True, kw_only=True)
class GainEstimate:
    """A gain and how sure it is.

    Parameters
    ----------
    gain
        float32 `[ny, nx]`, multiplicative, mean 1 over good pixels; 0 marks a defect.
    electrons
        Mean counts per pixel that it rests on.
    variation
        Standard deviation of the pattern, relative.
    error
        Of the pattern after regularisation, relative.
    n_dead, n_hot
        Defects of the two kinds.
    """

    gain: NDArray[np.float32]
    electrons: float
    variation: float
    error: float
    n_dead: int
    n_hot: int


def estimate_gain(total: NDArray[np.floating]) -> GainEstimate:
    """Return the gain that makes the sum of raw frames even.

    Parameters
    ----------
    total
        Sum of uncorrected counting frames `[ny, nx]` of many movies, not aligned.

    Raises
    ------
    TooFewElectrons
        Half of what differs between pixels, or more, is counting noise.
    ValueError
        Values that are negative or not finite.
    """
    counts = np.asarray(total, np.float64)
    if not np.isfinite(counts).all() or counts.min() < 0:
        raise ValueError("the sum of frames has values that are negative or not finite")
    if not counts.any():
        raise TooFewElectrons("the frames are empty")
    response, dead, hot = _response(counts)
    good = ~(dead | hot)
    electrons = float(counts[good].mean())
    seen = 1.4826 * float(np.median(np.abs(response[good] - np.median(response[good]))))
    noise = 1.0 / electrons
    share = max(0.0, 1.0 - noise / seen**2) if seen else 0.0
    if share < _LEAST_SHARE:
        pattern = max(share, 1e-3) * seen**2
        needed = noise / pattern * electrons if seen else float("inf")
        raise TooFewElectrons(
            f"{electrons:.3g} counts per pixel: {100 * (1 - share):.0f} % of the pattern is noise "
            f"of counting; about {needed:.2g} counts per pixel are needed"
        )
    smooth = counts / np.where(response > 0, response, 1.0)
    gain = np.zeros(counts.shape)
    np.divide(1.0, smooth * (1.0 + share * (response - 1.0)), out=gain, where=good & (smooth > 0))
    gain /= gain[good].mean()
    return GainEstimate(
        gain=gain.astype(np.float32),
        electrons=electrons,
        variation=(share * seen**2) ** 0.5,
        error=(share * noise) ** 0.5,
        n_dead=int(dead.sum()),
        n_hot=int((hot & ~dead).sum()),
    )


def _response(
    counts: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return counts relative to those of good neighbours, and what is dead or hot by them."""
    middle = float(np.median(counts[counts > 0]))
    dead, hot = counts < 0.1 * middle, counts > 10.0 * middle
    response = counts / middle
    for _ in range(2):  # the first round finds most defects, the second is without them
        good = (~(dead | hot)).astype(np.float64)
        weight = scipy.ndimage.gaussian_filter(good, _SMOOTH_PX)
        smooth = scipy.ndimage.gaussian_filter(counts * good, _SMOOTH_PX)
        np.divide(smooth, weight, out=smooth, where=weight > 1e-6)
        smooth[weight <= 1e-6] = middle
        response = counts / smooth
        dead, hot = response < _DEAD, response > _HOT
    return response, dead, hot
