"""Puts prep together: Scheme, project, options."""

from typing import Any

from services.kit.host import Source
from services.kit.paths import Layout
from services.kit.schemes import SchemeShell
from services.kit.session import Session
from services.prep.plan import dose_per_frame, gain_of, gain_turns
from services.prep.service import Prep
from services.prep.views import Views

# RELION's words for a gain's turns.
ROTATIONS = ("No rotation (0)", "90 degrees (1)", "180 degrees (2)", "270 degrees (3)")
FLIPS = ("No flipping (0)", "Flip upside down (1)", "Flip left to right (2)")


def build(layout: Layout, session: Session) -> tuple[Prep, Source | None]:
    """Return the prep service of a project."""
    shell: SchemeShell

    def measured(state: Any, node: str) -> dict[str, str]:
        """Show in each job what the microscope recorded with the first movie."""
        first = next(iter(state.imported.values()), None)
        if first is None:
            return {}
        if node == "importmovies":
            return {
                "fn_in_raw": f"{first.link or 'Movies'}/*",
                "angpix": f"{first.pixel_size_A:g}",
                "kV": f"{first.voltage_kV:g}",
                "Cs": f"{first.spherical_aberration_mm:g}",
                "Q0": f"{first.amplitude_contrast:g}",
            }
        if node == "motioncorr":
            options = shell.options(state, node)
            rotation, flip = gain_turns(first, options)
            return {
                "dose_per_frame": f"{dose_per_frame(first, options):g}",
                "fn_gain_ref": gain_of(first, options) or "",
                "gain_rot": ROTATIONS[rotation],
                "gain_flip": FLIPS[flip],
            }
        return {}

    shell = SchemeShell(layout.project, "prep", measured)
    service = Prep(
        shell,
        shell.digest(),
        Views(layout.project),
    )
    return service, None
