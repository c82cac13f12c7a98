"""The strips of TIFF files: bytes in, exactly the bytes that were promised out."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from algorithms.formats import lzw
from algorithms.formats.errors import FormatError

Where = Callable[[int], tuple[str | os.PathLike[str], str]]

_DECODERS: dict[str, Callable[..., Any]] = {
    "none": lambda raw, out: raw,
    "lzw": imagecodecs.lzw_decode,
    "deflate": imagecodecs.deflate_decode,
    "packbits": imagecodecs.packbits_decode,
}
if getattr(imagecodecs.ZSTD, "available", False):
    _DECODERS["zstd"] = imagecodecs.zstd_decode


def is_read(compression: str) -> bool:
    """Whether strips of a compression can be decoded here."""
    return compression in _DECODERS


class Run(NamedTuple):
    """Strips that lie together: a piece of the file, and where they begin and end in it."""

    raw: memoryview
    begins: NDArray[np.int64]
    counts: NDArray[np.int64]


def decode(run: Run, compression: str, sizes: Sequence[int], where: Where) -> NDArray[np.uint8]:
    """Return the bytes of strips, one behind the other.

    Parameters
    ----------
    run
        As they lie in the file.
    compression
        A value of `tiff.COMPRESSIONS`.
    sizes
        Bytes that each must have; all but the last the same.
    where
        Called with the number of a strip in the run: (path, what to call it), for messages.

    Raises
    ------
    FormatError
        BAD_HEADER: a strip is corrupt, or unpacks to more or less.
    """
    done = _by_lzw(run, sizes, where) if compression == "lzw" else None
    if done is not None:
        return done
    parts = []
    for number, (begin, count) in enumerate(zip(run.begins, run.counts, strict=True)):
        size = sizes[number]
        try:
            # One byte more than expected: enough to notice a strip that unpacks to too much,
            # too little for a decompression bomb.
            decoded = _DECODERS[compression](run.raw[begin : begin + count], out=size + 1)
        except RuntimeError as error:  # base of all errors of imagecodecs
            path, what = where(number)
            raise FormatError(path, "BAD_HEADER", f"{what} is corrupt: {error}") from None
        _check_size(len(decoded), size, number, where)
        parts.append(np.frombuffer(decoded, np.uint8))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _by_lzw(run: Run, sizes: Sequence[int], where: Where) -> NDArray[np.uint8] | None:
    """Do as `decode`, many strips in one call; None where that cannot be done."""
    equal = len(sizes) - (sizes[-1] != sizes[0])
    decoded = lzw.decode(run.raw, run.begins[:equal], run.counts[:equal], sizes[0])
    if decoded is None:
        return None
    done, found = decoded
    for number in np.flatnonzero(found != sizes[0]).tolist():
        if found[number] == lzw.CORRUPT:
            path, what = where(number)
            detail = f"{what} is corrupt: a code that the table does not have"
            raise FormatError(path, "BAD_HEADER", detail)
        size = sizes[0] + 1 if found[number] == lzw.TOO_MUCH else int(found[number])
        _check_size(size, sizes[0], number, where)
    if equal == len(sizes):
        return done.reshape(-1)
    last = Run(run.raw, run.begins[equal:], run.counts[equal:])
    rest = decode(last, "lzw", sizes[equal:], lambda number: where(equal + number))
    return np.concatenate([done.reshape(-1), rest])


def _check_size(found: int, expected: int, number: int, where: Where) -> None:
    if found != expected:
        path, what = where(number)
        detail = f"{what} decodes to {found} bytes or more, not {expected}"
        raise FormatError(path, "BAD_HEADER", detail)
