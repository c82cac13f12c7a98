"""What can go wrong, and who has to act.

::

    ColdstreamError
    |-- Refused      the data is at fault: this item is set aside with a code, the rest goes on
    |-- Transient    the surroundings are at fault: tried again, a limited number of times
    |-- Fatal        this process cannot go on safely: it ends, restarts and replays
    |-- Misuse       the command line or the configuration is at fault: told to the person, exit 2
    `-- Bug          an invariant is broken: ends the process, carries the story
"""

from enum import StrEnum


class Code(StrEnum):
    """Why an exposure is refused or waits; one line each in docs/reference/refusals.md."""

    # waiting: the ledger says "pending"
    SETTLING = "SETTLING"
    NO_METADATA = "NO_METADATA"
    NO_MOVIE = "NO_MOVIE"
    UNAVAILABLE = "UNAVAILABLE"
    VANISHED = "VANISHED"
    # refused by mdcatch
    EMPTY_FILE = "EMPTY_FILE"
    TRUNCATED = "TRUNCATED"
    BAD_HEADER = "BAD_HEADER"
    TOO_LARGE = "TOO_LARGE"
    BAD_NAME = "BAD_NAME"
    XML_DTD = "XML_DTD"
    XML_BROKEN = "XML_BROKEN"
    XML_TOO_LARGE = "XML_TOO_LARGE"
    MISSING_FIELD = "MISSING_FIELD"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    GEOMETRY_MISMATCH = "GEOMETRY_MISMATCH"
    DUPLICATE = "DUPLICATE"
    UNSUPPORTED = "UNSUPPORTED"
    IGNORED = "IGNORED"
    # refused by prep or proc
    TOO_FEW_FRAMES = "TOO_FEW_FRAMES"
    GAIN_MISMATCH = "GAIN_MISMATCH"
    NOT_FINITE = "NOT_FINITE"
    READ_ERROR = "READ_ERROR"
    POISON = "POISON"
    CTF_RESOLUTION = "CTF_RESOLUTION"
    REJECTED = "REJECTED"


class ColdstreamError(Exception):
    """Base of everything coldstream raises on purpose."""


class Refused(ColdstreamError):
    """One item is set aside: its data is at fault.

    Parameters
    ----------
    code
        Member of `Code`.
    detail
        One sentence with the file, the field, the value and the remedy.
    """

    def __init__(self, code: Code, detail: str):
        super().__init__(code, detail)
        self.code = Code(code)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class Transient(ColdstreamError):
    """The surroundings failed; the same work is tried again, a limited number of times."""


class Fatal(ColdstreamError):
    """The process cannot go on safely; after a restart it replays its journal."""


class Misuse(ColdstreamError):
    """The command line or configuration is wrong; the message says what to change."""


class Bug(ColdstreamError):
    """An invariant is broken; the message carries the story."""
