"""The two text files beside a fit, in the form that CTFFIND users and RELION's plots know.

Source: preprocessing.md section 3.7.
"""

import math

import numpy as np

from algorithms.ctffit.types import CtfFit

_COLUMNS = (
    "micrograph number",
    "defocus 1, defocus 2 (A)",
    "azimuth of astigmatism (degrees)",
    "additional phase shift (radians)",
    "cross-correlation",
    "fitted to (A)",
)
_ROWS = ("s", "rotational", "epa", "model", "frc", "frc_sigma")


def avrot_text(fit: CtfFit, source: str) -> str:
    """Return `<root>_PS_avrot.txt`: five comment lines, then the six 1-D profiles as rows.

    Parameters
    ----------
    fit
        The fit.
    source
        Name of the spectrum that was fitted.
    """
    comments = (
        "# 1-D profiles of the CTF fit by coldstream",
        f"# Input: {source}; number of micrographs: 1",
        f"# Voltage {fit.optics.voltage_kV:g} kV; spherical aberration "
        f"{fit.optics.spherical_aberration_mm:g} mm; amplitude contrast "
        f"{fit.optics.amplitude_contrast:g}",
        f"# Defocus {fit.defocus_u_A:.1f} {fit.defocus_v_A:.1f} A at {fit.angle_deg:.2f} degrees",
        "# Rows: frequency (1/A); rotational average; equiphase average; |CTF|; "
        "cross-correlation; 2/sqrt(window)",
    )
    rows = (" ".join(f"{v:.6g}" for v in np.asarray(fit.profile[name])) for name in _ROWS)
    return "\n".join((*comments, *rows)) + "\n"


def summary_text(fit: CtfFit, source: str) -> str:
    """Return `<root>_PS.txt`: comments, then the numbers of the fit in CTFFIND's order.

    Parameters
    ----------
    fit, source
        As for `avrot_text`.
    """
    extra = _extra(fit)
    comments = (
        "# CTF fit by coldstream",
        f"# Input: {source}",
        # RELION finds this line by its words and reads the numbers by their places in it.
        f"# Pixel size: {fit.pixel_size_A:.3f} Angstroms ; acceleration voltage: "
        f"{fit.optics.voltage_kV:.1f} keV ; spherical aberration: "
        f"{fit.optics.spherical_aberration_mm:.2f} mm ; amplitude contrast: "
        f"{fit.optics.amplitude_contrast:.2f}",
        "# Columns: " + "; ".join((*_COLUMNS, *(name for name, _ in extra))),
    )
    numbers = (
        f"1.000000 {fit.defocus_u_A:.6f} {fit.defocus_v_A:.6f} {fit.angle_deg:.6f} "
        f"{math.radians(fit.phase_shift_deg):.6f} {fit.score:.6f} {fit.max_resolution_A:.6f}"
    )
    return "\n".join((*comments, " ".join((numbers, *(text for _, text in extra))))) + "\n"


def _extra(fit: CtfFit) -> list[tuple[str, str]]:
    """Name and text of the columns of tilt and thickness, where they were fitted."""
    if fit.tilt is None and fit.thickness_A is None:
        return []
    axis, angle = (0.0, 0.0) if fit.tilt is None else (fit.tilt.axis_deg, fit.tilt.angle_deg)
    return [
        ("tilt axis (degrees)", f"{axis:.6f}"),
        ("tilt angle (degrees)", f"{angle:.6f}"),
        ("thickness (A)", f"{fit.thickness_A or 0.0:.6f}"),
    ]
