"""EER files for tests: a writer of every code, one electron after the other, and its reader."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEGACY_OK, LEGACY_BROKEN = b"ThermoFisherECComprOK000", b"ThermoFisherECComprERR00"


class Electrons(NamedTuple):
    """Of one raw frame: pixels in order, int64 `[n]`, and the symbols as they are written."""

    pixel: np.ndarray
    symbol: np.ndarray


def random_electrons(
    rng: np.random.Generator, n: int, n_pixels: int, symbol_bits: int = 4
) -> Electrons:
    """Draw electrons, at most one per pixel."""
    pixel = np.sort(rng.choice(n_pixels, n, replace=False))
    return Electrons(pixel, rng.integers(0, 1 << symbol_bits, n))


def stream(
    electrons: Electrons,
    n_pixels: int,
    run_bits: int = 7,
    symbol_bits: int = 4,
    *,
    keeps_symbol: bool = False,
) -> bytes:
    """Pack one frame's bits, the lowest of the first byte first."""
    longest = (1 << run_bits) - 1
    values, widths = [], []
    for passed, symbol in [*_runs(electrons), (n_pixels - _after(electrons), None)]:
        while passed >= longest:
            values.append(longest)
            widths.append(run_bits + (symbol_bits if keeps_symbol else 0))
            passed -= longest
        values.append(passed | (0 if symbol is None else symbol << run_bits))
        widths.append(run_bits if symbol is None else run_bits + symbol_bits)
    width = run_bits + symbol_bits
    bits = np.array(values)[:, None] >> np.arange(width) & 1
    kept = np.arange(width) < np.array(widths)[:, None]
    return np.packbits(bits[kept].astype(np.uint8), bitorder="little").tobytes()


def _runs(electrons: Electrons) -> list[tuple[int, int]]:
    passed = np.diff(electrons.pixel, prepend=-1) - 1
    return list(zip(passed.tolist(), electrons.symbol.tolist(), strict=True))


def _after(electrons: Electrons) -> int:
    return int(electrons.pixel[-1]) + 1 if len(electrons.pixel) else 0


def rendered(
    electrons: Electrons, shape: tuple[int, int], upsampling: int, bits: tuple[int, int] = (2, 2)
) -> np.ndarray:
    """Count electrons of a frame `(height, width)` as the table of the specification says."""
    height, width = shape
    y, x = np.divmod(electrons.pixel, width)
    # The bits of a place are a signed number, -2 to 1 or -1 to 0.
    x_sub = _signed(electrons.symbol & (1 << bits[0]) - 1, bits[0]) + (1 << bits[0] - 1)
    y_sub = _signed(electrons.symbol >> bits[0], bits[1]) + (1 << bits[1] - 1)
    if upsampling == -1:
        image = np.zeros((height // 2, width // 2), np.int64)
        np.add.at(image, (y // 2, x // 2), 1)
        return image
    fine = upsampling - 1
    image = np.zeros((height << fine, width << fine), np.int64)
    rows = (y << fine) + (y_sub >> bits[1] - fine)
    columns = (x << fine) + (x_sub >> bits[0] - fine)
    np.add.at(image, (rows, columns), 1)
    return image


def _signed(value: np.ndarray, bits: int) -> np.ndarray:
    return np.where(value >> bits - 1, value - (1 << bits), value)


def big_tiff(
    frames: Sequence[bytes],
    shape: tuple[int, int],
    *,
    compression: int = 65001,
    tags: Sequence[tuple[int, int, int]] = (),
    strips: int = 1,
    sums: int = 0,
    document: bytes = b"<metadata></metadata>\0",
    link: int = 0,
) -> bytes:
    """Lay out a BigTIFF with a directory per frame.

    Parameters
    ----------
    frames
        Streams.
    shape
        (height, width).
    compression, tags
        Of the frames; `tags` are more (tag, type, value).
    strips
        Into how many each stream is cut.
    sums
        Uncompressed directories before the first frame.
    document
        Of the acquisition, in the first directory.
    link
        What the last directory gives as the offset of the next.
    """
    height, width = shape
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    pointer = 8
    at_document = len(out)
    out += document
    for number in range(-sums, len(frames)):
        is_sum = number < 0
        data = bytes(2 * height * width) if is_sum else frames[number]
        edges = np.linspace(0, len(data), (1 if is_sum else strips) + 1).astype(int)
        counts = np.diff(edges)
        offsets = edges[:-1] + len(out)
        out += data
        fields = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 16 if is_sum else 1)}
        fields[259] = (3, 1, 1 if is_sum else compression)
        fields[278] = (4, 1, -(-height // len(counts)))
        for tag, values in ((273, offsets), (279, counts)):
            fields[tag] = (16, len(values), int(values[0]) if len(values) == 1 else len(out))
            out += values.astype("<u8").tobytes() if len(values) > 1 else b""
        fields |= {tag: (kind, 1, value) for tag, kind, value in tags} if not is_sum else {}
        if number == -sums and document:
            fields[65001] = (7, len(document), at_document)
        struct.pack_into("<Q", out, pointer, len(out))
        out += struct.pack("<Q", len(fields))
        for tag, (kind, count, value) in sorted(fields.items()):
            out += struct.pack("<HHQQ", tag, kind, count, value)
        pointer = len(out)
        out += bytes(8)
    struct.pack_into("<Q", out, pointer, link)
    return bytes(out)


def legacy(frames: Sequence[bytes], broken: Sequence[int] = ()) -> bytes:
    """Lay out a file of the first generation; `broken` are numbers of frames marked as such."""
    out = bytearray()
    for number, data in enumerate(frames):
        data += bytes(-len(data) % 8)
        out += data + struct.pack("<Q", len(data) // 8)
        out += LEGACY_BROKEN if number in broken else LEGACY_OK
    return bytes(out)
