"""How large the particle in a map is, and how fine its details are, where nobody says so."""

import torch
from torch import Tensor

from algorithms.maps import shells, solvent, threshold

SMOOTH_A = 15.0
FAINTEST = 1e-4  # power of a shell over that of the strongest one, where a map ends


def diameter_A(volume: Tensor, pixel_A: float) -> float:
    """Return the diameter of the sphere that holds 99 % of the dense voxels.

    Parameters
    ----------
    volume
        `[N, N, N]`.
    pixel_A
        Edge of a voxel.
    """
    box = volume.shape[-1]
    smooth = solvent.low_passed(volume, pixel_A, max(SMOOTH_A, 3.0 * pixel_A)).double()
    limit, _ = threshold.limit(smooth.cpu().numpy())
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    dense = smooth.cpu() >= limit
    places = torch.stack([z[dense], y[dense], x[dense]], dim=1)
    far = torch.sort((places - places.mean(0)).norm(dim=1)).values
    return min(2.0 * float(far[int(0.99 * (len(far) - 1))]) + 2.0, 0.95 * box) * pixel_A


def resolution_A(volume: Tensor, pixel_A: float) -> float:
    """Return the resolution beyond which a map holds nothing: its filter's, not that of the data.

    Parameters
    ----------
    volume
        `[N, N, N]`.
    pixel_A
        Edge of a voxel.
    """
    box = volume.shape[-1]
    spectrum = shells.to_fourier(volume)
    power = shells.means(spectrum.real**2 + spectrum.imag**2, box)
    above = torch.nonzero(power[1:] >= FAINTEST * power[1:].max())
    return box * pixel_A / max(1, int(above[-1]) + 1)
