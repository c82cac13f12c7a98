"""Which micrographs go on to picking: limits on their values, and what a person has decided.

A value that a micrograph does not have sets no limit.
Source: preprocessing.md sections 6.1 to 6.3, schemes.md section 15.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median, quantiles

from services.kit import limits
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
    "rlnCtfIceRingDensity": lambda ctf: ctf.ice_ring_density,
    "rlnAccumMotionTotal": lambda ctf: ctf.motion_total_px,
    "rlnAccumMotionEarly": lambda ctf: ctf.motion_early_px,
    "rlnAccumMotionLate": lambda ctf: ctf.motion_late_px,
    "rlnColdstreamAstigmatismShare": lambda ctf: (
        2.0 * abs(ctf.defocus_u_A - ctf.defocus_v_A) / max(ctf.defocus_u_A + ctf.defocus_v_A, 1.0)
    ),
    "rlnColdstreamIceRing": lambda ctf: ctf.ice_peak_sigma,
    "rlnColdstreamIciness": lambda ctf: ctf.iciness,
    "rlnColdstreamThickness": lambda ctf: ctf.thickness_A,
    "rlnColdstreamMeanIntensity": lambda ctf: ctf.mean_intensity,
    "rlnColdstreamTiltAngle": lambda ctf: ctf.tilt_angle_deg,
    "rlnColdstreamCtfCrossValidated": lambda ctf: ctf.cross_validated_A,
    "rlnColdstreamCtfReliable": lambda ctf: float(ctf.reliable),
}
# Robust limits, and what an empty hole looks like, need so many micrographs.
FEWEST = 50
# Electrons that an energy filter takes out of the beam have met ice: one in e after so much.
FREE_PATH_A = 3500.0


def limits_of(options: Options) -> list[limits.Limit]:
    """Return the limits of a selection job.

    Raises
    ------
    Misuse
        A label is none of a fitted micrograph's, or an additional argument is not understood.
    """
    found = limits.limits_of(options)
    for limit in found:
        if limit.label not in SELECTABLE:
            raise Misuse(
                f"option select_label or --limit of {options.job} is {limit.label!r}: it must be "
                "one of " + ", ".join(SELECTABLE)
            )
    return found


def why_not(ctf: MicrographCtf, options: Options) -> str | None:
    """Return why a micrograph is not selected, or None when it is."""
    for limit in limits_of(options):
        value = SELECTABLE[limit.label](ctf)
        if value is not None and not limit.holds(value):
            return (
                f"{limit.label} is {value:.4g}, outside {limit.low:g} to {limit.high:g} "
                f"({limit.option} of select_mics)"
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


def relative_thickness_A(intensities: Sequence[float]) -> list[float]:
    """Return how much thicker than the thinnest of a session each micrograph's ice is, in A.

    That is 3500 A times the logarithm of the 98th percentile of the mean intensities over its own
    one; it holds for an energy filter, and tells thick from thin without one. All 0 of too few.

    Source: preprocessing.md section 6.3 (relative ice thickness).
    """
    if len(intensities) < FEWEST or min(intensities) <= 0.0:
        return [0.0] * len(intensities)
    brightest = quantiles(intensities, n=50, method="inclusive")[-1]
    return [FREE_PATH_A * math.log(brightest / value) for value in intensities]


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
