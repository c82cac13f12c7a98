"""The last rounds of an alignment: weights from the data, steps from the likelihood.

The likelihood of the shifts of n frames with a common signal of power S(k) and independent noise
of power N(k) is a sum of cross-correlations with the weight S / (N (N + n S)) at each frequency:
flat where the frames agree, falling with the signal-to-noise ratio, zero in the gaps of the
transfer function. Both powers are measured in rings of the frames themselves. A step is the
slope of the correlation over its expected curvature (Fisher scoring): unlike the highest pixel
of a noisy map it cannot jump.

Source: preprocessing.md section 2.4, with the weights of a maximum-likelihood estimate in place of
the fixed filter.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms import fourier
from algorithms.motion.band import Band
from algorithms.motion.stack import Stack, aligned_sum, narrowed, pattern_sum, slopes
from algorithms.motion.threads import Threads

MOST_RINGS = 64
_SMALL = 1 << 20  # coefficients of a stack that is added up in one go
_ROWS = 64  # at a time: a slice of every frame stays in the cache
_RING_WIDTH = 2.0  # coefficients of the shorter axis, at least
# A ring with less than this many standard errors of common power counts as empty.
_SIGNIFICANT = 3.0
# Fisher scoring is exact near the maximum only: no step may be longer than this, in map px.
_LONGEST_STEP = 1.0
_ENOUGH = 0.97  # share of the information that the rounds after the first use


@dataclass(frozen=True, kw_only=True)
class Rings:
    """Which ring every coefficient belongs to; those outside the band to one more at the end."""

    number: Tensor
    count: int
    k_max: float
    twice: Tensor

    def sums(self, values: Tensor) -> Tensor:
        """Sum of `[ny, nx//2+1]` over the whole spectrum in each ring, float64 `[count]`."""
        out = torch.zeros(self.count + 1, dtype=torch.float64, device=values.device)
        doubled = (values * self.twice).double()
        return out.index_add_(0, self.number.flatten(), doubled.flatten())[: self.count]

    def spread(self, of_rings: Tensor) -> Tensor:
        """Value of each coefficient's ring, 0 outside the band."""
        return torch.cat([of_rings, of_rings.new_zeros(1)])[self.number]


