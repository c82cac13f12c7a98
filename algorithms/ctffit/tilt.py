"""The plane of the defocus over a micrograph, and the tilt that it tells.

The fit of the whole micrograph comes first. Every tile is then compared with rings of defoci
around it; planes are searched exhaustively in the tables that this gives, and the best one is
refined together with defocus and astigmatism on the spectra of all tiles.

Source: preprocessing.md sections 3.9 and 3.11 (plane model).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.ctf import smooth_parameters
from algorithms.ctffit.bank import Bank
from algorithms.ctffit.polar import PolarGrid, PolarSpectrum, polar_grid
from algorithms.ctffit.search import astigmatism_width_A, best_fade, climb, free_parameters
from algorithms.ctffit.thon import DM, GX, GY, SHIFT, Fade, Matcher, P, Q, Thon
from algorithms.ctffit.tiles import Tiles, place_tiles, tile_edge_px, tile_spectra
from algorithms.ctffit.types import CtfFit, CtfFitOptions, Tilt

# Rings come from as far as 2 lambda dz s, some 100 A: a tile has to be much wider to see them
# whole, and not so wide that the defocus changes in it. Small micrographs have smaller tiles.
_SIZES, _SECTORS, _CROSS_PX = (384, 256), 36, 5
# As many bins of overlapping, tapered tiles tell what one would tell alone (sine window, half
# overlap: 1.2 by neighbours and 1.5 by frequency along each axis).
_ALIKE = 3.2
_STEP_A = 50.0
_ANGLES_DEG = tuple(range(0, 73, 3))
_AXES_DEG = tuple(range(0, 360, 10))
_OFFSETS_A = tuple(range(-800, 801, 100))
_REFINED = 3


@dataclass(frozen=True, eq=False)
class _Cut:
    """All tiles of a micrograph in polar bins: data `[k, sectors, rings]`."""

    tiles: Tiles
    grid: PolarGrid
    data: Tensor


def fit_tilt(image: Tensor, pixel_size_A: float, fit: CtfFit, options: CtfFitOptions) -> Tilt:
    """Fit a plane to the defocus over a micrograph.

    Parameters
    ----------
    image
        `[ny, nx]`.
    pixel_size_A
        Of the micrograph.
    fit
        Of the whole micrograph.
    options
        It was made with.

    Raises
    ------
    ValueError
        The micrograph is smaller than a tile (358 A or 256 px).
    """
    cut = _cut(image, pixel_size_A, options)
    thon = Thon.of(options)
    start = _parameters(fit)
    whole = cut.grid.tiled(cut.tiles.x_A, cut.tiles.y_A)
    polar = PolarSpectrum(grid=whole, data=cut.data.flatten(0, 1))
    fade = best_fade(polar, start, thon)
    matcher = Matcher(polar, thon, fade)
    free, cost = free_parameters(options), astigmatism_width_A(options)
    flat = climb(matcher, start, free, cost)[1]
    found = [
        climb(matcher, plane, [*free, GX, GY], cost) for plane in _planes(cut, start, thon, fade)
    ]
    x, correlation = max(found, key=lambda one: one[1])
    return Tilt(
        gradient_x=float(x[GX]),
        gradient_y=float(x[GY]),
        width_A=image.shape[-1] * pixel_size_A,
        height_A=image.shape[-2] * pixel_size_A,
        log_odds=0.5 * whole.n_bins / _ALIKE * (correlation**2 - max(flat, 0.0) ** 2),
    )


def _cut(image: Tensor, pixel_size_A: float, options: CtfFitOptions) -> _Cut:
    shape = (int(image.shape[-2]), int(image.shape[-1]))
    tiles = _tiles(shape, pixel_size_A)
    grid = polar_grid(
        tiles.size,
        tiles.pixel_size_A,
        options.min_resolution_A,
        options.max_resolution_A,
        _SECTORS,
        _CROSS_PX,
    )
    data = torch.stack([grid.bin(spectrum.cpu()) for spectrum in tile_spectra(image, tiles)])
    return _Cut(tiles, grid, data)


def _tiles(shape: tuple[int, int], pixel_size_A: float) -> Tiles:
    """The widest tiles of which two fit side by side into a micrograph, else the smallest."""
    for size in _SIZES[:-1]:
        if 2 * tile_edge_px(size, pixel_size_A) <= min(shape):
            return place_tiles(shape, pixel_size_A, size)
    return place_tiles(shape, pixel_size_A, _SIZES[-1])


def _parameters(fit: CtfFit) -> Tensor:
    x = torch.zeros(7, dtype=torch.float64)
    x[[DM, P, Q]] = torch.tensor(
        smooth_parameters(fit.defocus_u_A, fit.defocus_v_A, fit.angle_deg), dtype=torch.float64
    )
    x[SHIFT] = math.radians(fit.phase_shift_deg)
    return x


def _planes(cut: _Cut, start: Tensor, thon: Thon, fade: Fade) -> list[Tensor]:
    """The best planes of an exhaustive search, as parameters `[7]`."""
    slopes = [math.tan(math.radians(angle)) for angle in _ANGLES_DEG]
    directions = [math.radians(axis) for axis in _AXES_DEG]
    gradient = torch.tensor(
        [(s * math.cos(a), s * math.sin(a)) for s in slopes for a in (directions if s else [0.0])]
    )
    across = gradient @ torch.stack([cut.tiles.x_A, cut.tiles.y_A])
    reach = float(across.abs().max()) + max(_OFFSETS_A)
    # No defocus below zero: a steeper plane ends there.
    below = min(reach, float(start[DM]) - _STEP_A)
    first, last = math.floor(-below / _STEP_A), math.ceil(reach / _STEP_A)
    defocus = float(start[DM]) + _STEP_A * torch.arange(first, last + 1)
    bank = Bank(cut.grid, thon, defocus)
    turned = bank.turned(cut.data, start[None, [P, Q]].float())
    table = bank.scores(turned, fade.at(bank.s2), start[SHIFT : SHIFT + 1].float())[0]
    totals = torch.stack(
        [_read(table, (across + offset) / _STEP_A - first) for offset in _OFFSETS_A]
    )
    planes = []
    for _ in range(_REFINED):
        offset, which = divmod(int(totals.argmax()), totals.shape[1])
        x = start.clone()
        x[DM] += _OFFSETS_A[offset]
        x[GX], x[GY] = gradient[which].double()
        planes.append(x)
        near = (gradient - gradient[which]).norm(dim=1) < 0.15
        totals[:, near] = -math.inf
    return planes


def _read(table: Tensor, place: Tensor) -> Tensor:
    """Sum over the tiles of `table` `[k, defoci]` at places `[planes, k]`, linear between."""
    place = place.clamp(0.0, table.shape[1] - 1.001)
    index = place.long()
    fraction = place - index
    rows = table.T
    low, high = rows.gather(0, index), rows.gather(0, index + 1)
    return (low + fraction * (high - low)).sum(1)
