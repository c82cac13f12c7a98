"""Spectra of half-overlapping tiles of a micrograph.

Source: preprocessing.md sections 3.2, 3.9 and 3.11.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from algorithms import fourier
from algorithms.ctffit.plane import mean_of

# Share of a tile over which it fades at the edge of the micrograph.
_SHORT = 0.1


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Where tiles lie and what they are cut to.

    Parameters
    ----------
    edge_px
        Of a tile, in px of the micrograph.
    size, pixel_size_A
        Of a tile's spectrum.
    left, bottom
        First column and row of every tile, `[k]`.
    x_A, y_A
        Middle of what every tile sees, from the middle of the micrograph, `[k]`.
    """

    edge_px: int
    size: int
    pixel_size_A: float
    left: list[int]
    bottom: list[int]
    x_A: Tensor
    y_A: Tensor


def tile_edge_px(size: int, pixel_size_A: float, target_pixel_A: float = 1.4) -> int:
    """Edge in px of a micrograph of a tile whose spectrum is `size` px."""
    return max(size, 2 * round(size * target_pixel_A / pixel_size_A / 2.0))


def place_tiles(
    shape: tuple[int, int], pixel_size_A: float, size: int, target_pixel_A: float = 1.4
) -> Tiles:
    """Half-overlapping tiles of a micrograph of `shape` (ny, nx), spread evenly up to its edges.

    Raises
    ------
    ValueError
        The micrograph is smaller than a tile.
    """
    edge = tile_edge_px(size, pixel_size_A, target_pixel_A)
    if edge > min(shape):
        raise ValueError(
            f"a micrograph of {shape[1]} x {shape[0]} px has no room for a tile of {edge} px"
        )
    rows, columns = (_starts(length, edge) for length in shape)
    places = [(x, y) for y in rows for x in columns]
    left, bottom = [x for x, _ in places], [y for _, y in places]
    x_A, y_A = (
        torch.tensor([_middle(edge, first, length) - 0.5 * length for first in side]) * pixel_size_A
        for side, length in zip((left, bottom), (shape[1], shape[0]), strict=True)
    )
    return Tiles(
        edge_px=edge,
        size=size,
        pixel_size_A=pixel_size_A * edge / size,
        left=left,
        bottom=bottom,
        x_A=x_A,
        y_A=y_A,
    )


def _starts(length: int, edge: int) -> list[int]:
    """First px of tiles that overlap by half or a little more."""
    count = 1 + -(-2 * (length - edge) // edge)
    return [round(k * (length - edge) / max(count - 1, 1)) for k in range(count)]


def tile_spectra(image: Tensor, tiles: Tiles) -> Iterator[Tensor]:
    """Centred amplitudes `[size, size]` of the tiles of a micrograph `[ny, nx]`, tapered."""
    edge, half = tiles.edge_px, tiles.size // 2
    for left, bottom in zip(tiles.left, tiles.bottom, strict=True):
        tile = image[bottom : bottom + edge, left : left + edge].float()
        across = _window(edge, left, int(image.shape[1]), image.device)
        up = _window(edge, bottom, int(image.shape[0]), image.device)
        amplitudes = fourier.rfft2((tile - mean_of(tile)) * (up[:, None] * across)).abs()
        rows = torch.arange(-half, half, device=image.device)
        right = amplitudes[rows % edge, :half]
        # Columns -half .. -1 are columns half .. 1 of the rows of the other sign.
        mirror = amplitudes[(-rows) % edge, 1 : half + 1].flip(1)
        yield torch.cat([mirror, right], dim=1)


def _middle(edge: int, first: int, length: int) -> float:
    """Middle of what a tile sees along one axis, in px of the micrograph."""
    seen = _window(edge, first, length, torch.device("cpu")).double().square()
    place = torch.arange(edge, dtype=torch.float64) + 0.5
    return first + float((seen * place).sum() / seen.sum())


def _window(edge: int, first: int, length: int, device: torch.device) -> Tensor:
    """Taper of a tile along one axis, `[edge]`, that begins at `first` in a micrograph.

    The root of a Hann window: with half overlap all pixels count the same. At the edges of the
    micrograph, whose pixels tell a tilt best, no other tile overlaps: there the taper is short.
    """
    place = (torch.arange(edge, device=device) + 0.5) / edge
    window = torch.sin(torch.pi * place)
    short = torch.sin(0.5 * torch.pi * (place / _SHORT).clamp(max=1.0))
    if first == 0:
        window = torch.where(place < 0.5, short, window)
    if first + edge == length:
        window = torch.where(place > 0.5, short.flip(0), window)
    return window


def spectrum_of_tiles(
    image: Tensor, pixel_size_A: float, size: int = 512, target_pixel_A: float = 1.4
) -> tuple[Tensor, float]:
    """Root mean square of the tiles' amplitudes `[size, size]`, and its pixel size in A.

    A smooth estimate of the spectrum, in place of `spectrum_of_image`.
    """
    shape = (int(image.shape[-2]), int(image.shape[-1]))
    tiles = place_tiles(shape, pixel_size_A, size, target_pixel_A)
    total = torch.zeros(size, size, device=image.device)
    for spectrum in tile_spectra(image, tiles):
        total += spectrum.square()
    return (total / len(tiles.left)).sqrt(), tiles.pixel_size_A


def levelled_spectrum(
    image: Tensor,
    pixel_size_A: float,
    defocus_A: float,
    change_A: Callable[[Tensor, Tensor], Tensor],
    size: int = 512,
) -> tuple[Tensor, float]:
    """Spectrum of a tilted micrograph `[ny, nx]` as if all of it had one defocus.

    Every tile's spectrum is stretched by the root of its defocus over that in the middle, which
    brings the rings of all tiles together.

    Parameters
    ----------
    image, pixel_size_A, size
        As for `spectrum_of_tiles`.
    defocus_A
        Mean defocus in the middle.
    change_A
        Of the defocus at x and y in A from the middle, `[k]` each.

    Returns amplitudes `[size, size]` and their pixel size in A.

    Source: preprocessing.md section 3.9.
    """
    shape = (int(image.shape[-2]), int(image.shape[-1]))
    tiles = place_tiles(shape, pixel_size_A, size)
    # A tile of no defocus has no rings to bring anywhere.
    defoci = (defocus_A + change_A(tiles.x_A, tiles.y_A)).clamp(min=0.25 * defocus_A)
    along = torch.arange(-size // 2, size // 2, device=image.device)
    total = torch.zeros(size, size, device=image.device)
    for spectrum, tile_A in zip(tile_spectra(image, tiles), defoci.tolist(), strict=True):
        # Rings at s in the middle are at s sqrt(dz_middle / dz_tile) here; px of the plane.
        place = along * math.sqrt(defocus_A / tile_A) + size // 2
        at = 2.0 * place / (size - 1) - 1.0
        grid = torch.stack(torch.broadcast_tensors(at[None, :], at[:, None]), dim=-1)
        power = spectrum.square()[None, None]
        # The noise is flat out there: what lies beyond the edge is taken from it.
        total += grid_sample(power, grid[None], padding_mode="border", align_corners=True)[0, 0]
    return (total / len(tiles.left)).sqrt(), tiles.pixel_size_A
