"""The pipeline `native`: this program's own project and services. Source: architecture.md 9."""

from pathlib import Path
from typing import Any

from mdcatch.launch.known import Known
from mdcatch.launch.request import OpenRequest
from services.kit import session as sessions
from services.kit import site as sites
from services.kit.paths import Layout
from services.kit.sitetables import Site
from services.setup import set_up


def is_session(project: Path) -> bool:
    """Tell whether a folder is a project of ours, which is opened again and not made anew."""
    return Layout(project).session_file.exists()


def fill(project: Path, request: OpenRequest, known: Known, site: Site) -> tuple[str, ...]:
    """Make a project in a folder, or go on with the one that is there; return warnings.

    Raises
    ------
    Misuse
        It belongs to another session, lies on a network file system, or an option does not fit.
    """
    is_new = not is_session(project)
    layout, _ = set_up(
        project, Path(request.raw), _changes(request, known, site), _settings(request)
    )
    if is_new:
        sites.freeze(layout, site)
        # The folder of the sockets is named after the project's path, which is about to change.
        layout.sockets.rmdir()
    return known.warnings


def _changes(request: OpenRequest, known: Known, site: Site) -> dict[str, Any]:
    """Return the fields of the session's file; None leaves what the pipeline does by default."""
    gain = request.gain or known.files.gain
    fields = {
        name: value
        for name, value in sites.session_fields(site).items()
        if name in sessions.Session.__struct_fields__ and name != "settings"
    }
    given = {
        "gain": None if gain is None else str(gain),
        "movies": request.movies,
        "particle_diameter_A": request.particle_diameter_A,
        "pixel_size_A": request.pixel_size_A,
        "voltage_kV": request.voltage_kV,
        "spherical_aberration_mm": request.spherical_aberration_mm,
        "amplitude_contrast": request.amplitude_contrast,
        "dose_e_A2": request.dose_e_A2,
        "workers": request.workers,
    }
    return fields | {name: value for name, value in given.items() if value is not None}


def _settings(request: OpenRequest) -> dict[str, str]:
    symmetry = {
        "proc__inimodel3d__sym_name": request.symmetry,
        "proc__refine3d__sym_name": request.symmetry,
    }
    return symmetry | request.settings
