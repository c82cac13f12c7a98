"""How far apart beam shifts of different groups are, learned from the exposures themselves. Pure.

With aberration-free image shift the beam goes to several holes from one stage position. Exposures
from one stage position through different holes, or through one hole at different areas of the
template, are apart for certain; the distance to the nearest such neighbour is that of the lattice.
A member is nearer to its group's centre than a third of that.

Source: acquisition.md section 2.8 (a).
"""

import math
from typing import NamedTuple

import msgspec

STAGE_UM = 0.2  # read-outs of one stage position differ by less, neighbouring holes by more
STAGES = 8  # stage positions that are remembered: a template does not change within these
SHOTS = 400  # of one stage position that are remembered
ENOUGH = 12  # exposures with a neighbour before their distances are believed
SHARE = 1 / 3  # of the spacing: jitter of the shifts is up to a tenth of it


class Shot(NamedTuple):
    """One exposure: stage position in um, hole and area, beam shift in the microscope's unit."""

    x_um: float
    y_um: float
    hole: str
    area: str
    shift: tuple[float, float]


class Neighbour(msgspec.Struct):
    """An exposure and the distance to the nearest one that is known to be apart."""

    hole: str
    area: str
    shift: tuple[float, float]
    in_area: float | None = None  # through another hole, of the same area
    in_hole: float | None = None  # of another area


class Stage(msgspec.Struct):
    """A stage position and what was taken there."""

    x_um: float
    y_um: float
    shots: list[Neighbour] = []


class Spread(msgspec.Struct):
    """The stage positions of late, the newest last."""

    stages: list[Stage] = []

    def add(self, shot: Shot) -> None:
        """Take an exposure in."""
        stage = self._stage(shot)
        new = Neighbour(shot.hole, shot.area, shot.shift)
        for other in stage.shots:
            if (other.hole, other.area) == (new.hole, new.area):
                continue  # taken twice: the same place
            distance = math.dist(other.shift, new.shift)
            for one in (new, other):
                if other.area == new.area:
                    one.in_area = _nearer(one.in_area, distance)
                else:
                    one.in_hole = _nearer(one.in_hole, distance)
        stage.shots.append(new)
        del stage.shots[:-SHOTS]

    def spacing(self) -> float | None:
        """Return the distance of neighbouring groups; None when too few are known to be apart."""
        shots = [shot for stage in self.stages for shot in stage.shots]
        # Groups never mix areas, so holes decide; areas only as long as there is one hole.
        in_area = sorted(shot.in_area for shot in shots if shot.in_area)
        found = in_area or sorted(shot.in_hole for shot in shots if shot.in_hole)
        # At the edge of what has been taken so far the nearest neighbour is not the nearest hole.
        return found[len(found) // 4] if len(found) >= ENOUGH else None

    def _stage(self, shot: Shot) -> Stage:
        for number, stage in enumerate(self.stages):
            if math.dist((stage.x_um, stage.y_um), (shot.x_um, shot.y_um)) <= STAGE_UM:
                self.stages.append(self.stages.pop(number))
                return stage
        stage = Stage(shot.x_um, shot.y_um)
        self.stages.append(stage)
        del self.stages[:-STAGES]
        return stage


def threshold(spread: Spread, guess: float | None) -> float | None:
    """Return how far from its group's centre a member may be.

    Parameters
    ----------
    spread
        What was learned.
    guess
        Used until enough was learned.
    """
    spacing = spread.spacing()
    return guess if spacing is None else SHARE * spacing


def _nearer(before: float | None, distance: float) -> float | None:
    """Return the smaller distance; 0 tells nothing, for one shift cannot be apart from itself."""
    if not distance:
        return before
    return distance if before is None else min(before, distance)
