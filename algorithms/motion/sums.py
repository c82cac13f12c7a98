"""The second pass: moved frames into sums, sums into images.

One pass over the frames fills a handful of real-space sums: the plain one, those that exposure
weighting needs, the even frames if they are wanted, and the group that the power spectrum is made
of. A few transforms then make the images: weighting, flat noise and binning are factors there.

Source: preprocessing.md sections 2.2, 2.7 to 2.10, 8.4.
"""

import math
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms import fourier
from algorithms.motion.defects import Repair
from algorithms.motion.dose import LowRank, low_rank
from algorithms.motion.frames import FrameSource
from algorithms.motion.interpolation import noise_transfer
from algorithms.motion.memory import large_zeros
from algorithms.motion.passes import Chunk, Moves, add_moved, add_spectra, shared_run
from algorithms.motion.spectrum import frames_per_group, group_amplitudes
from algorithms.motion.threads import Threads
from algorithms.motion.types import MotionOptions

_SLOW_PRIMES = (7, 11, 13)  # beyond 5: what a transform still does well
_CHUNK = 4  # frames at a time where no power spectrum says how many
_PLACES = 9  # along each axis, where the frames' shifts are sampled
_LEAST_NOISE = 0.3  # power beside Nyquist that an interpolation took is not brought back


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What the second pass gave.

    Parameters
    ----------
    amplitudes, shape
        Sum of the groups' amplitudes, or None, and (ny, nx) of the images they are of.
    image_shape
        (ny, nx) of the images.
    weighted, plain, even, odd
        Images, those that were asked for.
    """

    amplitudes: Tensor | None
    shape: fourier.Shape
    image_shape: fourier.Shape
    weighted: Tensor | None = None
    plain: Tensor | None = None
    even: Tensor | None = None
    odd: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """(ny, nx) of the frames, of the sums (quick to transform), of the transforms and images."""

    frame: fourier.Shape
    padded: fourier.Shape
    cropped: fourier.Shape
    image: fourier.Shape


def shapes_of(frame: fourier.Shape, bin_factor: float) -> Shapes:
    """Sizes for frames of `frame` (ny, nx).

    Where the size is slow to transform the sums are larger by a few rows and columns, in which
    the edge repeats; the image is cut out of the result. Only where that keeps the pixels: with
    whole binning.
    """
    image = binned_shape(frame, bin_factor)
    whole = round(bin_factor)
    if abs(bin_factor - whole) > 1e-6 or any(
        n != m * whole for n, m in zip(frame, image, strict=True)
    ):
        return Shapes(frame=frame, padded=frame, cropped=image, image=image)
    cropped = (quick_size(image[0]), quick_size(image[1]))
    padded = (cropped[0] * whole, cropped[1] * whole)
    return Shapes(frame=frame, padded=padded, cropped=cropped, image=image)


def quick_size(n: int) -> int:
    """Return n, or if it has a prime factor above 13 or several above 5 the next quick size."""
    rest = n
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return n if rest in (1, *_SLOW_PRIMES) else fourier.fast_size(n)


def binned_shape(shape: fourier.Shape, bin_factor: float) -> fourier.Shape:
    """Shape (ny, nx) after binning, each the even number nearest to n / `bin_factor`.

    Raises
    ------
    ValueError
        The factor is below 1.
    """
    if bin_factor < 1.0:
        raise ValueError(f"bin_factor is {bin_factor}; it must be 1 or more")
    if bin_factor == 1.0:
        return shape
    return (
        2 * round(shape[0] / bin_factor / 2.0),
        2 * round(shape[1] / bin_factor / 2.0),
    )


def add_up(
    frames: FrameSource,
    gain: Tensor,
    repair: Repair,
    planes: np.ndarray,
    options: MotionOptions,
    threads: Threads,
) -> Sums:
    """Move and add all frames.

    Parameters
    ----------
    frames, gain, repair
        The frames, and what corrects them.
    planes
        Shift of every frame `[n, 2, 6]`, unbinned px (`model.frame_planes`).
    options
        Which sums to make.
    threads
        To work with.
    """
    shapes = shapes_of(frames.shape, options.bin_factor)
    ranks = _ranks(frames, options)
    weights = _weights(ranks, frames.n, options.even_odd)
    # The plain sum, those of `weights`, the last one the group at work; with room for transforms.
    rows, columns = shapes.padded
    room_for = (len(weights) + 1, rows, columns // 2 * 2 + 2)
    room = large_zeros(room_for, torch.float32, frames.device)
    sums = room[:, :, :columns]
    amplitudes = _Amplitudes(shapes, threads) if options.save_ps else None
    size = frames_per_group(options.dose_per_frame, options.dose_per_ps)
    size = min(size, frames.n) if options.save_ps else _CHUNK
    moves = Moves(planes=planes, weights=weights, run=shared_run(planes, frames.shape[1]))
    for start, raw in frames.chunks(size):
        chunk = Chunk(raw=raw, gain=gain, bad=repair.pixels(raw, gain, frames.first + start))
        end = start + len(raw)
        if start % size == 0:
            sums[-1].zero_()
        add_moved(chunk, moves.part(start, end), room[1:], threads)
        del raw, chunk  # or they keep the frames in memory
        if end % size == 0 or end == frames.n:
            _end_group(sums, amplitudes)
    frames.release()
    total = None if amplitudes is None else amplitudes.total()
    spectra = _transforms(room[:-1], shapes, threads)
    del room, sums
    noise = _Noise(planes, shapes, options, ranks)
    return Sums(
        **_images(spectra, noise, total, options, threads),
        amplitudes=total,
        shape=shapes.cropped,
        image_shape=shapes.image,
    )


def _end_group(sums: Tensor, amplitudes: "_Amplitudes | None") -> None:
    """Add the group at work, the last plane, to the plain sum and to the spectrum."""
    sums[0].add_(sums[-1])
    if amplitudes is not None:
        amplitudes.add(sums[-1])


def _transforms(room: Tensor, shapes: Shapes, threads: Threads) -> Tensor:
    """Binned half spectra complex64 `[k, ny, nx//2+1]` of sums, in their place if they fit."""
    half = (shapes.cropped[0], shapes.cropped[1] // 2 + 1)
    if shapes.cropped == shapes.padded:
        out = torch.view_as_complex(room.view(len(room), *half, 2))
    else:
        out = torch.empty((len(room), *half), dtype=torch.complex64, device=room.device)

    def transform(i: int) -> None:
        plane = room[i, :, : shapes.padded[1]]
        out[i] = fourier.crop_rfft(fourier.rfft2(plane), shapes.padded, shapes.cropped)

    threads.map(transform, range(len(room)))
    return out


def _ranks(frames: FrameSource, options: MotionOptions) -> LowRank:
    """Factors of the exposure weights; of weights of 1 where there are none to be."""
    if options.dose_weighting:
        # The corner of the transform.
        highest = math.sqrt(0.5) / (options.pixel_size_A * options.bin_factor)
        dose = options.frame_doses or options.dose_per_frame
        if isinstance(dose, tuple):
            dose = dose[frames.first : frames.last]
        return low_rank(frames.n, dose, options.voltage_kV, highest)
    return LowRank(frames=np.ones((1, frames.n)), tables=np.ones((1, 2)), step=1.0, error=0.0)


def _weights(ranks: LowRank, n: int, even_odd: bool) -> np.ndarray:
    """Weights float32 `[k, n]` of each frame in the sums after the plain one."""
    rows = [ranks.frames[1:]]
    if even_odd:
        rows.append((np.arange(n) % 2 == 0)[None].astype(np.float64))
    return np.vstack([*rows, np.ones((1, n))]).astype(np.float32)


class _Amplitudes:
    """Sum of the groups' amplitudes; the transforms run beside the next group's frames."""

    def __init__(self, shapes: Shapes, threads: Threads):
        self._shapes, self._threads = shapes, threads
        self._waiting: Future[Tensor] | None = None
        self._total: Tensor | None = None

    def add(self, group: Tensor) -> None:
        """Add a group; its plane may be overwritten afterwards."""
        self._take()
        group = group.clone()
        self._waiting = self._threads.start(
            lambda: group_amplitudes(group, self._shapes.padded, self._shapes.cropped)
        )

    def _take(self) -> None:
        if self._waiting is not None:
            found = self._waiting.result()
            self._total = found if self._total is None else self._total.add_(found)
            self._waiting = None

    def total(self) -> Tensor | None:
        """Sum of all groups."""
        self._take()
        return self._total


class _Noise:
    """Factors along both axes that make the noise of a sum of interpolated frames white again."""

    def __init__(self, planes: np.ndarray, shapes: Shapes, options: MotionOptions, ranks: LowRank):
        self.shapes, self.pixel = shapes, options.pixel_size_A * options.bin_factor
        self.ranks, self._unbinned = ranks, options.pixel_size_A
        axis = (np.arange(_PLACES) + 0.5) / _PLACES - 0.5
        y, x = (v.ravel() for v in np.meshgrid(axis, axis, indexing="ij"))
        space = np.stack([np.ones_like(x), x, x * x, y, y * y, x * y])
        self._shifts = planes @ space  # [n, 2, places]

    def factors(self, *, weighted: bool) -> tuple[Tensor, Tensor]:
        """Factors float32 along y `[ny]` and x `[nx//2+1]` of the cropped transform."""
        ky, kx = fourier.frequencies(self.shapes.cropped, dtype=torch.float64)
        zoom = [c / p for c, p in zip(self.shapes.cropped, self.shapes.padded, strict=True)]
        along = (ky[:, 0].numpy() * zoom[0], kx[0].numpy() * zoom[1])
        found = []
        for k, shifts in zip(along, (self._shifts[:, 1], self._shifts[:, 0]), strict=True):
            weight = np.ones((len(shifts), len(k)))
            if weighted:
                place = np.minimum(np.abs(k) / self._unbinned / self.ranks.step, 1e9)
                table = self.ranks.frames.T @ self.ranks.tables
                weight = table[:, np.minimum(place.astype(int), table.shape[1] - 1)]
            left = noise_transfer(k, shifts, weight)
            found.append(torch.from_numpy(1.0 / np.maximum(left, _LEAST_NOISE)).float())
        return found[0], found[1]


def _images(
    spectra: Tensor,
    noise: _Noise,
    amplitudes: Tensor | None,
    options: MotionOptions,
    threads: Threads,
) -> dict[str, Tensor]:
    """Images by name: `weighted`, `plain`, `even`, `odd`, as far as they are wanted.

    The noise of the amplitudes is made flat on the way.
    """
    shapes, ranks, jobs = noise.shapes, noise.ranks, {}
    if options.dose_weighting:
        jobs["weighted"] = add_spectra(
            spectra[: len(ranks.frames)],
            ranks,
            fourier.frequencies(shapes.cropped, noise.pixel),
            noise.factors(weighted=True),
            threads,
        )
    factor_y, factor_x = (f.to(spectra.device) for f in noise.factors(weighted=False))
    flat = factor_y[:, None] * factor_x
    if options.save_nodw or not options.dose_weighting:
        jobs["plain"] = spectra[0] * flat
    if options.even_odd:
        # The factor of the whole sum for both halves: they add up to it.
        jobs["even"] = spectra[-1] * flat
        jobs["odd"] = (spectra[0] - spectra[-1]) * flat
    rows, columns = shapes.image
    if amplitudes is not None:
        amplitudes.mul_(flat)
    made = threads.map(
        lambda spectrum: fourier.irfft2(spectrum, shapes.cropped)[:rows, :columns].contiguous(),
        list(jobs.values()),
    )
    return dict(zip(jobs, made, strict=True))
