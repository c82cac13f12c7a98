"""How much an iteration changed the particles' poses.

Source: refinement.md section 5.3.
"""

import numpy as np
import torch
from torch import Tensor

from algorithms.orientation import euler
from algorithms.refine.auto.rules import Changes

_PART = 200_000  # particles and mates at a time, to bound memory


def changes(
    angles_before_deg: np.ndarray,
    angles_deg: np.ndarray,
    offsets_before_A: np.ndarray,
    offsets_A: np.ndarray,
    operators: Tensor | None = None,
) -> Changes:
    """Return the changes of one class.

    Parameters
    ----------
    angles_before_deg, angles_deg
        (rot, tilt, psi) of every particle, `[n, 3]`.
    offsets_before_A, offsets_A
        (x, y), `[n, 2]`.
    operators
        Of the point group, `[s, 3, 3]`: mates are the same pose.
    """
    n = len(angles_deg)
    total = 0.0
    few = max(1, _PART // (1 if operators is None else len(operators)))
    for begin in range(0, n, few):
        part = slice(begin, begin + few)
        before, after = (
            euler.matrices(torch.as_tensor(angles[part]))
            for angles in (angles_before_deg, angles_deg)
        )
        total += float(euler.distances(before, after, operators).sum())
    square = float(((offsets_A - offsets_before_A) ** 2).sum())
    return Changes(
        turned_deg=total / max(1, n),
        shifted_A=float(np.sqrt(square / (2.0 * max(1, n)))),
        reclassed=0.0,
    )
