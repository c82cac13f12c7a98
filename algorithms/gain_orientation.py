"""Which way round does a gain reference belong on the frames? Told by the frames themselves.

Raw counts are electrons divided by the gain, so the mean of raw frames carries the pattern of
1 / gain. Each of the eight orientations is scored by the correlation of the two, both high-passed:
specimen and illumination are smooth, the pattern is not. Where the answer is not certain there is
none.

Source: preprocessing.md section 1.5; acquisition.md section 3.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Image = NDArray[np.float32]

# (rotation, flip) as in `algorithms.formats.gain.load_gain`: each orientation once, with the
# fewest operations.
ORIENTATIONS = ((0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (1, 1), (1, 2))

# Px; what is smoother is taken out. Counting noise is white, so little is lost by a small width.
_SMOOTH_PX = 2.0
# Px; rows and columns that stand out for longer than this are taken out: seams of the sensor and
# stripes of its read-out look alike when mirrored.
_LINE_PX = 32
# Deviations beyond this many standard deviations count as this: hot pixels, cosmic rays.
_CLIP = 5.0
# Relative variation below which a gain has no pattern: a hundredth of any real camera's.
_FLAT = 5e-4
# Shifts of the gain that show what chance gives, and the least shift, px.
_SHIFTS, _LEAST_SHIFT_PX = 24, 8
# Standard deviations of chance that the best must reach, and be ahead of the second.
_CERTAIN, _AHEAD = 6.0, 6.0
# The second may have this share of the best; patterns of stripes look alike when mirrored.
_ALIKE = 0.8


@dataclass(frozen=True)
class Score:
    """Correlation of one orientation, -1 to 1."""

    rotation: int
    flip: int
    correlation: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer with all it rests on.

    `best` is None where it is not certain; `reason` says why, in one sentence. `is_inverse`: the
    file divides where a gain multiplies. `chance` is the standard deviation of a correlation that
    means nothing. `scores` are ordered, the best first.
    """

    best: Score | None
    is_inverse: bool
    reason: str
    scores: tuple[Score, ...]
    chance: float


def oriented(gain: Image, rotation: int, flip: int) -> Image:
    """Return the gain after quarter turns, then a flip (0 none, 1 upside down, 2 left-right)."""
    turned = np.rot90(gain, -rotation)
    return (turned, turned[::-1], turned[:, ::-1])[flip]


def match(mean: Image, gain: Image) -> tuple[Image, Image]:
    """Return frames and gain at the coarser one's sampling; a block with a defect is a defect.

    Parameters
    ----------
    mean
        Frames `[ny, nx]`.
    gain
        `[gy, gx]`, larger or smaller by a whole factor, possibly a quarter turn away.

    Raises
    ------
    ValueError
        The sizes do not fit in any orientation.
    """
    for ny, nx in (mean.shape, mean.shape[::-1]):
        up, down = gain.shape[0] // ny, ny // gain.shape[0]
        if up and gain.shape == (up * ny, up * nx):
            whole = np.where(_blocks(gain, up).all(axis=(1, 3)), np.float32(1), np.float32(0))
            return mean, _blocks(gain, up).mean(axis=(1, 3)) * whole
        if down and (ny, nx) == (down * gain.shape[0], down * gain.shape[1]):
            return _blocks(mean, down).mean(axis=(1, 3)), gain
    raise ValueError(
        f"a gain of {gain.shape[1]} x {gain.shape[0]} px fits no frames of "
        f"{mean.shape[1]} x {mean.shape[0]} px in any orientation"
    )


