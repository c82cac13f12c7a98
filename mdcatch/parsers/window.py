"""A window onto a large file: a parser asks for the bytes it needs, and only they are read.

Source: reliability.md section 2.11; acquisition.md section 8 (12).
"""

from collections.abc import Callable
from typing import BinaryIO, Self

from algorithms.formats.errors import FormatError
from services.kit.errors import Code, Refused


class Window:
    """A file that is read in pieces.

    Parameters
    ----------
    read
        Called with (offset, length); returns the bytes there, fewer at the end of the file.
    size
        Of the file, in bytes.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int):
        self.read, self.size = read, size

    @classmethod
    def of_bytes(cls, content: bytes) -> Self:
        """Return a window onto bytes in memory."""
        return cls(lambda offset, length: content[offset : offset + length], len(content))

    @classmethod
    def of_file(cls, file: BinaryIO) -> Self:
        """Return a window onto an open file; its size is taken now, closing it is the caller's."""

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return cls(read, file.seek(0, 2))

    def take(self, offset: int, length: int, what: str) -> bytes:
        """Return exactly `length` bytes at `offset`.

        Parameters
        ----------
        offset, length
            Any numbers that a file may claim.
        what
            Name of the piece, for the message.

        Raises
        ------
        Refused
            BAD_HEADER for a negative place, TRUNCATED when the piece is not inside the file.
        """
        if offset < 0 or length < 0:
            raise Refused(Code.BAD_HEADER, f"{what}: {length} bytes at byte {offset}")
        end = offset + length
        piece = self.read(offset, length) if end <= self.size else b""
        if len(piece) != length:
            raise Refused(
                Code.TRUNCATED, f"{what} ends at byte {end}, the file at byte {self.size}"
            )
        return piece


def refusal(error: FormatError) -> Refused:
    """Return what a format reader found as the refusal of one file."""
    return Refused(Code(error.code), f"{error.path}: {error.detail}")
