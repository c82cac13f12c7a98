"""Correlation of the halves inside a mask, corrected for what the mask itself correlates.

Source: refinement.md sections 3.4 and 7.
"""

import torch
from torch import Tensor

from algorithms.maps import correlation


def corrected(first: Tensor, second: Tensor, mask: Tensor, size: int) -> Tensor:
    """Return the FSC of the particle `[S]` from maps of both halves.

    Parameters
    ----------
    first, second
        Without prior and mask, `[N, N, N]`.
    mask
        Of the solvent, 0 to 1.
    size
        Edge of the present window, px: there is nothing beyond it.
    """
    shells = first.shape[-1] // 2 + 1
    beyond = torch.arange(shells) > size // 2
    try:
        found = correlation.curves(first, second, mask)
    except ValueError:  # the halves agree at all shells: there is nothing to be corrected
        curve = correlation.fsc(first * mask, second * mask)
        return torch.where(beyond, 0.0, curve)
    late = torch.arange(shells) >= found.randomised_from + correlation.GAP
    is_mask = late & (found.randomised > found.masked)
    return torch.where(beyond | is_mask, 0.0, found.corrected)