def find_orientation(
    mean: Image,
    gain: Image,
    rng: np.random.Generator,
    candidates: Sequence[tuple[int, int]] = ORIENTATIONS,
) -> Verdict:
    """Return the orientation in which a gain fits frames.

    Parameters
    ----------
    mean
        Mean or sum of raw frames `[ny, nx]`, not aligned, not corrected.
    gain
        As it lies in its file, of the frames' size, possibly a quarter turn away (see `match`);
        0 marks a defect.
    rng
        For the shifts that show what chance gives.
    candidates
        Orientations to try, (rotation, flip); those that do not have the frames' shape are left
        out.

    Raises
    ------
    ValueError
        The sizes differ.
    """
    if sorted(gain.shape) != sorted(mean.shape):
        raise ValueError(f"gain {gain.shape} and frames {mean.shape}: match them first")
    good = gain > 0
    pattern = np.ones(gain.shape, np.float32)
    np.divide(1.0, gain, out=pattern, where=good)
    pattern[~good] = np.median(pattern[good]) if good.any() else 1.0
    pattern, variation = _high_passed(pattern)
    counts, spread = _high_passed(mean.astype(np.float32))
    if variation < _FLAT:
        return _none(f"the gain is flat: its pattern varies by {100 * variation:.2g} %")
    if spread == 0:
        return _none("the frames are all the same: there is nothing to compare")
    scores = sorted(
        (
            Score(rotation, flip, _correlation(counts, oriented(pattern, rotation, flip)))
            for rotation, flip in candidates
            if oriented(pattern, rotation, flip).shape == counts.shape
        ),
        key=lambda score: -abs(score.correlation),
    )
    first = scores[0]
    chance = _chance(counts, oriented(pattern, first.rotation, first.flip), rng)
    return _judge(scores, chance)


def _judge(scores: list[Score], chance: float) -> Verdict:
    best, second = abs(scores[0].correlation), abs(scores[1].correlation)
    certain = f"correlation {scores[0].correlation:.3f}, by chance {chance:.1g}"
    found: Score | None = None
    if best < _CERTAIN * chance:
        reason = (
            f"no orientation fits ({certain}): too few electrons, frames that are corrected "
            "already, or another camera's gain"
        )
    elif best - second < _AHEAD * chance or second > _ALIKE * best:
        reason = f"two orientations fit alike (correlations {best:.3f} and {second:.3f})"
    else:
        found, reason = scores[0], f"{certain}, the next {second:.3f}"
    return Verdict(
        best=found,
        is_inverse=found is not None and found.correlation < 0,
        reason=reason,
        scores=tuple(scores),
        chance=chance,
    )


def _none(reason: str) -> Verdict:
    return Verdict(best=None, is_inverse=False, reason=reason, scores=(), chance=0.0)


def _blocks(image: Image, factor: int) -> Image:
    """Return an image as `[y, factor, x, factor]`."""
    ny, nx = (size // factor for size in image.shape)
    return image.reshape(ny, factor, nx, factor)


def _high_passed(image: Image) -> tuple[Image, float]:
    """Return an image without what is smooth or a line, clipped, and its relative variation."""
    rough = image - scipy.ndimage.gaussian_filter(image, _SMOOTH_PX)
    rough, _ = _clipped(rough)
    for axis in (0, 1):
        rough = rough - scipy.ndimage.uniform_filter1d(rough, _LINE_PX, axis=axis)
    rough, width = _clipped(rough)
    return rough - rough.mean(), width / abs(float(image.mean())) if image.any() else 0.0


def _clipped(rough: NDArray[np.floating]) -> tuple[Image, float]:
    """Return an image without its outliers, and its width as a standard deviation."""
    # 1.4826 median deviations are a standard deviation, and outliers do not count.
    width = 1.4826 * float(np.median(np.abs(rough - np.median(rough))))
    if width == 0:  # fewer than half of the pixels vary, as in frames of very few electrons
        width = float(rough.std())
    return np.clip(rough, -_CLIP * width, _CLIP * width).astype(np.float32, copy=False), width


def _correlation(a: Image, b: Image) -> float:
    scale = math.sqrt(float(np.vdot(a, a)) * float(np.vdot(b, b)))
    return float(np.vdot(a, np.ascontiguousarray(b))) / scale


def _chance(counts: Image, pattern: Image, rng: np.random.Generator) -> float:
    """Return the root mean square correlation with shifted patterns, which mean nothing."""
    ny, nx = counts.shape
    found = []
    for _ in range(_SHIFTS):
        dy = int(rng.integers(_LEAST_SHIFT_PX, ny - _LEAST_SHIFT_PX))
        dx = int(rng.integers(_LEAST_SHIFT_PX, nx - _LEAST_SHIFT_PX))
        found.append(_correlation(counts, np.roll(pattern, (dy, dx), axis=(0, 1))))
    return float(np.sqrt(np.mean(np.square(found))))
