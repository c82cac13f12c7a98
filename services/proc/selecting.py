"""Which micrographs go on to picking: limits on their values, and what a person has decided.

The limit of the job's own options is RELION's. Further ones stand in its additional arguments, for
the native executor and a live session alone: `--limit rlnCtfAstigmatism:0:1000`, as often as
wanted. Both bounds are included. A value that a micrograph does not have sets no limit.
Source: preprocessing.md sections 6.1 to 6.3, schemes.md section 15.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from services.kit.errors import Misuse
from services.kit.events import MicrographCtf
from services.kit.options import Options

# What can be selected on: RELION's label -> value of a fitted micrograph, None where it has none.
SELECTABLE: Mapping[str, Callable[[MicrographCtf], float | None]] = {
    "rlnCtfMaxResolution": lambda ctf: ctf.max_resolution_A,
    "rlnCtfFigureOfMerit": lambda ctf: ctf.figure_of_merit,
    "rlnDefocusU": lambda ctf: ctf.defocus_u_A,
    "rlnDefocusV": lambda ctf: ctf.defocus_v_A,
    "rlnCtfAstigmatism": lambda ctf: abs(ctf.defocus_u_A - ctf.defocus_v_A),
    "rlnPhaseShift": lambda ctf: ctf.phase_shift_deg,
    "rlnCtfIceRingDensity": lambda ctf: getattr(ctf, "ice_ring_density", None),
    "rlnColdstreamIceRing": lambda ctf: getattr(ctf, "ice_ring", None),
    "rlnColdstreamThickness": lambda ctf: getattr(ctf, "thickness_A", None),
    "rlnAccumMotionTotal": lambda ctf: getattr(ctf, "motion_total_A", None),
    "rlnAccumMotionEarly": lambda ctf: getattr(ctf, "motion_early_A", None),
    "rlnAccumMotionLate": lambda ctf: getattr(ctf, "motion_late_A", None),
    "rlnColdstreamCtfReliable": lambda ctf: float(ctf.reliable),
}
# Robust limits need so many micrographs.
FEWEST = 50


class Limit(NamedTuple):
    """Bounds of one value, both included."""

    label: str
    low: float
    high: float


def limits_of(options: Options) -> list[Limit]:
    """Return the limits of a selection job.

    Raises
    ------
    Misuse
        A label is none of a fitted micrograph's, or an additional argument is not understood.
    """
    label = options.text("select_label", "rlnCtfMaxResolution").removeprefix("_")
    low, high = options.number("select_minval", -9999.0), options.number("select_maxval", 99999.0)
    found = [Limit(label, low, high)]
    words = options.text("other_args").split()
    while words:
        name = words.pop(0)
        parts = words.pop(0).split(":") if words else []
        try:
            if name != "--limit" or len(parts) != 3:
                raise ValueError
            found.append(Limit(parts[0].removeprefix("_"), float(parts[1]), float(parts[2])))
        except ValueError:
            raise Misuse(
                f"option other_args of {options.job} holds {' '.join([name, ':'.join(parts)])!r}: "
                "a live session takes --limit LABEL:LOW:HIGH, such as "
                "--limit rlnCtfAstigmatism:0:1000"
            ) from None
    for limit in found:
        if limit.label not in SELECTABLE:
            raise Misuse(
                f"option select_label or --limit of {options.job} is {limit.label!r}: it must be "
                "one of " + ", ".join(SELECTABLE)
            )
    return found


def why_not(ctf: MicrographCtf, options: Options) -> str | None:
    """Return why a micrograph is not selected, or None when it is."""
    for label, low, high in limits_of(options):
        value = SELECTABLE[label](ctf)
        if value is not None and not low <= value <= high:
            return (
                f"{label} is {value:.4g}, outside {low:g} to {high:g} (select_minval and "
                "select_maxval of select_mics)"
            )
    return None


def metrics(ctf: MicrographCtf) -> dict[str, float]:
    """Return the values of a micrograph by RELION's labels, those that it has."""
    found = {label: value(ctf) for label, value in SELECTABLE.items()}
    return {label: float(value) for label, value in found.items() if value is not None}


def robust_z(values: Iterable[float]) -> list[float]:
    """Return how many robust deviations each value is from the median; 0 of too few.

    Source: preprocessing.md section 6.1 (adaptive mode: median and 1.4826 MAD).
    """
    given = list(values)
    if len(given) < FEWEST:
        return [0.0] * len(given)
    centre = median(given)
    spread = 1.4826 * median(abs(value - centre) for value in given)
    return [(value - centre) / spread if spread else 0.0 for value in given]


def farthest(micrographs: Sequence[Mapping[str, float]]) -> list[float]:
    """Return for each micrograph how far the most unusual of its values is, in robust deviations.

    Beyond 4 it differs from the others of the session, whatever the limits are.
    """
    found = [0.0] * len(micrographs)
    for label in dict.fromkeys(label for values in micrographs for label in values):
        members = [i for i, values in enumerate(micrographs) if label in values]
        deviations = robust_z(micrographs[i][label] for i in members)
        for i, z in zip(members, deviations, strict=True):
            found[i] = max(found[i], abs(z))
    return found


def squares(micrographs: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the number of micrographs and the median of each value, by grid square.

    Parameters
    ----------
    micrographs
        (grid square, values) of each.
    """
    by_square: dict[str, list[Mapping[str, float]]] = {}
    for square, values in micrographs:
        by_square.setdefault(square, []).append(values)
    found = {}
    for square, members in sorted(by_square.items()):
        labels = dict.fromkeys(label for values in members for label in values)
        medians = {
            label: median(values[label] for values in members if label in values)
            for label in labels
        }
        found[square] = {"micrographs": float(len(members)), **medians}
    return found


def square_of(movie: str) -> str:
    """Return the grid square of a movie: EPU's folder `GridSquare_N`, else its own folder."""
    parts = movie.split("/")
    named = [part for part in parts[:-1] if part.startswith("GridSquare_")]
    return named[-1] if named else "/".join(parts[:-1]) or "."
