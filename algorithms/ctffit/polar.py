"""A spectrum in polar bins, flat and without its background: what the search runs on.

The plane of ~10^5 px becomes ~10^4 bins of radius and azimuth. A bin keeps the means of s^2,
s^2 cos 2 alpha, s^2 sin 2 alpha and s^4 of its pixels, so that the phase of the CTF in it is exact
to first order. In every sector a smooth curve is taken off the data *and* off every model: what is
compared is what a smooth background cannot explain, which stays right at low defocus where the
first ring is as wide as the background's features.

Source: preprocessing.md sections 3.3 and 3.8 (amplitudes relative to a smooth background).
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from algorithms import fourier

SECTORS = 60
# Half width in px of the cross of artefacts along the axes (edges of the image, read-out).
CROSS_PX = 10
_KNOTS = 6
_CLIP_SIGMA = 5.0


_FIELDS = ("root", "s2", "s2_cos", "s2_sin", "s4", "x_A", "y_A", "basis")


@dataclass(frozen=True, kw_only=True, eq=False)
class PolarGrid:
    """The bins of one half plane, the same for all spectra of a size.

    Parameters
    ----------
    root
        `[sectors, rings]` root of the number of pixels: makes the noise of all bins equal.
    s2, s2_cos, s2_sin, s4
        `[sectors, rings]` means over the pixels of each bin, 1/A^2 (1/A^4).
    x_A, y_A
        `[sectors, 1]` position of the sectors' tile from the middle of the micrograph in A.
    basis
        `[sectors, rings, knots]` orthonormal background curves, times `root`.
    pixels, bins, ring
        Places of the pixels in the plane read row by row, their bins and their rings.
    ring_basis, ring_root
        As `basis` and `root` for whole rings: `[rings, knots]`, `[rings]`.
    n_bins, n_pixels
        Bins and pixels that hold data.
    """

    root: Tensor
    s2: Tensor
    s2_cos: Tensor
    s2_sin: Tensor
    s4: Tensor
    x_A: Tensor
    y_A: Tensor
    basis: Tensor
    pixels: Tensor
    bins: Tensor
    ring: Tensor
    ring_basis: Tensor
    ring_root: Tensor
    n_bins: int
    n_pixels: int

    def sectors(self, first: int, step: int) -> "PolarGrid":
        """Return every `step`-th sector from `first`; it cannot bin spectra."""
        part = {name: getattr(self, name)[first::step].contiguous() for name in _FIELDS}
        return self._other(part)

    def tiled(self, x_A: Tensor, y_A: Tensor) -> "PolarGrid":
        """Return the grid of tiles at `[k]` positions one after the other, `[k * sectors, ...]`."""
        count, sectors = len(x_A), len(self.root)
        part = {name: torch.cat([getattr(self, name)] * count) for name in _FIELDS}
        part["x_A"] = x_A.repeat_interleave(sectors)[:, None]
        part["y_A"] = y_A.repeat_interleave(sectors)[:, None]
        return self._other(part)

    def _other(self, part: dict[str, Tensor]) -> "PolarGrid":
        root, empty = part["root"], torch.empty(0, dtype=torch.long)
        return replace(
            self,
            **part,
            pixels=empty,
            bins=empty,
            ring=empty,
            ring_root=root.square().sum(0).sqrt(),
            n_bins=int((root > 0).sum()),
            n_pixels=round(float(root.double().square().sum())),
        )

    def bin(self, spectrum: Tensor) -> Tensor:
        """Data float32 `[sectors, rings]` of a centred amplitude spectrum `[n, n]`.

        Amplitudes relative to a smooth curve, times `root`, background projected out.
        """
        values = _flatten(spectrum.reshape(-1)[self.pixels].float(), self)
        total = torch.bincount(self.bins, values.double(), minlength=self.root.numel())
        # Mean times root of the number is sum over root of the number.
        data = total.view(self.root.shape) / self.root.double().clamp(min=1.0)
        return project_out(data.float(), self.basis)


@dataclass(frozen=True, kw_only=True, eq=False)
class PolarSpectrum:
    """A spectrum in the bins of a grid: `data` float32 `[sectors, rings]` as `PolarGrid.bin`."""

    grid: PolarGrid
    data: Tensor

    def sectors(self, first: int, step: int) -> "PolarSpectrum":
        """Return every `step`-th sector from `first`."""
        return PolarSpectrum(
            grid=self.grid.sectors(first, step), data=self.data[first::step].contiguous()
        )


def project_out(values: Tensor, basis: Tensor) -> Tensor:
    """`values` `[sectors, rings]` less its part in the background curves `basis`."""
    inside = torch.bmm(basis.transpose(1, 2), values[..., None])
    return torch.baddbmm(values[..., None], basis, inside, alpha=-1.0)[..., 0]


def to_polar(
    spectrum: Tensor,
    pixel_size_A: float,
    min_resolution_A: float,
    max_resolution_A: float,
    sectors: int = SECTORS,
) -> PolarSpectrum:
    """Polar bins of a centred amplitude spectrum `[n, n]` on the host between two resolutions.

    Raises
    ------
    ValueError
        The band holds no ring: the pixel is too large for the resolution asked for.
    """
    grid = polar_grid(spectrum.shape[-1], pixel_size_A, min_resolution_A, max_resolution_A, sectors)
    return PolarSpectrum(grid=grid, data=grid.bin(spectrum))


# A session has one size and one pixel; a search at another box and a patch fit are two more.
@lru_cache(maxsize=8)
def polar_grid(
    size: int,
    pixel_size_A: float,
    min_resolution_A: float,
    max_resolution_A: float,
    sectors: int = SECTORS,
    cross_px: int = CROSS_PX,
) -> PolarGrid:
    """The bins for spectra `[size, size]`; arguments and errors as for `to_polar`."""
    low, high = _band_px(size, pixel_size_A, min_resolution_A, max_resolution_A)
    pixels, x, y = _pixels(size, low, high, cross_px)
    radius = torch.sqrt(x * x + y * y)
    rings = int(high) - int(low) + 1
    ring = (radius.long() - int(low)).clamp(0, rings - 1)
    # x < 0 everywhere: azimuths from 90 to 270 degrees, the other half plane is the same.
    azimuth = torch.atan2(y, x) % torch.pi
    bins = (azimuth * (sectors / torch.pi)).long().clamp(max=sectors - 1) * rings + ring
    count = torch.bincount(bins, minlength=sectors * rings)

    def mean(quantity: Tensor, power: int) -> Tensor:
        total = torch.bincount(bins, quantity.double(), minlength=sectors * rings)
        scaled = total / count.clamp(min=1) / (size * pixel_size_A) ** power
        return scaled.view(sectors, rings).float()

    root = count.double().sqrt().view(sectors, rings).float()
    ring_root = torch.bincount(ring, minlength=rings).float().sqrt()
    return PolarGrid(
        root=root,
        s2=mean(radius**2, 2),
        s2_cos=mean(x * x - y * y, 2),
        s2_sin=mean(2.0 * x * y, 2),
        s4=mean(radius**4, 4),
        x_A=torch.zeros(sectors, 1),
        y_A=torch.zeros(sectors, 1),
        basis=_background_basis(rings, root),
        pixels=pixels,
        bins=bins,
        ring=ring,
        ring_basis=_background_basis(rings, ring_root[None])[0],
        ring_root=ring_root,
        n_bins=int((count > 0).sum()),
        n_pixels=len(ring),
    )


def _band_px(size: int, pixel_A: float, lowest_A: float, highest_A: float) -> tuple[float, float]:
    """Radii in px of the ends of a band of resolutions."""
    low = size * pixel_A / lowest_A
    high = min(size * pixel_A / highest_A, size / 2.0 - 1.0)
    if high - low < 2 * _KNOTS:
        raise ValueError(
            f"the band {lowest_A}..{highest_A} A has {max(0.0, high - low):.0f} rings at "
            f"{pixel_A} A per px; use a larger box or a smaller pixel"
        )
    return low, high


def _pixels(size: int, low: float, high: float, cross_px: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places in the plane, x and y of the pixels of a half plane between two radii in px."""
    px, py = fourier.centred_frequencies(size, 1.0 / size)
    r = torch.sqrt(px * px + py * py)
    keep = (r > low) & (r < high) & (px < -cross_px) & (py.abs() > cross_px)
    iy, ix = torch.nonzero(keep, as_tuple=True)
    return iy * size + ix, px[0, ix], py[iy, 0]


