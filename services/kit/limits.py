"""Limits of a selection: one label with its bounds, as options tell them.

RELION's job has one such limit (`select_label`, `select_minval`, `select_maxval`). Further ones
stand in its additional arguments, for coldstream alone: `--limit rlnCtfAstigmatism:0:1000`, as
often as wanted. Both bounds are included. Source: preprocessing.md section 6.1.
"""

from typing import NamedTuple

from services.kit.errors import Misuse
from services.kit.options import Options


class Limit(NamedTuple):
    """Bounds of one value, both included, and the option that says so."""

    label: str
    low: float
    high: float
    option: str

    def holds(self, value: float) -> bool:
        """Return whether a value is within the bounds."""
        return self.low <= value <= self.high


def limits_of(options: Options) -> list[Limit]:
    """Return the limits of a selection job, RELION's own one first.

    Raises
    ------
    Misuse
        An additional argument is not understood.
    """
    label = options.text("select_label", "rlnCtfMaxResolution").removeprefix("_")
    low, high = options.number("select_minval", -9999.0), options.number("select_maxval", 9999.0)
    found = [Limit(label, low, high, "select_minval and select_maxval")]
    words = options.text("other_args").split()
    while words:
        name = words.pop(0)
        parts = words.pop(0).split(":") if words else []
        try:
            if name != "--limit" or len(parts) != 3:
                raise ValueError
            bounds = float(parts[1]), float(parts[2])
        except ValueError:
            raise Misuse(
                f"option other_args of {options.job} holds {' '.join([name, ':'.join(parts)])!r}: "
                "coldstream takes --limit LABEL:LOW:HIGH, such as --limit rlnCtfAstigmatism:0:1000"
            ) from None
        found.append(Limit(parts[0].removeprefix("_"), *bounds, "--limit"))
    return found
