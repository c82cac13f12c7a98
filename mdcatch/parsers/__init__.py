"""Foreign metadata: bytes in, records with units, bounds and sources out."""

from mdcatch.parsers.detect import parse
from mdcatch.parsers.record import Field, Record

__all__ = ["Field", "Record", "parse"]