def _flatten(values: Tensor, grid: PolarGrid) -> Tensor:
    """Amplitudes over the mean of their ring, smoothed; outliers (spots) clipped."""
    weight = grid.ring_root.clamp(min=1.0)
    total = torch.bincount(grid.ring, values.double(), minlength=len(weight)).float()
    # The curve is fitted to the logarithm: the spectrum falls by orders of magnitude.
    log_mean = torch.log((total / weight**2).clamp(min=1e-30)) * weight
    smooth = torch.exp((grid.ring_basis @ (grid.ring_basis.T @ log_mean)) / weight)
    relative = values * (1.0 / smooth)[grid.ring]
    mean, deviation = relative.mean(), relative.std()
    return relative.clamp(mean - _CLIP_SIGMA * deviation, mean + _CLIP_SIGMA * deviation) - mean


def _background_basis(rings: int, root: Tensor) -> Tensor:
    """Orthonormal smooth curves `[sectors, rings, knots]`: cubic B-splines times `root`."""
    position = torch.linspace(0.0, 1.0, rings, dtype=torch.float64)
    knots = torch.arange(-1, _KNOTS - 1, dtype=torch.float64)
    t = (position[:, None] * (_KNOTS - 3) - knots).abs()
    inner = (4.0 - 6.0 * t**2 + 3.0 * t**3) / 6.0
    outer = (2.0 - t).clamp(min=0.0) ** 3 / 6.0
    splines = torch.where(t < 1.0, inner, outer)
    q, _ = torch.linalg.qr(root[..., None].double() * splines)
    return q.float()