def rings_of(band: Band) -> Rings:
    """Divide a band into rings."""
    k_max = float((band.k * band.inside).max())
    shorter = min(band.binned) * band.binning
    count = max(4, min(MOST_RINGS, int(k_max * shorter / _RING_WIDTH)))
    number = (band.k * (count / max(k_max, 1e-9))).long().clamp_(max=count - 1)
    twice = torch.full((band.k.shape[1],), 2.0, device=band.k.device)
    twice[0] = 1.0
    if band.size[1] % 2 == 0:
        twice[-1] = 1.0
    number = torch.where(band.inside > 0, number, count)
    return Rings(number=number, count=count, k_max=k_max, twice=twice)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a refinement knows about signal and noise.

    Parameters
    ----------
    weight
        `[ny, nx//2+1]` of the correlation, columns that stand for two counted twice.
    curvature
        Expected second derivative of the correlation of one frame with the n - 1 others, `[2]`
        (x, y), per map px squared; 0 where there is no signal.
    variance
        Cramer-Rao bound `[2]` of a frame's shift, map px squared; infinite without signal.
    k_useful
        Frequency below which nearly all of the information is, cycles per unbinned px.
    """

    weight: Tensor
    curvature: Tensor
    variance: Tensor
    k_useful: float


def weights_of(common: Tensor, single: Tensor, n: int, band: Band, rings: Rings) -> Weights:
    """Weights from ring sums of powers.

    Parameters
    ----------
    common, single
        Ring sums `[count]` of |sum of the aligned frames|^2, and of the sum of their |.|^2; what
        is fixed to the detector taken off both.
    n
        Frames.
    band, rings
        Where the coefficients are.
    """
    count = rings.sums(torch.ones_like(band.k)).clamp_(min=1.0)
    signal = (common - single) / (n * (n - 1) * count)
    noise = single / (n * count) - signal
    # Independent noise: the sum over pairs has the variance of 2 n (n - 1) real products.
    error = (single / (n * count)).clamp(min=0.0) * torch.sqrt(4.0 / (n * (n - 1) * count))
    found = (signal > _SIGNIFICANT * error) & (noise > 0.0)
    signal = torch.where(found, signal, 0.0)
    noise = torch.where(found, noise, 1.0)
    of_rings = signal / (noise * (noise + n * signal))
    largest = of_rings.max().clamp(min=1e-300)  # keeps float32 clear of its ends
    weight = rings.spread(of_rings / largest) * rings.twice
    ky, kx = fourier.frequencies(band.size, device=band.k.device, dtype=torch.float64)
    turns = 4.0 * math.pi**2 * (n - 1) * weight * rings.spread(signal)
    curvature = torch.stack([(turns * kx * kx).sum(), (turns * ky * ky).sum()])
    variance = (n - 1) / (n * largest * curvature)
    edge = torch.arange(1, rings.count + 1, device=band.k.device, dtype=torch.float64)
    told = torch.cumsum(of_rings * signal * count * edge.square(), 0)
    useful = int((told < _ENOUGH * told[-1]).sum()) + 1
    return Weights(
        weight=weight.float(),
        curvature=curvature,
        variance=variance,
        k_useful=useful / rings.count * rings.k_max,
    )


def measured_weights(
    stack: Stack, shifts: Tensor, reference: Tensor, single: Tensor, rings: Rings
) -> Weights:
    """Weights for a stack aligned by `shifts`; `single` are the ring sums of its own power."""
    n = len(stack.spectra)
    common = rings.sums(fourier.power(reference))
    if stack.pattern > 0.0:
        power = stack.pattern_power()
        common = common - rings.sums(power * fourier.power(pattern_sum(stack, shifts)))
        single = single - n * rings.sums(power)
    return weights_of(common, single, n, stack.band, rings)


def power_in_rings(stack: Stack, rings: Rings, threads: Threads) -> Tensor:
    """Ring sums of the frames' power; the same for any shifts."""
    if stack.spectra.numel() <= _SMALL:
        return rings.sums(fourier.power(stack.spectra).sum(0))
    total = torch.zeros_like(stack.band.k)

    def rows(start: int) -> None:
        part = total[start : start + _ROWS]
        for spectrum in stack.spectra:
            part.add_(fourier.power(spectrum[start : start + _ROWS]))

    threads.map(rows, range(0, len(total), _ROWS))
    return rings.sums(total)


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What a refinement gave, in unbinned px.

    Parameters
    ----------
    shifts_px
        `[n, 2]` (x, y).
    step_px, rounds
        The last step (r.m.s.), and how many there were.
    variance_px2
        Cramer-Rao bound `[2]` of a frame's shift; None where there is no signal.
    stack
        As much of the band as the last round used.
    """

    shifts_px: Tensor
    step_px: float
    rounds: int
    variance_px2: Tensor | None
    stack: Stack


def refine(
    stack: Stack, shifts_px: Tensor, *, tolerance_px: float, max_iter: int, threads: Threads
) -> Refined:
    """Improve shifts that are right to about a px of the maps.

    Parameters
    ----------
    stack
        The frames.
    shifts_px
        `[n, 2]` to start from.
    tolerance_px
        R.m.s. step that ends it.
    max_iter
        Most rounds.
    threads
        To work with.
    """
    rings = rings_of(stack.band)
    single = power_in_rings(stack, rings, threads)
    step, variance, number = math.inf, None, 0
    for number in range(1, max_iter + 1):
        scale = shifts_px.new_tensor(stack.band.scale)
        shifts = shifts_px / scale
        reference = aligned_sum(stack, shifts, threads)
        weights = measured_weights(stack, shifts, reference, single, rings)
        if float(weights.curvature.min()) <= 0.0:
            number -= 1
            break
        variance = weights.variance * scale.square()
        moves = slopes(stack, shifts, weights.weight, reference, threads) / weights.curvature
        moves = (moves - moves.mean(0)).clamp_(-_LONGEST_STEP, _LONGEST_STEP) * scale
        shifts_px = shifts_px + moves
        step = float(moves.square().sum(1).mean().sqrt())
        if step < tolerance_px:
            break
        if number == 1 and number < max_iter:
            # Rounds to come need no more of the band than tells something.
            stack = narrowed(stack, weights.k_useful)
            rings = rings_of(stack.band)
            single = power_in_rings(stack, rings, threads)
    return Refined(
        shifts_px=shifts_px, step_px=step, rounds=number, variance_px2=variance, stack=stack
    )
