"""The numbers of a session as columns: one row per movie that was complete, as acquired."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from services.kit.events import (
    MicrographCorrected,
    MicrographCtf,
    MicrographImported,
    MovieImported,
    MovieSettled,
    ParticlesExtracted,
    ParticlesPicked,
)
from services.report.facts import Story

# Defocus of a fitted micrograph and motion of a movie come in A, in um where people think in um.
UNITS: Mapping[str, str] = {
    "total_A": "motion, total (Å)",
    "early_A": "motion, first 4 e/Å² (Å)",
    "late_A": "motion, later (Å)",
    "local_A": "patches from the local model (Å rms)",
    "defocus_um": "underfocus (µm)",
    "defocus_u_um": "underfocus U (µm)",
    "defocus_v_um": "underfocus V (µm)",
    "astigmatism_A": "astigmatism (Å)",
    "fit_A": "CTF fit resolution (Å)",
    "merit": "CTF figure of merit",
    "phase_deg": "phase shift (°)",
    "ice_peak": "ice ring (standard errors)",
    "iciness": "iciness",
    "ice_ring": "ice ring density",
    "thickness_A": "thickness (Å)",
    "intensity": "mean intensity",
    "tilt_deg": "tilt (°)",
    "picks": "picks",
    "neighbour_A": "nearest neighbour (Å)",
    "particles": "particles",
}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Columns of all movies that were complete, in the order of acquisition.

    Parameters
    ----------
    told
        Their stories `[n]`.
    acquired
        Seconds since 1970, by the microscope's clock where it wrote it `[n]`.
    columns
        Name (see `UNITS`) -> values `[n]`, not-a-number where there is none.
    is_refused
        Set aside by prep or proc `[n]`.
    """

    told: Sequence[Story]
    acquired: np.ndarray
    columns: Mapping[str, np.ndarray]
    is_refused: np.ndarray

    def __len__(self) -> int:
        """Return the number of movies."""
        return len(self.told)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column."""
        return self.columns[name]

    def has(self, name: str) -> bool:
        """Say whether any movie has a value in a column."""
        return bool(np.isfinite(self.columns[name]).any())


def rows_of(told: Sequence[Story]) -> Rows:
    """Return the numbers of a session."""
    known = [(_acquired(story), story) for story in told if described(story) is not None]
    known.sort(key=lambda pair: (pair[0], pair[1].movie))
    ordered = [story for _, story in known]
    table = np.asarray([_values(story) for story in ordered], dtype=float)
    table = table.reshape(len(ordered), len(UNITS))
    return Rows(
        told=ordered,
        acquired=np.asarray([at for at, _ in known], dtype=float),
        columns={name: table[:, index] for index, name in enumerate(UNITS)},
        is_refused=np.asarray(
            [any(story.state(room) == "refused" for room in ("prep", "proc")) for story in ordered],
            dtype=bool,
        ),
    )


def movie_pixel_A(story: Story) -> float:
    """Return the pixel of the movie, in which motion is counted."""
    settled, fitted = described(story), fit_of(story)
    if settled is not None:
        return settled.pixel_size_A
    if fitted is not None:
        return fitted.original_pixel_size_A
    body = story.get(MicrographCorrected)
    return body.pixel_size_A if body is not None else 1.0


def fit_of(story: Story) -> MicrographCtf | None:
    """Return the CTF of a micrograph, from prep's journal or as proc took it over."""
    found = story.get(MicrographCtf)
    if found is None and (taken := story.get(MicrographImported)) is not None:
        return taken.ctf
    return found


def described(story: Story) -> MovieSettled | None:
    """Return what a movie is, from mdcatch's journal or as prep took it over."""
    found = story.get(MovieSettled)
    if found is None and (taken := story.get(MovieImported)) is not None:
        return taken.settled
    return found


def _acquired(story: Story) -> float:
    body = described(story)
    if body is None:
        return 0.0
    try:
        return datetime.fromisoformat(body.acquired_at).timestamp()
    except ValueError:
        return body.mtime_ns / 1e9


def _values(story: Story) -> list[float]:
    nan = float("nan")
    found = dict.fromkeys(UNITS, nan)
    pixel_A = movie_pixel_A(story)
    if (moved := story.get(MicrographCorrected)) is not None:
        found["total_A"] = moved.motion_total_px * pixel_A
        found["early_A"] = moved.motion_early_px * pixel_A
        found["late_A"] = moved.motion_late_px * pixel_A
        if moved.local_rmsd_px is not None:
            found["local_A"] = moved.local_rmsd_px * pixel_A
    if (ctf := fit_of(story)) is not None:
        found |= _of_ctf(ctf)
    if (picked := story.get(ParticlesPicked)) is not None:
        found["picks"] = picked.n_particles
        found["neighbour_A"] = picked.nearest_neighbour_A or nan
    if (extracted := story.get(ParticlesExtracted)) is not None:
        found["particles"] = extracted.n_particles
    return list(found.values())


def _of_ctf(ctf: MicrographCtf) -> dict[str, float]:
    u_um, v_um = ctf.defocus_u_A / 1e4, ctf.defocus_v_A / 1e4
    measured = {
        "ice_peak": ctf.ice_peak_sigma,
        "iciness": ctf.iciness,
        "ice_ring": ctf.ice_ring_density,
        "thickness_A": ctf.thickness_A,
        "tilt_deg": ctf.tilt_angle_deg,
        "intensity": ctf.mean_intensity,
    }
    return {
        "defocus_um": (u_um + v_um) / 2,
        "defocus_u_um": u_um,
        "defocus_v_um": v_um,
        "astigmatism_A": abs(ctf.defocus_u_A - ctf.defocus_v_A),
        "fit_A": ctf.max_resolution_A,
        "merit": ctf.figure_of_merit,
        "phase_deg": ctf.phase_shift_deg,
        **{name: value for name, value in measured.items() if value is not None},
    }
