"""What the CTF fit takes and gives."""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from algorithms.ctf import Ctf


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
        Width of the mild preference for no astigmatism; 0 for none. (RELION's 100 A pulls
        1500 A of astigmatism back by 25 A at a signal-to-noise ratio of 0.05.)
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
    astigmatism_tolerance_A: float = 500.0
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
        if not 0.0 < self.min_defocus_A < self.max_defocus_A or self.defocus_step_A <= 0.0:
            raise ValueError(
                f"defocus range {self.min_defocus_A}..{self.max_defocus_A} A in steps of "
                f"{self.defocus_step_A} A: needs 0 < minimum < maximum and a positive step"
            )


@dataclass(frozen=True, kw_only=True)
class CtfFit:
    """The fitted CTF of one micrograph.

    Parameters
    ----------
    defocus_u_A, defocus_v_A, angle_deg, phase_shift_deg
        As in `Ctf`.
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
    score: float
    max_resolution_A: float
    reliable: bool
    doubts: tuple[str, ...]
    significance: float
    profile: dict[str, np.ndarray] = field(repr=False)
    diagnostic: Tensor = field(repr=False)
    optics: Ctf
