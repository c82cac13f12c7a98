"""Particle images cut out of a micrograph: centred, rescaled, normalised.

Source: preprocessing.md section 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms import fourier
from algorithms.boxes import BoxSizes, box_sizes

__all__ = ["BoxSizes", "ExtractOptions", "Particles", "box_sizes", "extract"]

FLAT = 1e-10  # a background without this much deviation has nothing to normalise by
BATCH_PIXELS = 16_000_000


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """How to cut out.

    Parameters
    ----------
    box_px, scaled_px
        Even side of the window in the micrograph, and of the image it is Fourier-cropped to.
    bg_radius_px
        In px of the scaled image; pixels further from the centre are background.
    invert
        Make dark particles white.
    normalise
        Subtract the plane through the background and scale it to mean 0, deviation 1.
    white_dust, black_dust
        Replace pixels beyond this many background deviations by noise; None: leave them.
    min_edge_px
        Drop particles whose centre is closer to the border of the micrograph; None: keep all.
    subpixel
        Centre to a fraction of a pixel. False leaves the rest in the origins, as RELION's files
        have it.
    """

    box_px: int
    scaled_px: int
    bg_radius_px: int
    invert: bool = True
    normalise: bool = True
    white_dust: float | None = None
    black_dust: float | None = None
    min_edge_px: float | None = None
    subpixel: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.scaled_px <= self.box_px or self.box_px % 2 or self.scaled_px % 2:
            raise ValueError(
                f"box {self.box_px} px scaled to {self.scaled_px} px: both must be even and "
                "the second not above the first"
            )
        if self.normalise and not 0 < self.bg_radius_px < self.scaled_px / 2:
            raise ValueError(
                f"background radius {self.bg_radius_px} px in a box of {self.scaled_px}"
            )


@dataclass(frozen=True, kw_only=True)
class Particles:
    """Extracted images and what belongs to them.

    Parameters
    ----------
    images
        `[n, scaled, scaled]` float32.
    kept
        Index `[n]` into the coordinates that were given.
    origin_x_A, origin_y_A
        Shift `[n]` that would still centre the particle (rlnOriginXAngst); 0 with `subpixel`.
    pixel_size_A
        Of the images.
    statistics
        Minimum, maximum, mean and standard deviation of all images.
    flat
        True `[n]` where the background was constant and the image is not normalised.
    """

    images: Tensor
    kept: np.ndarray
    origin_x_A: np.ndarray
    origin_y_A: np.ndarray
    pixel_size_A: float
    statistics: tuple[float, float, float, float]
    flat: np.ndarray


def extract(
    image: np.ndarray | Tensor,
    x_px: np.ndarray | Sequence[float],
    y_px: np.ndarray | Sequence[float],
    pixel_size_A: float,
    options: ExtractOptions,
    device: str | torch.device = "cpu",
    *,
    seed: int = 0,
) -> Particles:
    """Cut out one image per coordinate.

    Parameters
    ----------
    image
        Micrograph `[ny, nx]`.
    x_px, y_px
        Centres `[n]`, 0 at the centre of the first pixel. Windows over the border repeat its
        pixels.
    pixel_size_A
        Of the micrograph.
    options
        Sizes and what to do.
    device
        Where to compute; the images stay there.
    seed
        Of the noise that replaces dust.

    Raises
    ------
    ValueError
        The micrograph is not 2-D, coordinates differ in number or are not finite, or a window
        lies wholly outside: coordinates of another image or scale.
    """
    micrograph = torch.as_tensor(image, device=device).to(torch.float32)
    x, y = (np.asarray(values, dtype=np.float64).reshape(-1) for values in (x_px, y_px))
    kept = _kept(micrograph, x, y, options)
    centre_x, centre_y = np.rint(x[kept]), np.rint(y[kept])
    rest_x, rest_y = x[kept] - centre_x, y[kept] - centre_y
    images = micrograph.new_empty((len(kept), options.scaled_px, options.scaled_px))
    flat = np.zeros(len(kept), dtype=bool)
    normaliser = _Normaliser(options, micrograph.device, seed)
    step = max(1, BATCH_PIXELS // options.box_px**2)
    for first in range(0, len(kept), step):
        part = slice(first, first + step)
        windows = _windows(micrograph, centre_x[part], centre_y[part], options.box_px)
        shift = (rest_x[part], rest_y[part]) if options.subpixel else None
        scaled = _rescaled(windows, options.scaled_px, shift)
        if options.normalise:
            scaled, is_flat = normaliser(scaled)
            flat[part] = is_flat.cpu().numpy()
        images[part] = -scaled if options.invert else scaled
    remaining = 0.0 if options.subpixel else pixel_size_A
    return Particles(
        images=images,
        kept=kept,
        origin_x_A=-rest_x * remaining + 0.0,
        origin_y_A=-rest_y * remaining + 0.0,
        pixel_size_A=pixel_size_A * options.box_px / options.scaled_px,
        statistics=_statistics(images),
        flat=flat,
    )


def _kept(micrograph: Tensor, x: np.ndarray, y: np.ndarray, options: ExtractOptions) -> np.ndarray:
    """Index of the particles far enough from the border, after checks."""
    if micrograph.ndim != 2:
        raise ValueError(f"a micrograph is two-dimensional, not {tuple(micrograph.shape)}")
    if len(x) != len(y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"{len(x)} x and {len(y)} y coordinates; all must be finite pairs")
    ny, nx = micrograph.shape
    half = options.box_px // 2
    column, row = np.rint(x), np.rint(y)
    outside = (column + half <= 0) | (column - half >= nx) | (row + half <= 0) | (row - half >= ny)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"particle {first + 1} at ({x[first]:.1f}, {y[first]:.1f}) px lies outside the "
            f"{nx} x {ny} micrograph: coordinates of another image or binning?"
        )
    if options.min_edge_px is None:
        return np.arange(len(x))
    edge = np.minimum(np.minimum(x, nx - 1 - x), np.minimum(y, ny - 1 - y))
    return np.flatnonzero(edge >= options.min_edge_px)


def _windows(micrograph: Tensor, x: np.ndarray, y: np.ndarray, box: int) -> Tensor:
    """Windows `[n, box, box]` whose element box // 2 lies on the centre; border px repeat."""
    ny, nx = micrograph.shape
    reach = np.arange(box) - box // 2
    rows = (y.astype(np.int64)[:, None] + reach).clip(0, ny - 1)
    columns = (x.astype(np.int64)[:, None] + reach).clip(0, nx - 1)
    device = micrograph.device
    row_index = torch.from_numpy(rows).to(device)[:, :, None]
    return micrograph[row_index, torch.from_numpy(columns).to(device)[:, None, :]]


