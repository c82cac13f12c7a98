"""Raw EER frames counted into an image: by Numba, by imagecodecs, or by NumPy, all the same.

Numba is the fastest by far and reads every code. imagecodecs reads all but the 8-bit code, of
which it consumes too few bits after the longest run; that one NumPy reads, for its items are all
of the same length.

Source: preprocessing.md section 1.6.
"""

import os
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from algorithms.formats import eerkernel
from algorithms.formats.eer import Code, RawFrames
from algorithms.jit import compiled

# Bytes of the image that are counted into at a time: half of a small second-level cache.
_BAND_BYTES = 2**17
_SPARE_WORDS = 2  # behind each stream, so that the walk may look ahead


class Streams(NamedTuple):
    """The bits of some raw frames.

    `words` are uint64, each stream with two words of zeros behind it; `first` int64 `[n + 1]` tells
    where each begins; `n_bits` int64 `[n]` how long it is.
    """

    words: NDArray[np.uint64]
    first: NDArray[np.int64]
    n_bits: NDArray[np.int64]


class Grid(NamedTuple):
    """The frame, and the pixels to count into.

    `finer` is how often each pixel of the frame is halved: 0, 1 or 2.
    """

    width: int
    height: int
    code: Code
    finer: int

    @property
    def shape(self) -> tuple[int, int]:
        """Of the image, (ny, nx)."""
        return self.height << self.finer, self.width << self.finer

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return x and y of each symbol within a pixel of the frame, on the fine grid.

        The bits of a symbol are signed numbers, x below y: the upper bit of each is turned over.
        """
        symbol = np.arange(1 << self.code.symbol_bits)
        x = (symbol & (1 << self.code.x_bits) - 1) ^ (1 << self.code.x_bits - 1)
        y = (symbol >> self.code.x_bits) ^ (1 << self.code.y_bits - 1)
        return x >> (self.code.x_bits - self.finer), y >> (self.code.y_bits - self.finer)


def read_streams(descriptor: int, raw: RawFrames, first: int, last: int) -> Streams:
    """Read raw frames first .. last-1 of an open file."""
    pieces = [raw.pieces[raw.first[i] : raw.first[i + 1]] for i in range(first, last)]
    sizes = np.array([piece[:, 1].sum() for piece in pieces], np.int64)
    begins = np.cumsum([0, *(-(-sizes // 8) + _SPARE_WORDS)])
    words = np.zeros(begins[-1], np.uint64)
    flat = words.view(np.uint8).data
    for piece, begin in zip(pieces, begins, strict=False):
        at = 8 * int(begin)
        for offset, count in piece.tolist():
            _fill(descriptor, flat[at : at + count], offset)
            at += count
    if words.dtype.newbyteorder("<") != words.dtype:  # streams are little-endian
        words.byteswap(inplace=True)
    return Streams(words, begins, 8 * sizes)


def _fill(descriptor: int, buffer: memoryview, offset: int) -> None:
    done = 0
    while done < len(buffer):
        got = os.preadv(descriptor, [buffer[done:]], offset + done)
        if got == 0:
            raise EOFError
        done += got


def can_read(code: Code) -> bool:
    """Whether a code can be read here: one of unequal places is read by Numba only."""
    return code.keeps_symbol or code.x_bits == code.y_bits or compiled(eerkernel.walk) is not None


def count_electrons(streams: Streams, grid: Grid, image: NDArray[np.unsignedinteger]) -> list[int]:
    """Add the electrons of all whole frames to `image` `[ny, nx]`; return the numbers of others.

    Parameters
    ----------
    streams
        Of the frames.
    grid
        What they are, and what the image is.
    image
        Wide enough for one electron per frame in each pixel.

    """
    if compiled(eerkernel.walk) is not None:
        return by_numba(streams, grid, image)
    if grid.code.keeps_symbol:
        return by_numpy(streams, grid, image)
    return by_imagecodecs(streams, grid, image)


def by_numba(streams: Streams, grid: Grid, image: NDArray[np.unsignedinteger]) -> list[int]:
    """Do as `count_electrons`: add all frames, then take away what was added of broken ones."""
    status = np.zeros(len(streams.n_bits), np.uint8)
    _walk(streams, grid, image, status, 1)
    broken = np.flatnonzero(status == eerkernel.BROKEN)
    if len(broken):
        status[broken] = eerkernel.UNREAD
        _walk(streams, grid, image, status, -1)
    return broken.tolist()


def _walk(
    streams: Streams,
    grid: Grid,
    image: NDArray[np.unsignedinteger],
    status: NDArray[np.uint8],
    step: int,
) -> None:
    code, width = grid.code, grid.width
    drop = code.run_bits + (code.symbol_bits if code.keeps_symbol else 0)
    row_bytes = (width * image.itemsize) << (2 * grid.finer)
    common = (
        tuple(streams),
        status,
        (grid.width * grid.height, max(1, _BAND_BYTES // row_bytes) * width),
        image.reshape(-1),
        np.array(step).astype(image.dtype)[()],
        (code.run_bits, code.symbol_bits, drop),
    )
    if grid.finer == 0:
        _kernel(eerkernel.walk)(*common)
        return
    x, y = grid.places()
    places = y * (width << grid.finer) + x
    _kernel(eerkernel.walk_fine)(*common, (width, 1 << grid.finer, places))


def _kernel(function: Callable[..., None]) -> Callable[..., None]:
    return compiled(function) or function


def by_imagecodecs(streams: Streams, grid: Grid, image: NDArray[np.unsignedinteger]) -> list[int]:
    """Do as `count_electrons`; a frame of which something is wrong never reaches the image."""
    code, side = grid.code, 1 << grid.finer
    if code.keeps_symbol or code.x_bits != code.y_bits:
        raise RuntimeError(f"{code.name} is read by Numba only, which is not installed")
    broken = []
    for number, (begin, end) in enumerate(pairwise(streams.first)):
        words = streams.words[begin : end - 1]
        frame = np.zeros(grid.shape, np.uint8)
        try:
            imagecodecs.eer_decode(
                words.tobytes(),
                grid.shape,
                *(code.run_bits, code.x_bits, code.y_bits),
                superres=grid.finer,
                out=frame,
            )
        except (RuntimeError, ValueError):
            broken.append(number)
            continue
        seen = np.any(frame.reshape(grid.height, side, grid.width, side), axis=(1, 3))
        if _is_whole(words, int(streams.n_bits[number]), np.asarray(seen), code):
            image += frame
        else:
            broken.append(number)
    return broken


def _is_whole(words: NDArray[np.uint64], n_bits: int, seen: NDArray[np.bool_], code: Code) -> bool:
    """Whether a stream ends with the last pixel: imagecodecs takes one that is too short as well.

    The pixels with an electron tell how many bits were read up to the last one.
    """
    pixels = np.flatnonzero(seen)
    longest = (1 << code.run_bits) - 1
    skips = (np.diff(pixels, prepend=-1) - 1) // longest
    at = len(pixels) * (code.run_bits + code.symbol_bits) + int(skips.sum()) * code.run_bits
    n = int(pixels[-1]) + 1 if len(pixels) else 0
    bits = int.from_bytes(words.astype("<u8").tobytes()[at // 8 :], "little") >> at % 8
    while at <= n_bits:
        run = bits & longest
        n += run
        if n >= seen.size:
            return n == seen.size and (at + code.run_bits <= n_bits or run == 0)
        if run != longest:
            return False
        bits >>= code.run_bits
        at += code.run_bits
    return False


def by_numpy(streams: Streams, grid: Grid, image: NDArray[np.unsignedinteger]) -> list[int]:
    """Do as `count_electrons` for a code whose items are all of the same length."""
    code, n_pixels = grid.code, grid.width * grid.height
    item = code.run_bits + code.symbol_bits
    x_of, y_of = grid.places()
    broken = []
    for number, begin in enumerate(streams.first[:-1]):
        n_bits = int(streams.n_bits[number])
        n_items = n_bits // item + 1  # the last one may be cut, or left out where it is 0
        bits = np.unpackbits(
            streams.words[begin:].view(np.uint8)[: n_items * item // 8 + 1],
            bitorder="little",
            count=n_items * item,
        ).reshape(n_items, item)
        weights = 1 << np.arange(item)
        run = bits[:, : code.run_bits] @ weights[: code.run_bits]
        symbol = bits[:, code.run_bits :] @ weights[: code.symbol_bits]
        is_electron = run != (1 << code.run_bits) - 1
        here = np.cumsum(run + is_electron) - is_electron  # pixels passed when an item is read
        over = np.flatnonzero(here >= n_pixels)
        stop = int(over[0]) if len(over) else n_items - 1
        rest = n_bits - stop * item
        if here[stop] != n_pixels or (rest < code.run_bits and (rest < 0 or run[stop])):
            broken.append(number)
            continue
        seen = np.flatnonzero(is_electron[:stop])
        y, x = np.divmod(here[seen], grid.width)
        # One electron per pixel of the frame: no place occurs twice.
        fine = (y << grid.finer) + y_of[symbol[seen]], (x << grid.finer) + x_of[symbol[seen]]
        image[fine] += 1
    return broken
