"""When steps become finer, when searches become local, and when a refinement has converged.

All of it is a state that changes by rules: nothing here looks at an image.

Source: refinement.md sections 2.6, 5.3 and 5.4.
"""

import math
from dataclasses import dataclass, replace

from torch import Tensor

from algorithms.orientation import healpix

FAR = 999.0
MANY = 9_999_999.0
ENOUGH = 0.75  # of the accuracy of rotations: a step below it is fine enough
SETTLED = 0.40  # of a fine step: changes below it are none
SLACK = 1.03  # changes that are less than this factor smaller have not become smaller
GAIN = 1e-4  # 1/A
LEAST_SHELL = 5
HIGH_FSC = 0.2


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a run is told.

    Parameters
    ----------
    particle_diameter_A
        Of the particle.
    local_order
        HEALPix order of the coarse grid from which on searches are local
        [--auto_local_healpix_order].
    oversampling
        How often the fine pass halves steps.
    ignore_angles
        Go on whether poses have settled or not [--auto_ignore_angles].
    resol_angles
        Take finer angles as the resolution asks for, before it stops to improve
        [--auto_resol_angles].
    """

    particle_diameter_A: float
    local_order: int = 4
    oversampling: int = 1
    ignore_angles: bool = False
    resol_angles: bool = False


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The coarse grid.

    Parameters
    ----------
    order
        Of HEALPix.
    offset_range_A, offset_step_A
        Of the shifts.
    sigma_deg
        Width of the prior of local searches; 0: all orientations are searched.
    """

    order: int
    offset_range_A: float
    offset_step_A: float
    sigma_deg: float = 0.0

    def fine_deg(self, oversampling: int) -> float:
        """Return the angular step of the fine pass."""
        return healpix.step_deg(self.order + oversampling)

    def fine_A(self, oversampling: int) -> float:
        """Return the step of the shifts of the fine pass."""
        return self.offset_step_A / 2**oversampling


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What an iteration has changed: mean turn in degrees, shift in A, share in another class."""

    turned_deg: float = FAR
    shifted_A: float = FAR
    reclassed: float = MANY


@dataclass(frozen=True, kw_only=True)
class State:
    """What decides.

    Parameters
    ----------
    resolution, best
        Present resolution and the best thus far, 1/A.
    no_gain, no_change
        Iterations without a gain in resolution, and without poses that settled further.
    changes, least
        Of the last iteration, and the least since steps were changed.
    fine_enough
        Whether finer steps would tell nothing.
    high_fsc
        Whether the halves agreed at the edge of the window once.
    increment
        Shells by which the window exceeds the resolution.
    converged
        Whether the iteration is the last one.
    """

    resolution: float = 0.0
    best: float = 1.0 / FAR
    no_gain: int = 0
    no_change: int = 0
    changes: Changes = Changes()
    least: Changes = Changes()
    fine_enough: bool = False
    high_fsc: bool = False
    increment: int = 10
    converged: bool = False


def resolved(state: State, resolution: float) -> State:
    """Return the state with a new resolution, 1/A."""
    gained = resolution > state.resolution + GAIN
    return replace(
        state,
        resolution=resolution,
        best=max(state.best, resolution),
        no_gain=0 if gained else state.no_gain + 1,
    )


def moved(state: State, changes: Changes, steps: Steps, rules: Rules) -> State:
    """Return the state after an iteration that changed so much.

    Parameters
    ----------
    state, changes
        Before it, and what it did.
    steps, rules
        Steps it was done with.
    """
    least, over = state.least, rules.oversampling

    def settled(now: float, step: float, before: float) -> bool:
        return now / step < SETTLED or SLACK * now >= before

    same = (
        SLACK * changes.reclassed >= least.reclassed
        and settled(changes.shifted_A, steps.fine_A(over), least.shifted_A)
        and settled(changes.turned_deg, steps.fine_deg(over), least.turned_deg)
    )
    smallest = Changes(
        turned_deg=min(least.turned_deg, changes.turned_deg),
        shifted_A=min(least.shifted_A, changes.shifted_A),
        # RELION keeps this one as a whole number: quirk 11.
        reclassed=min(least.reclassed, float(round(changes.reclassed))),
    )
    no_change = state.no_change + 1 if same else 0
    return replace(state, changes=changes, least=smallest, no_change=no_change)


def started(steps: Steps, rules: Rules) -> Steps:
    """Return the first steps: a run that begins with fine ones searches locally at once."""
    if steps.order < rules.local_order:
        return steps
    return replace(steps, sigma_deg=2.0 * steps.fine_deg(rules.oversampling))


def refined(
    state: State, steps: Steps, accuracy_deg: float, accuracy_A: float, rules: Rules
) -> tuple[State, Steps]:
    """Return state and steps of the next E-step: finer ones where that is due.

    Parameters
    ----------
    state, steps
        After the iteration before.
    accuracy_deg, accuracy_A
        How far a particle may be turned and moved before one can tell.
    rules
        Of the run.
    """
    step = steps.fine_deg(rules.oversampling)
    # What has converged with these steps is put together with them.
    if state.converged or not _is_due(state, steps, step, rules):
        return state, steps
    if step < ENOUGH * accuracy_deg:
        return replace(state, fine_enough=True), steps
    offset_step, offset_range = _shifts(state, steps, accuracy_A, rules)
    finer = Steps(order=steps.order + 1, offset_step_A=offset_step, offset_range_A=offset_range)
    fresh = replace(state, no_gain=0, no_change=0, least=Changes(), fine_enough=False)
    return fresh, started(finer, rules)


def _is_due(state: State, steps: Steps, step: float, rules: Rules) -> bool:
    """Tell whether the present steps have done what they can."""
    reach = math.ceil(math.pi * rules.particle_diameter_A * state.resolution)
    asks = (
        rules.resol_angles
        and reach > 0
        and 360.0 / reach < step
        and steps.order + 1 != rules.local_order
    )
    return (state.no_gain >= 1 or asks) and _has_settled(state, rules)


def _has_settled(state: State, rules: Rules) -> bool:
    return state.no_change >= 1 or rules.ignore_angles


def _shifts(state: State, steps: Steps, accuracy_A: float, rules: Rules) -> tuple[float, float]:
    """Return step and range of the shifts, A."""
    new_step = min(1.5, 0.75 * accuracy_A) * 2**rules.oversampling
    new_range = min(1.3 * steps.offset_range_A, 5.0 * state.changes.shifted_A)
    new_range = max(new_range, 1.5 * new_step)
    if new_range > 4.0 * new_step:
        new_range /= 2.0
    if new_range > 4.0 * new_step:
        new_step = new_range / 4.0
    if new_step > steps.offset_step_A:
        return steps.offset_step_A, steps.offset_range_A
    return new_step, new_range


def has_converged(state: State, rules: Rules) -> bool:
    """Tell, before an iteration, whether it is to be the last one."""
    return state.fine_enough and state.no_gain >= 1 and _has_settled(state, rules)


# ---- the window


def resolution_shell(ssnr: Tensor, *, jumps: bool = True) -> int:
    """Return the shell up to which data outweigh the prior, from its ratio `[S]`.

    Parameters
    ----------
    ssnr
        Data over prior.
    jumps
        Whether a shell more than three beyond the first one below 1 counts that is above 1 again:
        for the next window it does, for a resolution that is reported it does not.
    """
    shells = len(ssnr)
    below = (ssnr[1:] < 1.0).nonzero()
    first = int(below[0, 0]) if len(below) else shells - 1
    above = (ssnr > 1.0).nonzero()
    last = int(above[-1, 0]) if len(above) else 0
    if jumps and last > first + 3:
        first = last
    return min(max(first, LEAST_SHELL), shells - 1)


def judged(state: State, fsc: Tensor, size: int) -> State:
    """Return the state with what an FSC `[S]` says of the next window.

    Parameters
    ----------
    state, fsc
        Before, and of the halves.
    size
        Edge of the present window, px.
    """
    high = state.high_fsc or bool(fsc[size // 2 - 1] > HIGH_FSC)
    half, resolved_ = (_first_below(fsc, limit) for limit in (0.5, 0.143))
    return replace(state, high_fsc=high, increment=max(state.increment, resolved_ - half + 5))


def window(state: State, shell: int, box: int, mean_pmax: float) -> int:
    """Return the edge of the window of the next iteration, px.

    Parameters
    ----------
    state
        Whether it has converged, and what the halves said.
    shell
        Present resolution.
    box
        N.
    mean_pmax
        Of the iteration before.
    """
    if state.converged:
        return box
    increment = state.increment
    if state.high_fsc and mean_pmax > 0.1:
        increment = round(0.25 * box / 2)
    return min(2 * (shell + increment), box)


def _first_below(curve: Tensor, limit: float) -> int:
    below = (curve < limit).nonzero()
    return int(below[0, 0]) if len(below) else len(curve) - 1
