"""The diagnostic image: spectrum above, equiphase average and model below.

Source: preprocessing.md section 3.7.
"""

import torch
from torch import Tensor

from algorithms.ctf import Ctf, phase
from algorithms.ctffit.plane import plane
from algorithms.ctffit.profile import Profile, ring_model
from algorithms.ctffit.types import CtfFitOptions


def paint(
    flat: Tensor,
    pixel_size_A: float,
    optics: Ctf,
    options: CtfFitOptions,
    profile: Profile,
    fit_resolution_A: float,
    thickness_A: float = 0.0,
) -> Tensor:
    """Diagnostic image float32 `[n, n]`, values 0 .. 1, of a background-subtracted spectrum."""
    size = flat.shape[-1]
    reach = size * pixel_size_A
    here = plane(size, flat.device)
    x, y, s = here.x, here.y, here.r / reach
    low, high = 1.0 / options.min_resolution_A, 1.0 / options.max_resolution_A
    top = max(1.0 / fit_resolution_A, 1.5 * low)
    image = _contrast(flat, (s > 0.5 * (low + top)) & (s <= top))
    below = slice(0, size // 2)  # y < 0
    phi = phase(optics, x / reach, y[below] / reach)
    epa = torch.from_numpy(profile.epa).to(flat.device)
    along = torch.from_numpy(profile.phase).to(flat.device)
    # Painted back by phase: an astigmatic spectrum gets elliptic rings.
    rising = int(along.argmax()) + 1
    position = torch.searchsorted(along[:rising].contiguous(), phi.double().contiguous())
    band = (s[below] > low) & (s[below] <= top)
    painted = _contrast(epa[position.clamp(max=rising - 1)].float(), band)
    left, inside = slice(0, size // 2), (s[below] >= low) & (s[below] <= high)
    rings = ring_model(phi, s[below].square(), optics, thickness_A)
    painted[:, left] = torch.where(inside, rings, image[below])[:, left]
    image[below] = painted
    return image.masked_fill_(s <= low, 0.0)


def _contrast(image: Tensor, where: Tensor) -> Tensor:
    """Values between mean - deviation and mean + 2 deviations of a region, as 0 .. 1."""
    mean, deviation = image[where].mean(), image[where].std().clamp(min=1e-12)
    return ((image - mean + deviation) / (3.0 * deviation)).clamp(0.0, 1.0)
