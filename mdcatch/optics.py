"""Optics groups while the session runs: numbered by first appearance, never renumbered. Pure.

Exposures of one group share session, voltage, Cs, amplitude contrast, movie pixel, magnification,
detector, slit and phase plate, the acquisition area of the template, and a cluster of beam shifts:
the nearest centre within a threshold, else a new group. A centre is the mean of its members so
far, so the numbering depends on the order of the exposures and on nothing else.

The threshold is half the distance of neighbours that are known to be apart, `spacing.Spread`.

Source: acquisition.md section 2.8 (c), (d).
"""

import math
from typing import NamedTuple

import msgspec

from mdcatch.spacing import Shot
from services.kit.events import MovieSettled, OpticsGrouped

SAME = 1e-4  # relative; calibrations differ by more, repeated text of one value by less
SPARSE = 2.0  # with fewer members per group than this, neighbours may still be split


class Class(NamedTuple):
    """What all exposures of a group have in common but place and beam shift."""

    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    pixel_size_A: float
    magnification: float | None = None
    session: str = ""
    detector: str = ""
    slit: float | None = None  # eV; 0 is a slit that is out
    phase_plate: bool | None = None

    def is_same(self, other: "Class") -> bool:
        """Tell whether two are the same up to the rounding of their texts."""
        if self == other:
            return True
        if self[5:] != other[5:] or (self.magnification is None) != (other.magnification is None):
            return False
        return all(
            math.isclose(a or 1.0, b or 1.0, rel_tol=SAME)
            for a, b in zip(self[:5], other[:5], strict=True)
        )


class OpticsKey(NamedTuple):
    """What tells groups apart."""

    optics: Class
    area: str = ""
    beam_shift: tuple[float, float] | None = None


class Group(msgspec.Struct):
    """One group; the last two fields come from its members."""

    number: int
    name: str
    optics: Class
    area: str = ""
    centre: tuple[float, float] | None = None
    members: int = 0


def class_of(movie: MovieSettled) -> Class:
    """Return the class of a published movie."""
    return Class(
        movie.voltage_kV,
        movie.spherical_aberration_mm,
        movie.amplitude_contrast,
        movie.pixel_size_A,
        movie.magnification,
        movie.session,
        movie.detector,
        slit_of(movie.slit_inserted, movie.slit_width_eV),
        movie.phase_plate,
    )


def slit_of(inserted: bool | None, width_eV: float | None) -> float | None:
    """Return the width of the energy slit, 0 when it is out, None when that is unknown."""
    return 0.0 if inserted is False else width_eV


def shift_of(movie: MovieSettled) -> tuple[float, float] | None:
    """Return the shift that tells groups apart: EPU moves the beam, SerialEM the image."""
    return movie.beam_shift if movie.beam_shift is not None else movie.image_shift


def shot_of(movie: MovieSettled) -> Shot | None:
    """Return where a movie was taken, None when that is not known well enough."""
    shift, stage = shift_of(movie), movie.stage_um
    if shift is None or stage is None or not movie.foil_hole:
        return None
    return Shot(stage[0], stage[1], movie.foil_hole, movie.acquisition_area, shift)


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
    mine = [g for g in groups if g.area == key.area and g.optics.is_same(key.optics)]
    if threshold is None or key.beam_shift is None:
        return mine[0] if mine else None
    distances = [
        (math.dist(group.centre, key.beam_shift), group.number, group)
        for group in mine
        if group.centre is not None
    ]
    if not distances:
        return None
    distance, _, group = min(distances, key=lambda item: item[:2])
    return group if distance <= threshold else None


def opened(
    groups: list[Group], key: OpticsKey, *, provisional: bool = False, mtf_path: str | None = None
) -> OpticsGrouped:
    """Return the event that opens a new group for `key`."""
    number = len(groups) + 1
    return OpticsGrouped(
        optics_group=number,
        name=f"opticsGroup{number}",
        voltage_kV=key.optics.voltage_kV,
        spherical_aberration_mm=key.optics.spherical_aberration_mm,
        amplitude_contrast=key.optics.amplitude_contrast,
        pixel_size_A=key.optics.pixel_size_A,
        session=key.optics.session,
        acquisition_area=key.area,
        provisional=provisional,
        mtf_path=mtf_path,
    )


def add_group(groups: list[Group], event: OpticsGrouped) -> None:
    """Fold: a group was opened."""
    optics = Class(
        event.voltage_kV,
        event.spherical_aberration_mm,
        event.amplitude_contrast,
        event.pixel_size_A,
        session=event.session,
    )
    groups.append(Group(event.optics_group, event.name, optics, event.acquisition_area))


def add_member(groups: list[Group], movie: MovieSettled) -> None:
    """Fold: a movie joined its group; the first member says what and where the group is."""
    group = groups[movie.optics_group - 1]
    group.members += 1
    if group.members == 1:
        group.optics, group.area = class_of(movie), movie.acquisition_area
    shift = shift_of(movie)
    if shift is not None:
        (x, y), weight = group.centre or shift, 1.0 / group.members
        group.centre = (x + weight * (shift[0] - x), y + weight * (shift[1] - y))


def is_sparse(groups: list[Group], key: OpticsKey) -> bool:
    """Tell whether the groups of a class have too few members to be trusted."""
    members = [group.members for group in groups if group.optics.is_same(key.optics)]
    return not members or sum(members) < SPARSE * len(members)
