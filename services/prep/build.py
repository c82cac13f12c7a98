"""Puts prep together: Scheme, project, options."""

from typing import Any

from services.kit.host import Source
from services.kit.paths import Layout
from services.kit.schemes import SchemeShell
from services.kit.session import Session
from services.prep.plan import gain_of
from services.prep.service import Prep
from services.prep.views import Views


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
                "fn_in_raw": "Movies/*",
                "angpix": f"{first.pixel_size_A:g}",
                "kV": f"{first.voltage_kV:g}",
                "Cs": f"{first.spherical_aberration_mm:g}",
                "Q0": f"{first.amplitude_contrast:g}",
            }
        if node == "motioncorr":
            options = shell.options(state, node)
            return {
                "dose_per_frame": f"{first.dose_per_frame_e_A2:g}",
                "fn_gain_ref": gain_of(first, options) or "",
            }
        return {}

    shell = SchemeShell(layout.project, "prep", measured)
    service = Prep(
        shell,
        shell.digest(),
        Views(layout.project),
    )
    return service, None
