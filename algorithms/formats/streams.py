"""Files compressed as a whole (bzip2, xz, zstd): read from the beginning, a piece at a time.

No more is unpacked than is asked for, so a decompression bomb costs nothing.

Source: preprocessing.md section 1.3.
"""

import bz2
import lzma
import os
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

import imagecodecs

from algorithms.formats.errors import FormatError

SUFFIXES = {".bz2": b"BZh", ".xz": b"\xfd7zXZ\0", ".zst": b"\x28\xb5\x2f\xfd"}
MAX_MEMORY = 512 * 2**20  # of a decoder: xz and zstd files can ask for gigabytes
MAX_AT_ONCE = 4 * 2**30  # of a zstd file, where it has to be unpacked whole
_PIECE = 2**20


def kind_of(start: bytes) -> str | None:
    """Return the suffix that belongs to the first bytes of a file, None for other files."""
    return next((kind for kind, magic in SUFFIXES.items() if start.startswith(magic)), None)


class Stream:
    """The content of a compressed file, once from its beginning to its end.

    Parameters
    ----------
    path, descriptor
        The file, open.
    kind
        A key of `SUFFIXES`.
    """

    def __init__(self, path: Path, descriptor: int, kind: str):
        self.path, self._descriptor, self._kind = path, descriptor, kind
        self._at = 0
        self._rest = b""
        self._decoder: Any = None

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes of the content.

        Raises
        ------
        FormatError
            TRUNCATED where the file ends before, BAD_HEADER where it is corrupt, TOO_LARGE where
            unpacking needs too much memory, UNSUPPORTED where `zstandard` is missing.
        """
        pieces: list[bytes] = []
        while count:
            piece = self._more(count)
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def finish(self) -> None:
        """Make sure, after the last byte that is wanted, that the file is whole.

        The checks of the content stand at its end. More content is left alone.

        Raises
        ------
        FormatError
            As `read`.
        """
        if self._kind == ".zst":  # its blocks are checked as they are read
            return
        while self._decoder is not None:
            if self._more(1):
                return

    def _more(self, limit: int) -> bytes:
        """Return between 0 and `limit` bytes; there is something left to do for the next call."""
        if self._decoder is None:
            self._decoder = self._new()
        if not self._rest and self._decoder.needs_input:
            self._rest = os.pread(self._descriptor, _PIECE, self._at)
            self._at += len(self._rest)
            if not self._rest:
                raise FormatError(
                    self.path, "TRUNCATED", f"the {self._kind} file ends before its content does"
                )
        try:
            piece = self._decoder.decompress(self._rest, limit)
        except FormatError:
            raise
        except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
            if "memory" in str(error).lower():
                detail = f"unpacking needs more than {MAX_MEMORY >> 20} MiB"
                raise FormatError(self.path, "TOO_LARGE", detail) from None
            raise FormatError(
                self.path, "BAD_HEADER", f"the {self._kind} file is corrupt: {error}"
            ) from None
        self._rest = b""
        if self._decoder.eof:  # parallel packers write many streams one after the other
            self._rest = self._decoder.unused_data
            self._decoder = None
        return piece

    def _new(self) -> Any:
        if self._kind == ".bz2":
            return bz2.BZ2Decompressor()
        if self._kind == ".xz":
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_MEMORY)
        try:
            zstandard = import_module("zstandard")
        except ImportError:
            return _Whole(self.path, self._descriptor)
        return _Zstandard(zstandard, self.path, self._descriptor)


class _Input:
    """An open file from its beginning, whoever else reads it."""

    def __init__(self, descriptor: int):
        self._descriptor, self._at, self.ended = descriptor, 0, False

    def read(self, count: int) -> bytes:
        piece = os.pread(self._descriptor, count, self._at)
        self._at += len(piece)
        self.ended = not piece
        return piece


class _Zstandard:
    """A zstd file through the package `zstandard`, as the decoders of the standard library are."""

    eof, needs_input, unused_data = False, False, b""

    def __init__(self, zstandard: Any, path: Path, descriptor: int):
        self._path, self._error = path, zstandard.ZstdError
        decoder = zstandard.ZstdDecompressor(max_window_size=MAX_MEMORY)
        self._input = _Input(descriptor)
        self._reader = decoder.stream_reader(self._input, read_across_frames=True)

    def decompress(self, raw: bytes, limit: int) -> bytes:
        """Return the next piece; the decoder reads its input itself."""
        try:
            piece = self._reader.read(limit)
        except self._error as error:
            if not self._input.ended:
                raise ValueError(error) from None
            piece = b""
        if not piece:
            raise FormatError(self._path, "TRUNCATED", "the zstd file ends before its content does")
        return piece


class _Whole:
    """A zstd file unpacked at once: what is possible without the package `zstandard`."""

    def __init__(self, path: Path, descriptor: int):
        self._path = path
        self._at, self.eof, self.needs_input, self.unused_data = 0, False, False, b""
        raw = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        size = _zstd_size(raw)
        if size is None or size > MAX_AT_ONCE:
            told = "does not tell its size" if size is None else f"unpacks to {size} bytes"
            raise FormatError(
                path, "UNSUPPORTED", f"the zstd file {told}: install the package zstandard"
            )
        try:
            self._content = memoryview(imagecodecs.zstd_decode(raw, out=size))
        except RuntimeError as error:  # base of all errors of imagecodecs
            raise FormatError(path, "TRUNCATED", f"the zstd file is cut or corrupt: {error}") from (
                None
            )

    def decompress(self, raw: bytes, limit: int) -> bytes:
        """Return the next piece; there is no input any more."""
        piece = bytes(self._content[self._at : self._at + limit])
        self._at += len(piece)
        if not piece:
            raise FormatError(self._path, "TRUNCATED", "the zstd file ends before its content does")
        return piece


def _zstd_size(raw: bytes) -> int | None:
    """Return the size that the header of the only zstd frame states (RFC 8878 section 3.1.1.1)."""
    if len(raw) < 18:
        return None
    flags = raw[4]
    single = flags >> 5 & 1
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
    width = (1 if single else 0, 2, 4, 8)[flags >> 6]
    if width == 0:
        return None
    (size,) = struct.unpack_from({1: "<B", 2: "<H", 4: "<I", 8: "<Q"}[width], raw, at)
    return size + 256 if width == 2 else size
