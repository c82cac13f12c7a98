"""What a foreign file may hold: caps on its size and shape, and numbers with bounds.

Source: reliability.md section 2.11.
"""

import math
import re
from typing import NamedTuple

from services.kit.errors import Code, Refused

# An EPU image XML has 12-30 KB, 400 elements and depth 8; the caps leave a hundredfold margin and
# still bound the memory of one parse to some tens of megabytes.
MAX_XML_BYTES = 4 * 2**20
MAX_XML_DEPTH = 64
MAX_XML_ELEMENTS = 50_000
MAX_XML_TEXT = 64 * 2**10
# The .dm files list every hole of a square, every square of an atlas: 2.3 MB and 40,000 elements
# for 570 holes. A tree at these caps takes about 170 MB.
MAX_DM_BYTES = 16 * 2**20
MAX_DM_ELEMENTS = 300_000

# float() alone would also take "1_000", "infinity" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:[eE][+-]?\d{1,9})?", re.A)


class Bounds(NamedTuple):
    """Smallest and largest value that makes physical sense, in `unit`."""

    low: float
    high: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g} {self.unit}".rstrip()


def number(field: str, text: str, bounds: Bounds, scale: float = 1.0) -> float:
    """Return `text` x `scale`, a finite number within `bounds`.

    Parameters
    ----------
    field
        Name for the message.
    text
        What the file says, in the file's unit.
    bounds
        In the unit after scaling.
    scale
        Factor from the file's unit to ours.

    Raises
    ------
    Refused
        OUT_OF_RANGE, naming the field, the value and the bounds.
    """
    if _NUMBER.fullmatch(text):
        value = float(text) * scale
        if math.isfinite(value) and bounds.low <= value <= bounds.high:
            return value
    raise Refused(
        Code.OUT_OF_RANGE,
        f"{field} is {text[:40]!r} in the file; it must be {bounds} (x {scale:g})"
        if scale != 1.0
        else f"{field} is {text[:40]!r} in the file; it must be {bounds}",
    )


def integer(field: str, text: str, bounds: Bounds) -> int:
    """Return `text` as a whole number within `bounds`; see `number`."""
    value = number(field, text, bounds)
    if not value.is_integer():
        raise Refused(Code.OUT_OF_RANGE, f"{field} is {text[:40]!r}; it must be a whole number")
    return int(value)
