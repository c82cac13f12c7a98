"""What the patches of a movie showed."""

from dataclasses import dataclass

import numpy as np

from algorithms.motion.model import LocalModel


@dataclass(frozen=True, kw_only=True)
class Field:
    """What the patches of a movie showed.

    Parameters
    ----------
    model
        Local motion, None where there is none to be had.
    centre_px
        `[p, 2]` (x, y) of the patches in unbinned px.
    frame
        `[g]` mean frame of each group, counted from the first used.
    observed_px
        `[p, g, 2]` shifts seen, each patch starting at zero.
    used
        `[p]` False for patches that were left out.
    """

    model: LocalModel | None
    centre_px: np.ndarray
    frame: np.ndarray
    observed_px: np.ndarray
    used: np.ndarray
