"""EER movies: the electrons of simulated frames, each in one of many raw frames.

The camera counts an electron at most once per pixel and raw frame, so of electrons that coincide
one is seen, as in a real one. Where within the pixel an electron arrived is drawn at random.

Source: preprocessing.md section 1.6.
"""

import struct

import numpy as np
from numpy.typing import NDArray

_RUN_BITS, _SYMBOL_BITS = 7, 4
_LONGEST = (1 << _RUN_BITS) - 1
_COMPRESSION = 65001
_BYTES, _SHORT, _LONG, _LONG8 = 7, 3, 4, 16  # types of TIFF values


def encode_eer(
    frames: NDArray[np.unsignedinteger], raw_per_frame: int, rng: np.random.Generator
) -> bytes:
    """Return a movie of 7-bit code in a BigTIFF.

    Parameters
    ----------
    frames
        Counts `[F, ny, nx]` in MRC orientation; sides even.
    raw_per_frame
        Raw frames that the electrons of each are spread over.
    rng
        For the raw frame of each electron, and its place within the pixel.
    """
    streams = [
        encode_stream(pixel, symbol, frames[0].size)
        for frame in frames
        for pixel, symbol in _spread(frame, raw_per_frame, rng)
    ]
    document = (
        "<metadata>"
        f'<item name="numberOfFrames">{len(streams)}</item>'
        '<item name="commercialName">Falcon 4i</item>'
        "</metadata>\0"
    )
    return _container(streams, (frames.shape[1], frames.shape[2]), document.encode())


def _spread(
    frame: NDArray[np.unsignedinteger], raw_per_frame: int, rng: np.random.Generator
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Divide the electrons of a frame: (pixels in order, symbols) of each raw frame."""
    pixel = np.repeat(np.arange(frame.size), frame.ravel())
    raw = rng.integers(0, raw_per_frame, len(pixel), dtype=np.uint16)
    order = np.argsort(raw, kind="stable")
    ends = np.cumsum(np.bincount(raw, minlength=raw_per_frame))
    parts = [part[np.diff(part, prepend=-1) > 0] for part in np.split(pixel[order], ends[:-1])]
    return [(part, rng.integers(0, 1 << _SYMBOL_BITS, len(part))) for part in parts]


def encode_stream(pixel: NDArray[np.int64], symbol: NDArray[np.int64], n_pixels: int) -> bytes:
    """Return the bits of one raw frame.

    Parameters
    ----------
    pixel
        Of each electron, in order, none twice.
    symbol
        Its place within the pixel.
    n_pixels
        Of the frame.
    """
    passed = np.diff(pixel, prepend=-1, append=n_pixels) - 1
    longest, rest = np.divmod(passed, _LONGEST)
    n_items = longest + 1  # the longest runs, which no electron follows, then the rest
    last = np.cumsum(n_items) - 1
    value = np.full(last[-1] + 1, _LONGEST)
    width = np.full(len(value), _RUN_BITS)
    value[last] = rest
    value[last[:-1]] |= symbol << _RUN_BITS
    width[last[:-1]] += _SYMBOL_BITS
    begin = np.cumsum(width) - width
    word, shift = begin >> 6, (begin & 63).astype(np.uint64)
    bits = value.astype(np.uint64)
    words = np.zeros(word[-1] + 2, np.uint64)
    first = np.flatnonzero(np.diff(word, prepend=-1))
    words[word[first]] = np.add.reduceat(bits << shift, first)  # what leaves the word is dropped
    over = np.flatnonzero(shift + width.astype(np.uint64) > 64)
    words[word[over] + 1] += bits[over] >> (np.uint64(64) - shift[over])
    n_bytes = -(-int(begin[-1] + width[-1]) // 8)
    return words.astype("<u8").tobytes()[:n_bytes]


def _container(streams: list[bytes], shape: tuple[int, int], document: bytes) -> bytes:
    """Lay out a BigTIFF: each stream, then its directory; the document in the first."""
    ny, nx = shape
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    link = 8
    at_document = len(out)
    out += document
    for number, stream in enumerate(streams):
        entries = [
            (256, _LONG, 1, nx),
            (257, _LONG, 1, ny),
            (258, _SHORT, 1, 1),
            (259, _SHORT, 1, _COMPRESSION),
            (273, _LONG8, 1, len(out)),
            (278, _LONG, 1, ny),
            (279, _LONG8, 1, len(stream)),
        ]
        if number == 0:
            entries.append((65001, _BYTES, len(document), at_document))
        out += stream
        struct.pack_into("<Q", out, link, len(out))
        out += struct.pack("<Q", len(entries))
        for entry in entries:
            out += struct.pack("<HHQQ", *entry)
        link = len(out)
        out += bytes(8)
    return bytes(out)
