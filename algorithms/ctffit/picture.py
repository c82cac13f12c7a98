"""The diagnostic image: spectrum above, equiphase average and model below.

Source: preprocessing.md section 3.7.
"""

import torch
from torch import Tensor

from algorithms.ctf import Ctf, phase
from algorithms.ctffit.diagnostics import Profile
from algorithms.ctffit.spectrum import pixel_radius
from algorithms.ctffit.types import CtfFitOptions


def paint(
    flat: Tensor,
    pixel_size_A: float,
    optics: Ctf,
    options: CtfFitOptions,
    profile: Profile,
    fit_resolution_A: float,
) -> Tensor:
    """Diagnostic image float32 `[n, n]`, values 0 .. 1, of a background-subtracted spectrum."""
    size = flat.shape[-1]
    reach = size * pixel_size_A
    x, y, r = pixel_radius(size, flat.device)
    s = r / reach
    low, high = 1.0 / options.min_resolution_A, 1.0 / options.max_resolution_A
    top = max(1.0 / fit_resolution_A, 1.5 * low)
    experimental = _contrast(flat, (s > 0.5 * (low + top)) & (s <= top))
    phi = phase(optics, x / reach, y / reach)
    epa = torch.from_numpy(profile.epa).to(flat.device)
    along = torch.from_numpy(profile.phase).to(flat.device)
    # Painted back by phase: an astigmatic spectrum gets elliptic rings.
    rising = int(along.argmax()) + 1
    position = torch.searchsorted(along[:rising].contiguous(), phi.double().contiguous())
    painted = _contrast(epa[position.clamp(max=rising - 1)].float(), (s > low) & (s <= top))
    image = torch.where(y < 0, painted, experimental)
    model = torch.where((s >= low) & (s <= high), torch.sin(phi).abs(), experimental)
    image = torch.where((y < 0) & (x < 0), model, image)
    return torch.where(s <= low, 0.0, image)


def _contrast(image: Tensor, where: Tensor) -> Tensor:
    """Values between mean - deviation and mean + 2 deviations of a region, as 0 .. 1."""
    mean, deviation = image[where].mean(), image[where].std().clamp(min=1e-12)
    return ((image - mean + deviation) / (3.0 * deviation)).clamp(0.0, 1.0)
