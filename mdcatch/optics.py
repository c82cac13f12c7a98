"""Optics groups while the session runs: numbered by first appearance, never renumbered. Pure.

Exposures of one group share voltage, Cs, amplitude contrast, movie pixel and magnification, and
either the acquisition area of EPU's template (the default: exact for stage shift, coarse for AFIS)
or a cluster of beam shifts: the nearest centre within a threshold, else a new group. A centre is
the mean of its members so far, so the numbering depends on the order of the exposures and on
nothing else.

Source: acquisition.md section 2.8 (c), (d).
"""

import math
from typing import NamedTuple

import msgspec

from services.kit.events import MovieSettled, OpticsGrouped

SAME = 1e-4  # relative; calibrations differ by more, repeated text of one value by less


class OpticsKey(NamedTuple):
    """What tells groups apart."""

    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    pixel_size_A: float
    magnification: float | None
    area: str
    beam_shift: tuple[float, float] | None


class Group(msgspec.Struct):
    """One group; the last four fields come from its members."""

    number: int
    name: str
    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    pixel_size_A: float
    magnification: float | None = None
    area: str = ""
    centre: tuple[float, float] | None = None
    members: int = 0


def find(groups: list[Group], key: OpticsKey, threshold: float | None) -> Group | None:
    """Return the group an exposure belongs to, or None when it opens a new one.

    Parameters
    ----------
    groups
        All groups, in order of their numbers.
    key
        Facts of the exposure.
    threshold
        Largest distance of a beam shift from a group's centre, in the microscope's unit; None to
        group by acquisition area.
    """
    candidates = [group for group in groups if _same_optics(group, key)]
    if threshold is None or key.beam_shift is None:
        return next((g for g in candidates if g.area == key.area), None)
    distances = [
        (math.dist(group.centre, key.beam_shift), group.number, group)
        for group in candidates
        if group.centre is not None
    ]
    if not distances:
        return None
    distance, _, group = min(distances, key=lambda item: item[:2])
    return group if distance <= threshold else None


def opened(groups: list[Group], key: OpticsKey) -> OpticsGrouped:
    """Return the event that opens a new group for `key`."""
    number = len(groups) + 1
    return OpticsGrouped(
        optics_group=number,
        name=f"opticsGroup{number}",
        voltage_kV=key.voltage_kV,
        spherical_aberration_mm=key.spherical_aberration_mm,
        amplitude_contrast=key.amplitude_contrast,
        pixel_size_A=key.pixel_size_A,
    )


def add_group(groups: list[Group], event: OpticsGrouped) -> None:
    """Fold: a group was opened."""
    groups.append(
        Group(
            number=event.optics_group,
            name=event.name,
            voltage_kV=event.voltage_kV,
            spherical_aberration_mm=event.spherical_aberration_mm,
            amplitude_contrast=event.amplitude_contrast,
            pixel_size_A=event.pixel_size_A,
        )
    )


def add_member(groups: list[Group], movie: MovieSettled) -> None:
    """Fold: a movie joined its group; the first member says where the group is."""
    group = groups[movie.optics_group - 1]
    group.members += 1
    if group.members == 1:
        group.magnification, group.area = movie.magnification, movie.acquisition_area
    if movie.beam_shift is not None:
        (x, y), weight = group.centre or movie.beam_shift, 1.0 / group.members
        dx, dy = movie.beam_shift[0] - x, movie.beam_shift[1] - y
        group.centre = (x + weight * dx, y + weight * dy)


def _same_optics(group: Group, key: OpticsKey) -> bool:
    if (group.magnification is None) != (key.magnification is None):
        return False
    return all(
        math.isclose(a, b, rel_tol=SAME)
        for a, b in (
            (group.pixel_size_A, key.pixel_size_A),
            (group.magnification or 1.0, key.magnification or 1.0),
            (group.voltage_kV, key.voltage_kV),
            (group.spherical_aberration_mm, key.spherical_aberration_mm),
            (group.amplitude_contrast, key.amplitude_contrast),
        )
    )
