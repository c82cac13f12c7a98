"""Euler angles, RELION's way: ZYZ, in degrees, as matrices whose rows are the image's axes.

A slice at (rot, tilt, psi) has the value V(A^T (jx, jy, 0)) at (jx, jy). The third row of A is the
direction of view.

Source: refinement.md section 1.3; Heymann et al. (2005) J. Struct. Biol. 151, 196.
"""

import torch
from torch import Tensor

_STRAIGHT = 1e-9  # sin of the tilt, below which rot and psi are one angle


def matrices(angles_deg: Tensor) -> Tensor:
    """Return matrices `[..., 3, 3]` of angles (rot, tilt, psi) `[..., 3]`, float64."""
    a, b, g = torch.deg2rad(angles_deg.double()).unbind(-1)
    ca, cb, cg = torch.cos(a), torch.cos(b), torch.cos(g)
    sa, sb, sg = torch.sin(a), torch.sin(b), torch.sin(g)
    rows = [
        torch.stack([cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb], dim=-1),
        torch.stack([-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb], dim=-1),
        torch.stack([sb * ca, sb * sa, cb], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def angles(rotations: Tensor) -> Tensor:
    """Return (rot, tilt, psi) `[..., 3]` in degrees of matrices `[..., 3, 3]`.

    Tilt is 0 to 180; where it is 0 or 180, rot is 0.
    """
    m = rotations.double()
    sin_tilt = torch.sqrt(m[..., 2, 0] ** 2 + m[..., 2, 1] ** 2)
    tilt = torch.atan2(sin_tilt, m[..., 2, 2])
    rot = torch.atan2(m[..., 2, 1], m[..., 2, 0])
    psi = torch.atan2(m[..., 1, 2], -m[..., 0, 2])
    straight = sin_tilt < _STRAIGHT
    # One angle is left; seen from behind it turns the other way.
    alone = torch.atan2(-m[..., 1, 0] * torch.sign(m[..., 2, 2]), m[..., 1, 1])
    rot = torch.where(straight, torch.zeros_like(rot), rot)
    psi = torch.where(straight, alone, psi)
    return torch.rad2deg(torch.stack([rot, tilt, psi], dim=-1))


def directions(rot_deg: Tensor, tilt_deg: Tensor) -> Tensor:
    """Return unit vectors `[..., 3]` (x, y, z) of directions of view."""
    rot, tilt = torch.deg2rad(rot_deg.double()), torch.deg2rad(tilt_deg.double())
    flat = torch.sin(tilt)
    return torch.stack([flat * torch.cos(rot), flat * torch.sin(rot), torch.cos(tilt)], dim=-1)


def distances(first: Tensor, second: Tensor, operators: Tensor | None = None) -> Tensor:
    """Return how far orientations are apart, degrees `[...]`.

    The distance is the mean of the angles between corresponding rows of the two matrices, the
    least over the symmetry mates of the second.

    Parameters
    ----------
    first, second
        Matrices `[..., 3, 3]`.
    operators
        Of a point group, `[s, 3, 3]`; None: no symmetry.
    """
    if operators is None:
        operators = torch.eye(3, dtype=torch.float64)[None]
    mates = second.double()[..., None, :, :] @ operators.to(second.device)
    cosines = (first.double()[..., None, :, :] * mates).sum(-1).clamp(-1.0, 1.0)
    return torch.rad2deg(torch.acos(cosines)).mean(-1).amin(-1)


def random_rotations(n: int, random: torch.Generator) -> Tensor:
    """Return `n` matrices `[n, 3, 3]`, uniform over all rotations."""
    q = torch.randn((n, 4), generator=random, dtype=torch.float64)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], 1),
        torch.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], 1),
        torch.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], 1),
    ]
    return torch.stack(rows, dim=1)
