"""Spectra of half-overlapping tiles of a micrograph.

Source: preprocessing.md sections 3.2, 3.9 and 3.11.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms import fourier


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
        Middle of every tile from the middle of the micrograph, `[k]`.
    """

    edge_px: int
    size: int
    pixel_size_A: float
    left: list[int]
    bottom: list[int]
    x_A: Tensor
    y_A: Tensor


def place_tiles(
    shape: tuple[int, int], pixel_size_A: float, size: int, target_pixel_A: float = 1.4
) -> Tiles:
    """Half-overlapping tiles of a micrograph of `shape` (ny, nx), spread evenly up to its edges.

    Raises
    ------
    ValueError
        The micrograph is smaller than a tile.
    """
    edge = max(size, 2 * round(size * target_pixel_A / pixel_size_A / 2.0))
    if edge > min(shape):
        raise ValueError(
            f"a micrograph of {shape[1]} x {shape[0]} px has no room for a tile of {edge} px"
        )
    rows, columns = (_starts(length, edge) for length in shape)
    places = [(x, y) for y in rows for x in columns]
    left, bottom = [x for x, _ in places], [y for _, y in places]
    centre = [torch.tensor(side) + 0.5 * edge for side in (left, bottom)]
    x_A, y_A = (
        (middle - 0.5 * length) * pixel_size_A
        for middle, length in zip(centre, (shape[1], shape[0]), strict=True)
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
    # The root of a Hann window: with half overlap all pixels count the same, and the tiles at the
    # edges of the micrograph, which tell a tilt best, keep more of theirs.
    place = (torch.arange(edge, device=image.device) + 0.5) / edge
    window = torch.sin(torch.pi * place)
    window = window[:, None] * window
    for left, bottom in zip(tiles.left, tiles.bottom, strict=True):
        tile = image[bottom : bottom + edge, left : left + edge].float()
        amplitudes = fourier.rfft2((tile - tile.mean()) * window).abs()
        rows = torch.arange(-half, half, device=image.device)
        right = amplitudes[rows % edge, :half]
        # Columns -half .. -1 are columns half .. 1 of the rows of the other sign.
        mirror = amplitudes[(-rows) % edge, 1 : half + 1].flip(1)
        yield torch.cat([mirror, right], dim=1)


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
