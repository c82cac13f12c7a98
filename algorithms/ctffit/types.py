"""What the CTF fit takes and gives."""

import math
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from algorithms.ctf import Ctf
from algorithms.ctffit.ice import Ice


@dataclass(frozen=True, kw_only=True)
class CtfFitOptions:
    """How to fit; lengths in A, angles in degrees.

    Parameters
    ----------
    voltage_kV, spherical_aberration_mm, amplitude_contrast
        Of the microscope.
    min_resolution_A, max_resolution_A
        Low- and high-resolution end of the fitted band.
    min_defocus_A, max_defocus_A, defocus_step_A
        Range and step of the exhaustive search; widened once if the best value is at its end.
    astigmatism_tolerance_A
        Width of the preference for no astigmatism, and of CTFFIND's penalty in the score; 0 for
        none. The preference is a Cauchy density: what is well measured is not pulled.
    exhaustive_astigmatism
        Whether the search tries astigmatism up to 10000 A instead of 2800 A everywhere.
    find_thickness, find_tilt
        Whether to fit the thickness of the ice, and the tilt (that needs the image).
    find_phase_shift, min_phase_shift_deg, max_phase_shift_deg, phase_shift_step_deg
        Search of the phase shift of a phase plate.
    """

    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    min_resolution_A: float = 30.0
    max_resolution_A: float = 5.0
    min_defocus_A: float = 5000.0
    max_defocus_A: float = 50000.0
    defocus_step_A: float = 50.0
    astigmatism_tolerance_A: float = 100.0
    exhaustive_astigmatism: bool = False
    find_thickness: bool = False
    find_tilt: bool = False
    find_phase_shift: bool = False
    min_phase_shift_deg: float = 0.0
    max_phase_shift_deg: float = 180.0
    phase_shift_step_deg: float = 5.0

    def __post_init__(self) -> None:
        if not 0.0 < self.max_resolution_A < self.min_resolution_A:
            raise ValueError(
                f"max_resolution_A is {self.max_resolution_A} and min_resolution_A "
                f"{self.min_resolution_A}: the first must be smaller, both positive"
            )
        low, high = self.min_phase_shift_deg, self.max_phase_shift_deg
        if self.find_phase_shift and not (low < high and self.phase_shift_step_deg > 0.0):
            raise ValueError(
                f"phase shift range {low}..{high} degrees in steps of "
                f"{self.phase_shift_step_deg}: needs minimum < maximum and a positive step"
            )
        if not 0.0 < self.min_defocus_A < self.max_defocus_A or self.defocus_step_A <= 0.0:
            raise ValueError(
                f"defocus range {self.min_defocus_A}..{self.max_defocus_A} A in steps of "
                f"{self.defocus_step_A} A: needs 0 < minimum < maximum and a positive step"
            )


@dataclass(frozen=True, kw_only=True)
class Tilt:
    """A plane of the defocus over the micrograph.

    Parameters
    ----------
    gradient_x, gradient_y
        Change of the mean defocus in A per A along x and y (y up the array).
    width_A, height_A
        Of the micrograph; in its middle the defocus is that of the fit.
    log_odds
        Over a micrograph without tilt: below 10 nothing proves that there is one.
    """

    gradient_x: float
    gradient_y: float
    width_A: float
    height_A: float
    log_odds: float

    @property
    def angle_deg(self) -> float:
        """Tilt angle, 0 to 90 degrees."""
        return math.degrees(math.atan(math.hypot(self.gradient_x, self.gradient_y)))

    @property
    def axis_deg(self) -> float:
        """Direction of the tilt axis from +x towards +y, 0 to 360 degrees.

        The defocus grows to the left of it.
        """
        return math.degrees(math.atan2(-self.gradient_x, self.gradient_y)) % 360.0

    def defocus_change_A(self, x_A: float, y_A: float) -> float:
        """Defocus at a place, in A from the corner of the array, less that in the middle."""
        across, up = x_A - 0.5 * self.width_A, y_A - 0.5 * self.height_A
        return self.gradient_x * across + self.gradient_y * up

    def change_from_middle_A(self, x_A: Tensor, y_A: Tensor) -> Tensor:
        """Defocus at places in A from the middle, less that in the middle."""
        return self.gradient_x * x_A + self.gradient_y * y_A


@dataclass(frozen=True, kw_only=True)
class CtfFit:
    """The fitted CTF of one micrograph.

    Parameters
    ----------
    defocus_u_A, defocus_v_A, angle_deg, phase_shift_deg
        As in `Ctf`.
    pixel_size_A
        Of the spectrum that was fitted.
    score
        Correlation of the spectrum with |CTF| over the fitted band (`rlnCtfFigureOfMerit`).
    max_resolution_A
        To where the rings follow the model (`rlnCtfMaxResolution`).
    reliable
        Whether there are no `doubts`.
    doubts
        Reasons against the fit: `noise` (rings do not stand out), `score` (CTFFIND's score below
        0.02), `range` (defocus outside or at the end of the range asked for), `overfocus`.
    significance
        Height of the match above what noise gives, in its standard deviations.
    cross_validated_A
        To where a fit to every second sector of the spectrum describes the other sectors.
    aliasing_A
        Where the rings become too narrow for the box; None where they do not.
    ice
        Measures of ice.
    thickness_A
        Of the ice; None where it was not asked for or the rings do not tell.
    tilt
        Plane of the defocus; None where it was not asked for.
    profile
        1-D arrays of one length: `s` (1/A), `rotational` average, `epa` (equiphase average),
        `model` |CTF|, `frc` (their sliding correlation), `frc_sigma`.
    diagnostic
        float32 `[N, N]` picture of spectrum and fit.
    optics
        The fit as a `Ctf`.
    """

    defocus_u_A: float
    defocus_v_A: float
    angle_deg: float
    phase_shift_deg: float
    pixel_size_A: float
    score: float
    max_resolution_A: float
    reliable: bool
    doubts: tuple[str, ...]
    significance: float
    cross_validated_A: float
    aliasing_A: float | None
    ice: Ice
    thickness_A: float | None = None
    tilt: Tilt | None = None
    profile: dict[str, np.ndarray] = field(repr=False)
    diagnostic: Tensor = field(repr=False)
    optics: Ctf