def _rescaled(windows: Tensor, scaled: int, shift: tuple[np.ndarray, np.ndarray] | None) -> Tensor:
    """Fourier-cropped windows, the content first moved by minus `shift` px (x, y)."""
    box = windows.shape[-1]
    moves = shift is not None and bool(np.any(shift[0]) or np.any(shift[1]))
    if box == scaled and not moves:
        return windows
    spectrum = fourier.crop_rfft(fourier.rfft2(windows), (box, box), (scaled, scaled))
    if shift is not None and moves:
        dx, dy = (torch.from_numpy(-s * scaled / box).to(windows.device) for s in shift)
        spectrum = fourier.shift_rfft(spectrum, (scaled, scaled), dx, dy)
    return fourier.irfft2(spectrum, (scaled, scaled))


class _Normaliser:
    """Background statistics of square images, with the geometry computed once."""

    def __init__(self, options: ExtractOptions, device: torch.device, seed: int):
        side = options.scaled_px
        axis = torch.arange(side, dtype=torch.float64, device=device) - side // 2
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.background = (x**2 + y**2 > options.bg_radius_px**2).reshape(-1)
        self.plane = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)
        self.fit = torch.linalg.pinv(self.plane[self.background]) if options.normalise else None
        self.options = options
        self.generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return images whose background has mean 0, deviation 1; True where it is constant."""
        assert self.fit is not None  # noqa: S101
        values = images.double().flatten(1)
        values = self.without_dust(values)
        values = values - (values[:, self.background] @ self.fit.T) @ self.plane.T
        mean, deviation = self.statistics(values)
        is_flat = deviation[:, 0] < FLAT
        values = torch.where(is_flat[:, None], values, (values - mean) / deviation.clamp(min=FLAT))
        return values.float().reshape(images.shape), is_flat

    def statistics(self, values: Tensor) -> tuple[Tensor, Tensor]:
        deviation, mean = torch.std_mean(
            values[:, self.background], dim=1, correction=0, keepdim=True
        )
        return mean, deviation

    def without_dust(self, values: Tensor) -> Tensor:
        """Replace outliers of either sign, anywhere in an image, by noise like the background."""
        white, black = self.options.white_dust, self.options.black_dust
        if white is None and black is None:
            return values
        mean, deviation = self.statistics(values)
        noise = torch.randn(
            values.shape, generator=self.generator, device=values.device, dtype=values.dtype
        )
        dust = torch.zeros_like(values, dtype=torch.bool)
        if white is not None:
            dust |= values > mean + white * deviation
        if black is not None:
            dust |= values < mean - black * deviation
        return torch.where(dust, mean + deviation * noise, values)


def _statistics(images: Tensor) -> tuple[float, float, float, float]:
    if images.numel() == 0:
        return 0.0, 0.0, 0.0, 0.0
    deviation, mean = torch.std_mean(images.double(), correction=0)
    return float(images.min()), float(images.max()), float(mean), float(deviation)
