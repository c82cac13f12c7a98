"""The chain of directories of a TIFF or EER file, seen through a window.

The chain is walked by `algorithms.formats.tiff`; here a directory is looked at and let go, so that
many directories with long lists cannot fill the memory.

Source: acquisition.md section 6; reliability.md section 2.11.
"""

from collections.abc import Iterator
from operator import add
from typing import NamedTuple

from algorithms.formats import tiff
from algorithms.formats.errors import FormatError
from mdcatch.parsers.record import Record
from mdcatch.parsers.window import Window, refusal
from services.kit.errors import Code, Refused

MAX_HEADER_BYTES = 64 * 2**20  # of all directories with their lists; 1,000 frames need 1 to 32 MB
MAX_TAG_BYTES = 2**20  # of a text
DEFECTS_TAG = 65100  # of TFS's gain files: the map of defects

_AHEAD = 512  # bytes; a directory has 100 to 400
_FORMATS = {1: "uint", 2: "int", 3: "float"}


class Frame(NamedTuple):
    """What one directory says of its image; the strips are known to be inside the file."""

    nx: int
    ny: int
    pixel_format: str
    compression: int


class Directories(tiff._Walk):
    """The chain of directories of a TIFF, seen through a window.

    Parameters
    ----------
    window
        Onto the file.
    name
        Of the file, for messages.

    Raises
    ------
    FormatError
        EMPTY_FILE, TRUNCATED or BAD_HEADER.
    """

    def __init__(self, window: Window, name: str):
        self.path, self.size, self.end = name, window.size, 0
        self._window, self._read = window, 0
        self._at, self._ahead = 0, b""
        if self.size == 0:
            raise self.error("EMPTY_FILE", "0 bytes")
        start = self.read(0, 4, "the TIFF header")
        if not tiff.is_tiff(start):
            raise self.error("BAD_HEADER", f"no TIFF signature: the file starts with {start[:4]!r}")
        self.order = "<" if start[:2] == b"II" else ">"
        self.big = 43 in start[2:4]
        self.word = "Q" if self.big else "I"

    def read(self, offset: int, count: int, what: str) -> bytes:
        """Return a piece of the file."""
        self.reach(offset, count, what)
        self._read += count
        if self._read > MAX_HEADER_BYTES:
            raise self.error("TOO_LARGE", f"directories of more than {MAX_HEADER_BYTES} bytes")
        # The values of a directory stand in it or close by: one access for all of them.
        if not self._at <= offset <= offset + count <= self._at + len(self._ahead):
            length = max(count, min(_AHEAD, self.size - offset))
            self._at, self._ahead = offset, self._window.take(offset, length, what)
        return self._ahead[offset - self._at : offset - self._at + count]

    def chain(self, limit: int) -> Iterator[dict[int, tiff._Entry]]:
        """Yield the entries of each directory up to the end of the chain.

        Parameters
        ----------
        limit
            Largest number of directories.

        Raises
        ------
        FormatError
            TRUNCATED where the chain leaves the file, BAD_HEADER where it loops, TOO_LARGE.
        """
        at, width = (8, 8) if self.big else (4, 4)
        (offset,) = self.unpack(self.word, self.read(at, width, "the TIFF header"))
        if offset == 0:
            raise self.error("TRUNCATED", "no directory yet: the writer has not finished")
        seen: set[int] = set()
        while offset:
            if offset in seen:
                raise self.error("BAD_HEADER", f"the directory chain loops at byte {offset}")
            if len(seen) == limit:
                raise self.error("TOO_LARGE", f"more than {limit} directories")
            seen.add(offset)
            entries, offset = self.directory(offset, f"directory {len(seen)}")
            yield entries

    def frame(self, entries: dict[int, tiff._Entry], what: str) -> Frame:
        """Check one directory's image: size, type, and that every strip is inside the file."""
        nx, ny = self.integer(entries, tiff._WIDTH), self.integer(entries, tiff._LENGTH)
        if nx < 1 or ny < 1:
            raise self.error("BAD_HEADER", f"{what} is {nx} x {ny} px")
        if max(nx, ny) > tiff.MAX_SIDE:
            raise self.error("TOO_LARGE", f"{what} is {nx} x {ny} px")
        rows = min(self.integer(entries, tiff._ROWS, ny), ny)
        if rows < 1:
            raise self.error("BAD_HEADER", f"{what}: {rows} rows per strip")
        if tiff._TILE in entries:
            raise self.error("UNSUPPORTED", f"{what}: tiles instead of strips are not read")
        self.strips(entries, what, -(-ny // rows))
        kind = _FORMATS.get(self.integer(entries, tiff._FORMAT, 1), "other")
        bits = self.integer(entries, tiff._BITS, 1)
        return Frame(nx, ny, f"{kind}{bits}", self.integer(entries, tiff._COMPRESSION, 1))

    def strips(
        self, entries: dict[int, tiff._Entry], what: str, expected: int
    ) -> tuple[tuple[int, int], ...]:
        """Check that all strips are written and inside the file; none is kept."""
        offsets = self.integers(entries, tiff._OFFSETS, expected)
        counts = self.integers(entries, tiff._COUNTS, expected)
        if len(offsets) != expected or len(counts) != expected:
            raise self.error(
                "BAD_HEADER",
                f"{what}: {len(offsets)} offsets and {len(counts)} sizes for {expected} strips",
            )
        if min(offsets) == 0 or min(counts) == 0:
            raise self.error("TRUNCATED", f"{what}: a strip is not written yet")
        self.reach(max(map(add, offsets, counts)), 0, f"the last strip of {what}")
        return ()

    def tag(self, entries: dict[int, tiff._Entry], tag: int) -> bytes:
        """Return the bytes of a text or of bytes without a type; none where there are none."""
        entry = entries.get(tag)
        if entry is None or entry.kind not in (1, 2, 7):
            return b""
        if entry.count > MAX_TAG_BYTES:
            raise self.error("TOO_LARGE", f"tag {tag} has {entry.count} bytes")
        return self.read(entry.at, entry.count, f"tag {tag}")


def incomplete(error: FormatError | Refused, form: str, kind: str) -> Record:
    """Return the record of a file that is cut; any other error is raised as a refusal."""
    if error.code != Code.TRUNCATED:
        raise refusal(error) if isinstance(error, FormatError) else error
    record = Record(format=form, kind=kind)
    record.put("complete", False, "header")
    record.notes.append(f"not complete: {error.detail}")
    return record
