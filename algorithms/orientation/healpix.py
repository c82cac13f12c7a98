"""HEALPix pixels in nested order as directions of view.

The four children of pixel p are 4p .. 4p+3 of the next order.

Source: refinement.md section 2.4; Gorski et al. (2005) Astrophys. J. 622, 759, equations 2 to 9.
"""

import math

import torch
from torch import Tensor

_RING = torch.tensor([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])  # of the faces' southern corners
_COLUMN = torch.tensor([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])
MAX_ORDER = 10


def count(order: int) -> int:
    """Return the number of pixels."""
    return 12 * 4**order


def step_deg(order: int) -> float:
    """Return the distance of neighbours: 60, 30, 15, 7.5 ... degrees."""
    return 60.0 / 2**order


def order_for(step: float) -> int:
    """Return the lowest order whose step is not above `step` degrees."""
    return max(0, math.ceil(math.log2(60.0 / step) - 1e-9))


def pixels(order: int) -> tuple[Tensor, Tensor]:
    """Return rot and tilt in degrees of all pixel centres, float64 `[12 * 4^order]`.

    Rot is between -180 and 180, tilt between 0 and 180.

    Raises
    ------
    ValueError
        The order is negative or above 10.
    """
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"a HEALPix order is 0 to {MAX_ORDER}, not {order}")
    side = 2**order
    pixel = torch.arange(count(order))
    face, inside = pixel // side**2, pixel % side**2
    x, y = _even_bits(inside), _even_bits(inside >> 1)
    ring = _RING[face] * side - x - y - 1
    north, south = ring < side, ring > 3 * side
    length = torch.where(north, ring, torch.where(south, 4 * side - ring, side))  # a quarter of it
    polar = length.double() ** 2 / (3.0 * side**2)
    belt = (2 * side - ring).double() * 2.0 / (3.0 * side)
    z = torch.where(north, 1.0 - polar, torch.where(south, polar - 1.0, belt))
    shift = torch.where(north | south, 0, (ring - side) & 1)
    place = torch.div(_COLUMN[face] * length + x - y + 1 + shift, 2, rounding_mode="floor")
    place = torch.where(place > 4 * length, place - 4 * length, place)
    place = torch.where(place < 1, place + 4 * length, place)
    rot = (place.double() - (shift + 1) * 0.5) * 90.0 / length
    return torch.where(rot > 180.0, rot - 360.0, rot), torch.rad2deg(torch.acos(z))


def _even_bits(value: Tensor) -> Tensor:
    """Return the number made of bits 0, 2, 4, ... of each value."""
    out = torch.zeros_like(value)
    for bit in range(MAX_ORDER):
        out |= ((value >> (2 * bit)) & 1) << bit
    return out
