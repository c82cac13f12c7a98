"""What a session was set up with: one file, written once by the command line, read by services."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from services.kit.errors import Misuse
from services.kit.paths import Layout, atomic_write


class Session(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one session; every field can be changed by starting again with another."""

    name: str
    raw: str  # absolute path of the watched folder
    movies: str | None = None  # absolute path of the movies, when they are not below `raw`
    gain: str | None = None
    particle_diameter_A: Annotated[float, Meta(gt=0, le=100_000)] | None = None
    settle_s: Annotated[float, Meta(ge=0, le=3600)] = 2.0
    poll_s: Annotated[float, Meta(gt=0, le=600)] = 0.5
    stuck_s: Annotated[float, Meta(ge=0, le=1e6)] = 900.0
    metadata_wait_s: Annotated[float, Meta(ge=0, le=1e6)] = 60.0
    pixel_size_A: Annotated[float, Meta(gt=0, le=100)] | None = None
    voltage_kV: Annotated[float, Meta(ge=10, le=1500)] | None = None
    spherical_aberration_mm: Annotated[float, Meta(ge=0, le=20)] | None = None
    amplitude_contrast: Annotated[float, Meta(ge=0, le=1)] = 0.1
    dose_e_A2: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    workers: Annotated[int, Meta(ge=1, le=1024)] = 1
    worker_memory: str = "auto"
    scheduler: str | None = None
    close_when_idle: bool = False
    classify: bool = True  # carry out 2D classification
    refine: bool = True  # make maps of the particles; needs the classification
    settings: dict[str, str] = {}  # prep__motioncorr__bin_factor = "2", as in relion_it


def default_workers() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def save(layout: Layout, session: Session) -> None:
    """Write the session file."""
    atomic_write(layout.session_file, msgspec.json.format(msgspec.json.encode(session)))


def load(layout: Layout) -> Session:
    """Return the session of a project.

    Raises
    ------
    Misuse
        There is none, or the file is not valid; the message names the field.
    """
    try:
        return msgspec.json.decode(layout.session_file.read_bytes(), type=Session)
    except FileNotFoundError:
        raise Misuse(
            f"{layout.project} has no coldstream session; start one with "
            "`coldstream up --project P --raw FOLDER`"
        ) from None
    except msgspec.MsgspecError as error:
        raise Misuse(f"{layout.session_file}: {error}") from error


def check_raw(raw: Path, project: Path, option: str = "--raw") -> Path:
    """Return an absolute folder of raw data; refuse what cannot be one.

    Raises
    ------
    Misuse
        It is missing, not a folder, the file system's root, or inside the project.
    """
    raw = raw.absolute()
    if not raw.is_dir():
        raise Misuse(f"{option} {raw} is not a folder: give the folder of the session")
    if raw == Path("/"):
        raise Misuse(f"{option} / would watch the whole machine: give the folder of the session")
    if raw.resolve().is_relative_to(project.resolve()) or project.resolve() == raw.resolve():
        raise Misuse(f"{option} {raw} lies inside the project {project}: keep them apart")
    return raw


def scheme_settings(session: Session) -> dict[str, str]:
    """Return the settings of a session's Schemes, in relion_it's form."""
    settings: dict[str, str] = {}
    diameter = session.particle_diameter_A
    if diameter is not None:
        # relion_it's rules: shortest over longest diameter 0.83, mask 1.1 times the diameter.
        settings |= {
            "proc__autopick__log_diam_min": f"{diameter / 1.2:g}",
            "proc__autopick__log_diam_max": f"{diameter:g}",
            "proc__class2d__particle_diameter": f"{1.1 * diameter:g}",
            "proc__inimodel3d__particle_diameter": f"{1.1 * diameter:g}",
            "proc__refine3d__particle_diameter": f"{1.1 * diameter:g}",
        }
    settings |= session.settings
    return {**_for_refine(settings), **settings}


# What the Scheme refine has of RELION's proc, by the beginning of its key.
_THREE_D = ("inimodel3d__", "refine3d__", "min_nr_parts_3d", "iniref")


def _for_refine(settings: Mapping[str, str]) -> dict[str, str]:
    """Return what RELION's keys, those of the Scheme proc, mean for the Scheme refine."""
    found = {}
    for key, value in settings.items():
        scheme, _, name = key.partition("__")
        if scheme == "proc" and name.startswith(_THREE_D):
            found[f"refine__{name}"] = value
    return found
