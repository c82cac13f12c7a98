"""Alignment of a stack of frames as a whole, on small low-resolution spectra.

Every frame is correlated with the sum of all the others under a Gaussian low-pass filter and moved
to the peak, and again, until the moves are small; then the shifts are refined with weights that
are measured in the frames.

Source: preprocessing.md section 2.4.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.motion.refine import refine
from algorithms.motion.stack import Stack, aligned_sum, correlation_maps, find_peaks, narrowed
from algorithms.motion.threads import Threads

# The first rounds end when a round moves the frames less than this: the refinement takes over.
_COARSE_PX = 0.5
_SMOOTHING_ROUNDS = 6
_FREEDOM = 2.0  # of the t distribution of changes of speed
_AT_ONCE = 1 << 18  # coefficients of the maps that are made together


@dataclass(frozen=True, kw_only=True)
class Track:
    """Shifts `[n, 2]` (x, y) in unbinned px to apply to each frame, zero in the first."""

    shifts_px: np.ndarray
    converged: bool
    iterations: int


def align(
    stack: Stack, *, tolerance_px: float, max_iter: int, search_range_px: float, threads: Threads
) -> Track:
    """Align a stack.

    Parameters
    ----------
    stack
        The frames.
    tolerance_px, max_iter, search_range_px
        See `MotionOptions`.
    threads
        To work with.
    """
    shifts_px, rmsd, rounds = coarse_shifts(stack, max_iter, search_range_px, threads)
    refined = refine(
        stack, shifts_px, tolerance_px=tolerance_px, max_iter=max_iter, threads=threads
    )
    track, limit = refined.shifts_px.cpu().numpy(), _COARSE_PX
    if refined.variance_px2 is not None:
        rmsd, limit = refined.step_px, tolerance_px
        track = smoothed(track, refined.variance_px2.cpu().numpy())
    return Track(
        shifts_px=track - track[:1], converged=rmsd < limit, iterations=rounds + refined.rounds
    )


def smoothed(track: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Most probable path `[n, 2]` of a specimen whose speed changes at random.

    The variance of the change of speed is what the track's second differences have beyond the
    `variance` `[2]` of a measurement: where measurements are good nothing is smoothed. The changes
    have the long tails of a t distribution, for specimens that start with a jerk.
    """
    n = len(track)
    if n < 4:
        return track
    bend = np.diff(np.eye(n), 2, axis=0)
    # A difference of 1, -2, 1 has six times the variance of a measurement.
    change = np.maximum((bend @ track).var(0) - 6.0 * variance, 0.05 * variance)
    usual = np.broadcast_to(change, (n - 2, 2))
    here, out = usual, track
    for _ in range(_SMOOTHING_ROUNDS):
        out = np.empty_like(track)
        for axis in range(2):
            ridge = bend.T @ (variance[axis] / here[:, axis, None] * bend)
            out[:, axis] = np.linalg.solve(np.eye(n) + ridge, track[:, axis])
        # How much larger than usual a change is, is told by both axes.
        excess = np.square(bend @ out / np.sqrt(usual)).mean(1, keepdims=True)
        here = usual * (_FREEDOM + 2.0 * excess) / (_FREEDOM + 2.0)
    return out


def coarse_shifts(
    stack: Stack, max_iter: int, search_range_px: float, threads: Threads
) -> tuple[Tensor, float, int]:
    """Shifts `[n, 2]` in unbinned px from the peaks of maps, the last r.m.s. step, rounds.

    Half the band is enough for what is refined afterwards, and takes a quarter of the time.
    """
    k_max = float((stack.band.k * stack.band.inside).max())
    stack = narrowed(stack, 0.5 * k_max)
    scale = torch.tensor(stack.band.scale, dtype=torch.float64, device=stack.spectra.device)
    radius = search_radius(stack, search_range_px)
    shifts = torch.zeros(len(stack.spectra), 2, dtype=torch.float64, device=scale.device)
    best, best_rmsd, previous, rises, rounds = shifts, math.inf, math.inf, 0, 0
    while rounds < max_iter and rises < 2:
        rounds += 1
        step = peak_steps(stack, shifts, stack.band.weight, radius, threads)
        step = step - step[:1]
        shifts = shifts + step
        rmsd = float((step * scale).square().sum(1).mean().sqrt())
        if rmsd < best_rmsd:
            best, best_rmsd = shifts, rmsd
        if rmsd < _COARSE_PX:
            break
        # One larger move can be a frame that leaves a wrong peak; two in a row is divergence.
        rises = rises + 1 if rmsd > previous else 0
        previous = rmsd
    return best * scale, best_rmsd, rounds


def peak_steps(
    stack: Stack, shifts: Tensor, weight: Tensor, radius: int, threads: Threads
) -> Tensor:
    """Peak `[n, 2]` (x, y), in map px, of every frame against the sum of the others."""
    reference = aligned_sum(stack, shifts, threads)

    def peaks(batch: slice) -> Tensor:
        return find_peaks(correlation_maps(stack, shifts, weight, batch, reference), radius)

    return torch.cat(threads.map(peaks, stack.batches(_AT_ONCE)))


def search_radius(stack: Stack, search_range_px: float) -> int:
    """Search range in map px: at least one, at most what the maps hold."""
    radius = int(search_range_px / max(stack.band.scale))
    return max(1, min(radius, min(stack.band.size) // 2 - 1))
