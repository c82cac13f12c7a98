"""A spectrum in polar bins, flat and without its background: what the search runs on.

The plane of ~10^5 px becomes ~10^4 bins of radius and azimuth. A bin keeps the means of s^2,
s^2 cos 2 alpha, s^2 sin 2 alpha and s^4 of its pixels, so that the phase of the CTF in it is exact
to first order. In every sector a smooth curve is taken off the data *and* off every model: what is
compared is what a smooth background cannot explain, which stays right at low defocus where the
first ring is as wide as the background's features.

Source: preprocessing.md sections 3.3 and 3.8 (amplitudes relative to a smooth background).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms import fourier

SECTORS = 60
# Half width in px of the cross of artefacts along the axes (edges of the image, read-out).
CROSS_PX = 10
_KNOTS = 6
_CLIP_SIGMA = 5.0


@dataclass(frozen=True, kw_only=True)
class PolarSpectrum:
    """Polar bins of one half plane.

    Parameters
    ----------
    data
        float32 `[sectors, rings]`: relative amplitude times `root`, background projected out.
    root
        `[sectors, rings]` root of the number of pixels: makes the noise of all bins equal.
    s2, s2_cos, s2_sin, s4
        `[sectors, rings]` means over the pixels of each bin, 1/A^2 (1/A^4).
    basis
        `[sectors, rings, knots]` orthonormal background curves, times `root`.
    n_bins, n_pixels
        Bins and pixels that hold data.
    """

    data: Tensor
    root: Tensor
    s2: Tensor
    s2_cos: Tensor
    s2_sin: Tensor
    s4: Tensor
    basis: Tensor
    n_bins: int
    n_pixels: int


def project_out(values: Tensor, basis: Tensor) -> Tensor:
    """`values` `[..., sectors, rings]` less its part in the background curves `basis`."""
    inside = torch.einsum("asr,...as->...ar", basis, values)
    return values - torch.einsum("asr,...ar->...as", basis, inside)


def to_polar(
    spectrum: Tensor,
    pixel_size_A: float,
    min_resolution_A: float,
    max_resolution_A: float,
    sectors: int = SECTORS,
) -> PolarSpectrum:
    """Polar bins of a centred amplitude spectrum `[n, n]` between two resolutions.

    Raises
    ------
    ValueError
        The band holds no ring: the pixel is too large for the resolution asked for.
    """
    size = spectrum.shape[-1]
    px, py = fourier.centred_frequencies(size, 1.0 / size, device=spectrum.device)
    r = torch.sqrt(px * px + py * py)
    low = size * pixel_size_A / min_resolution_A
    high = min(size * pixel_size_A / max_resolution_A, size / 2.0 - 1.0)
    if high - low < 2 * _KNOTS:
        raise ValueError(
            f"the band {min_resolution_A}..{max_resolution_A} A has {max(0.0, high - low):.0f} "
            f"rings at {pixel_size_A} A per px; use a larger box or a smaller pixel"
        )
    keep = (r > low) & (r < high) & (px < -CROSS_PX) & (py.abs() > CROSS_PX)
    iy, ix = torch.nonzero(keep, as_tuple=True)
    x, y, radius = px[0, ix], py[iy, 0], r[iy, ix]
    first = int(low)
    rings = int(high) - first + 1
    ring = radius.long() - first
    values = _flatten(spectrum[iy, ix].float(), ring, rings)
    # x < 0 everywhere: azimuths from 90 to 270 degrees, the other half plane is the same.
    azimuth = torch.atan2(y, x) % torch.pi
    sector = (azimuth * (sectors / torch.pi)).long().clamp(max=sectors - 1)
    bins = sector * rings + ring

    count = torch.bincount(bins, minlength=sectors * rings).float()

    def mean(quantity: Tensor) -> Tensor:
        total = torch.zeros_like(count).index_add_(0, bins, quantity)
        return (total / count.clamp(min=1.0)).view(sectors, rings)

    unit = 1.0 / (size * pixel_size_A)
    root = count.sqrt().view(sectors, rings)
    basis = background_basis(rings, root)
    return PolarSpectrum(
        data=project_out(mean(values) * root, basis),
        root=root,
        s2=mean(radius * radius) * unit**2,
        s2_cos=mean(x * x - y * y) * unit**2,
        s2_sin=mean(2.0 * x * y) * unit**2,
        s4=mean(radius**4) * unit**4,
        basis=basis,
        n_bins=int((count > 0).sum()),
        n_pixels=len(values),
    )


def _flatten(values: Tensor, ring: Tensor, rings: int) -> Tensor:
    """Amplitudes over the mean of their ring, smoothed; outliers (spots) clipped."""
    count = torch.bincount(ring, minlength=rings).float().clamp(min=1.0)
    total = torch.zeros_like(count).index_add_(0, ring, values)
    basis = background_basis(rings, count.sqrt()[None])[0]
    # The curve is fitted to the logarithm: the spectrum falls by orders of magnitude.
    log_mean = torch.log((total / count).clamp(min=1e-30)) * count.sqrt()
    smooth = torch.exp((basis @ (basis.T @ log_mean)) / count.sqrt())
    relative = values / smooth[ring]
    mean, deviation = relative.mean(), relative.std()
    return relative.clamp(mean - _CLIP_SIGMA * deviation, mean + _CLIP_SIGMA * deviation) - mean


def background_basis(rings: int, root: Tensor) -> Tensor:
    """Orthonormal smooth curves `[sectors, rings, knots]`: cubic B-splines times `root`."""
    position = torch.linspace(0.0, 1.0, rings, device=root.device, dtype=torch.float64)
    knots = torch.arange(-1, _KNOTS - 1, device=root.device, dtype=torch.float64)
    t = (position[:, None] * (_KNOTS - 3) - knots).abs()
    inner = (4.0 - 6.0 * t**2 + 3.0 * t**3) / 6.0
    outer = (2.0 - t).clamp(min=0.0) ** 3 / 6.0
    splines = torch.where(t < 1.0, inner, outer)
    q, _ = torch.linalg.qr(root[..., None].double() * splines)
    return q.float()
