"""The two passes over full-resolution pixels: averages for the alignment, and the moved sums.

On the CPU with Numba they are machine code (`kernels.py`); on a GPU, and without Numba, the same
arithmetic in torch. Frames stay in their native type until they are in the cache, or on the device.

Source: preprocessing.md sections 2.7, 2.8 and 8.4.
"""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from algorithms.motion.defects import BadPixels
from algorithms.motion.dose import LowRank
from algorithms.motion.interpolation import REACH, tap_pairs
from algorithms.motion.threads import Threads

_ROWS = 32  # of the sums at a time: what a thread works on stays in its cache
_LONGEST_RUN, _SHORTEST_RUN = 256, 16


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some frames of a movie.

    Parameters
    ----------
    raw
        `[n, ny, nx]` in the native type.
    gain
        float32 `[ny, nx]`, ones where there is none.
    bad
        Bad pixels and their values in these frames.
    """

    raw: Tensor
    gain: Tensor
    bad: BadPixels


def kernels(device: torch.device) -> ModuleType | None:
    """Return the compiled passes, None on a GPU or without Numba."""
    if device.type != "cpu":
        return None
    from algorithms.motion import kernels as module

    return module if module.HAVE else None


def add_blocks(
    raw: Tensor, gain: Tensor, binning: int, small: Tensor, total: Tensor, threads: Threads
) -> None:
    """First pass: sums over blocks of raw x gain, and the sum of the raw frames.

    Parameters
    ----------
    raw, gain
        `[n, ny, nx]` native, `[ny, nx]` float32.
    binning
        Edge of the blocks.
    small
        float32 `[n, by, bx]`, written.
    total
        float32 `[ny, nx]`, added to.
    """
    module = kernels(raw.device)
    by, bx = small.shape[1:]
    if module is None:
        for frame, out in zip(raw, small, strict=True):
            plane = frame.to(torch.float32)
            total.add_(plane)
            part = (plane * gain)[None, : by * binning, : bx * binning]
            out.copy_(avg_pool2d(part, binning)[0]).mul_(binning * binning)
        return
    step = max(1, 64 // binning)
    arrays = raw.numpy(), gain.numpy(), small.numpy(), total.numpy()

    def rows(first: int) -> None:
        native, scale, blocks, sums = arrays
        module.block_sums(native, scale, binning, first, min(first + step, by), blocks, sums)

    threads.map(rows, range(0, by, step))


@dataclass(frozen=True, kw_only=True)
class Moves:
    """How frames move on their way into the sums.

    Parameters
    ----------
    planes
        float64 `[n, 2, 6]` of `model.frame_planes`, in px of the frames.
    weights
        float32 `[k, n]` of each frame in each sum.
    run
        Pixels of a row that share one whole-pixel offset (`shared_run`).
    """

    planes: np.ndarray
    weights: np.ndarray
    run: int

    def part(self, first: int, last: int) -> "Moves":
        """Return those of frames first .. last - 1."""
        part = slice(first, last)
        weights = np.ascontiguousarray(self.weights[:, part])
        return Moves(planes=self.planes[part], weights=weights, run=self.run)

    @property
    def mean_x(self) -> np.ndarray:
        """Mean shift along x, float32 `[n]`: where between two columns a value is to come from."""
        p = self.planes[:, 0]
        return (p[:, 0] + (p[:, 2] + p[:, 4]) / 12.0).astype(np.float32)


def shared_run(planes: np.ndarray, width: int) -> int:
    """Pixels of a row that may share one whole-pixel offset, in frames of `width` px."""
    slope = np.abs(planes[:, :, 1]) + np.abs(planes[:, :, 2])
    slope = float((slope + 0.5 * np.abs(planes[:, :, 5])).max()) / width
    run = _LONGEST_RUN
    while run > _SHORTEST_RUN and slope * run / 2 > REACH:
        run //= 2
    return run


def add_moved(chunk: Chunk, moves: Moves, out: Tensor, threads: Threads) -> None:
    """Second pass: corrected frames, moved, into sums.

    Parameters
    ----------
    chunk, moves
        The frames and where they go.
    out
        float32 `[k, oy, ox]`, added to; where it is larger than a frame the edges repeat.
    """
    module = kernels(chunk.raw.device)
    if module is None:
        _add_moved_torch(chunk, moves, out)
        return
    raw, gain, sums = chunk.raw.numpy(), chunk.gain.numpy(), out.numpy()
    bad = chunk.bad
    run, mean_x = moves.run, moves.mean_x
    places, how = (bad.row_start, bad.x), (moves.planes, mean_x, moves.weights)

    def rows(first: int) -> None:
        last = min(first + _ROWS, out.shape[1])
        module.warp(raw, gain, places, bad.values, how, tap_pairs(), run, first, last, sums)

    threads.map(rows, range(0, out.shape[1], _ROWS))


def _add_moved_torch(chunk: Chunk, moves: Moves, out: Tensor) -> None:
    device = out.device
    rows = out.shape[1] if device.type != "cpu" else 8 * _ROWS
    y_of_bad = torch.from_numpy(chunk.bad.y).to(device)
    x_of_bad = torch.from_numpy(chunk.bad.x).to(device)
    values = torch.from_numpy(chunk.bad.values).to(device)
    for f in range(len(chunk.raw)):
        frame = chunk.raw[f].to(torch.float32) * chunk.gain
        frame[y_of_bad, x_of_bad] = values[f]
        for first in range(0, out.shape[1], rows):
            last = min(first + rows, out.shape[1])
            moved = _moved(frame, moves, f, (first, last, out.shape[2]))
            for k, weight in enumerate(moves.weights[:, f]):
                if weight != 0.0:
                    out[k, first:last].add_(moved, alpha=float(weight))


def _moved(frame: Tensor, moves: Moves, f: int, part: tuple[int, int, int]) -> Tensor:
    """Rows first .. last - 1 (of `width` px) of a moved frame: down the columns, then along x."""
    first, last, width = part
    (ny, nx), device, run = frame.shape, frame.device, moves.run
    v = torch.arange(first, last, device=device, dtype=torch.float64)[:, None] / ny - 0.5
    quadratics = []
    for p in moves.planes[f]:
        a0, a1 = p[0] + p[3] * v + p[4] * v * v, p[1] + p[5] * v
        quadratics.append((a0.float(), a1.float(), float(p[2])))
    along, down = quadratics
    mean, scale = float(moves.mean_x[f]), 1.0 / nx
    margin = int(abs(along[0]).max() + abs(along[1]).max() + abs(along[2])) + 8
    column = torch.arange(-margin, width + margin, device=device)
    place = (column.float() + mean) * scale - 0.5
    place = place + (_quadratic(along, place) - mean) * scale
    middle = (torch.div(column, run, rounding_mode="floor") * run + run // 2).float()
    middle = (middle + mean) * scale - 0.5
    whole = torch.floor(-_quadratic(down, middle))
    taps = _taps(-whole - 0.5 - _quadratic(down, place))
    y = torch.arange(first, last, device=device)[:, None] + whole.long()
    x = column.clamp(0, nx - 1).expand_as(y)
    between = torch.zeros_like(place.expand_as(y))
    for j, tap in enumerate(taps):
        between.addcmul_(tap, frame[(y + j - 2).clamp(0, ny - 1), x])
    column = torch.arange(width, device=device)
    middle = (torch.div(column, run, rounding_mode="floor") * run + run // 2).float() * scale - 0.5
    whole = torch.floor(-_quadratic(along, middle))
    taps = _taps(-whole - 0.5 - _quadratic(along, column.float() * scale - 0.5))
    x = column + whole.long() + margin - 2
    most = between.shape[1] - 1
    out = torch.zeros_like(taps[0])
    for j, tap in enumerate(taps):
        out.addcmul_(tap, between.gather(1, (x + j).clamp(0, most)))
    return out


def _quadratic(q: tuple[Tensor, Tensor, float], x: Tensor) -> Tensor:
    return q[0] + x * (q[1] + x * q[2])


def _taps(u: Tensor) -> list[Tensor]:
    """Weights of the six taps at u = fraction - 0.5."""
    square = u * u
    halves = []
    for c0, c1, c2, c3 in tap_pairs().tolist():
        even, odd = c0 + c2 * square, u * (c1 + c3 * square)
        halves.append((even + odd, even - odd))
    return [h[0] for h in halves] + [h[1] for h in halves[::-1]]


def add_spectra(
    spectra: Tensor,
    ranks: LowRank,
    frequencies: tuple[Tensor, Tensor],
    factors: tuple[Tensor, Tensor],
    threads: Threads,
) -> Tensor:
    """Sum of half spectra, each times its radial table, times factors along both axes.

    Parameters
    ----------
    spectra
        complex64 `[r, ny, nx//2+1]`.
    ranks
        Whose tables are meant.
    frequencies
        (ky `[ny, 1]`, kx `[1, nx//2+1]`) in 1/A.
    factors
        (`[ny]`, `[nx//2+1]`) float32.
    """
    ky, kx = frequencies[0][:, 0].contiguous(), frequencies[1][0].contiguous()
    tables = np.ascontiguousarray(ranks.tables, np.float32)
    out = torch.empty_like(spectra[0])
    module = kernels(spectra.device)
    if module is None:
        return _add_spectra_torch(spectra, tables, ranks.step, (ky, kx), factors)
    arrays = spectra.numpy(), tables, ranks.step, (ky.numpy(), kx.numpy())
    sides = factors[0].numpy(), factors[1].numpy()

    def rows(first: int) -> None:
        last = min(first + _ROWS, len(out))
        module.combine(*arrays, sides, first, last, out.numpy())

    threads.map(rows, range(0, len(out), _ROWS))
    return out


def _add_spectra_torch(
    spectra: Tensor,
    tables: np.ndarray,
    step: float,
    frequencies: tuple[Tensor, Tensor],
    factors: tuple[Tensor, Tensor],
) -> Tensor:
    device = spectra.device
    (ky, kx), table = (f.to(device) for f in frequencies), torch.from_numpy(tables).to(device)
    by, bx = (f.to(device) for f in factors)
    place = torch.sqrt(ky[:, None].square() + kx.square()) / step
    index = place.long().clamp_(max=table.shape[1] - 2)
    rest = place - index
    out = torch.zeros_like(spectra[0])
    for spectrum, row in zip(spectra, table, strict=True):
        low = row[index]
        out.add_(spectrum * (low + (row[index + 1] - low) * rest))
    return out.mul_(by[:, None] * bx)
