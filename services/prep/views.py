"""prep's side of the RELION project: scheme.star, the movie and micrograph tables, job states.

All of it is written from the state and never read back. Source: preprocessing.md section 7.
"""

from pathlib import Path

from algorithms.formats import star
from schemer.machine import State
from schemer.scheme import Scheme
from services.kit.events import MicrographCorrected
from services.kit.schemes import write_scheme
from services.kit.tables import ctf_columns, optics_table, save_table
from services.prep.plan import movie_path
from services.prep.state import PrepState


class Views:
    """Writes what RELION reads.

    Parameters
    ----------
    project
        Root of the RELION project.
    """

    def __init__(self, project: Path):
        self.project = project

    def scheme(self, scheme: Scheme, state: State) -> None:
        """Write scheme.star."""
        write_scheme(self.project, scheme, state)

    def tables(self, state: PrepState) -> None:
        """Write movies.star, corrected_micrographs.star and micrographs_ctf.star."""
        jobs = state.machine.jobs
        order = state.in_order()
        if jobs["importmovies"].has_started:
            self._movies(state, order, jobs["importmovies"].current_name)
        if jobs["motioncorr"].has_started:
            self._corrected(state, order, jobs["motioncorr"].current_name)
        if jobs["ctffind"].has_started:
            self._ctf(state, order, jobs["ctffind"].current_name)

    def _movies(self, state: PrepState, order: list[str], process: str) -> None:
        movies = [state.imported[m] for m in order]
        table = star.Table.of(
            {
                "rlnMicrographMovieName": [movie_path(m) for m in movies],
                "rlnOpticsGroup": [m.optics_group for m in movies],
            }
        )
        optics = optics_table(state.optics.values())
        save_table(self.project / process / "movies.star", {"optics": optics, "movies": table})

    def _corrected(self, state: PrepState, order: list[str], process: str) -> None:
        movies = [m for m in order if m in state.corrected]
        rows = [state.corrected[m] for m in movies]
        columns = {
            "rlnCtfPowerSpectrum": [r.power_spectrum for r in rows],
            "rlnMicrographName": [r.micrograph for r in rows],
            **_motion_columns(rows),
            "rlnOpticsGroup": [state.imported[m].optics_group for m in movies],
        }
        if rows and all(r.micrograph_even and r.micrograph_odd for r in rows):
            halves = {
                "rlnMicrographNameEven": [r.micrograph_even for r in rows],
                "rlnMicrographNameOdd": [r.micrograph_odd for r in rows],
            }
            columns = {**halves, **columns}
        if rows and all(r.micrograph_nodw for r in rows):
            columns = {"rlnMicrographNameNoDW": [r.micrograph_nodw for r in rows], **columns}
        self._save(state, process, "corrected_micrographs.star", columns)

    def _ctf(self, state: PrepState, order: list[str], process: str) -> None:
        fits = [state.ctf[m] for m in order if m in state.ctf]
        rows = [state.corrected[f.movie] for f in fits]
        columns = {
            "rlnMicrographName": [f.micrograph for f in fits],
            "rlnOpticsGroup": [f.optics_group for f in fits],
            **ctf_columns(fits),
            "rlnCtfPowerSpectrum": [r.power_spectrum for r in rows],
            **_motion_columns(rows),
        }
        if fits and all(f.micrograph_nodw for f in fits):
            columns = {"rlnMicrographNameNoDW": [f.micrograph_nodw for f in fits], **columns}
        self._save(state, process, "micrographs_ctf.star", columns)

    def _save(self, state: PrepState, process: str, name: str, columns: dict) -> None:
        pixels = {g: o.pixel_size_A for g, o in state.optics.items()}
        for movie, row in state.corrected.items():
            pixels[state.imported[movie].optics_group] = row.pixel_size_A
        optics = optics_table(state.optics.values(), {"rlnMicrographPixelSize": pixels})
        tables = {"optics": optics, "micrographs": star.Table.of(columns)}
        save_table(self.project / process / name, tables)


def _motion_columns(rows: list[MicrographCorrected]) -> dict[str, list]:
    return {
        "rlnMicrographMetadata": [r.metadata_star for r in rows],
        "rlnAccumMotionTotal": [r.motion_total_px for r in rows],
        "rlnAccumMotionEarly": [r.motion_early_px for r in rows],
        "rlnAccumMotionLate": [r.motion_late_px for r in rows],
    }
