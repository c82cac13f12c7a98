"""proc's side of the RELION project: scheme.star, micrograph, coordinate and particle tables.

All of it is written from the state and never read back. Source: preprocessing.md section 7.
"""

from pathlib import Path

from algorithms.formats import star
from schemer.machine import State
from schemer.scheme import Scheme
from services.kit.schemes import write_scheme
from services.kit.tables import ctf_columns, optics_table, save_table
from services.proc.particles import ParticlesFile
from services.proc.state import ProcState


class Views:
    """Writes what RELION reads.

    Parameters
    ----------
    project
        Root of the RELION project.
    """

    def __init__(self, project: Path):
        self.project = project
        self._particles: ParticlesFile | None = None

    def scheme(self, scheme: Scheme, state: State) -> None:
        """Write scheme.star."""
        write_scheme(self.project, scheme, state)

    def tables(self, state: ProcState) -> None:
        """Write micrographs.star, autopick.star, summary.star and particles.star."""
        jobs = state.machine.jobs
        order = state.in_order()
        if jobs["select_mics"].has_started:
            self._selected(state, order, jobs["select_mics"].current_name)
        if jobs["autopick"].has_started:
            self._picks(state, order, jobs["autopick"].current_name)
        if jobs["extract"].has_started:
            self._extracted(state, order, jobs["extract"].current_name)

    def _selected(self, state: ProcState, order: list[str], process: str) -> None:
        fits = [state.imported[m] for m in order if m in state.selected]
        columns = {
            "rlnMicrographName": [f.micrograph for f in fits],
            "rlnOpticsGroup": [f.optics_group for f in fits],
            **ctf_columns(fits),
            "rlnMicrographMetadata": [f.metadata_star for f in fits],
        }
        pixels: dict[int, object] = {g: o.pixel_size_A for g, o in state.optics.items()}
        pixels |= {f.optics_group: f.pixel_size_A for f in state.imported.values()}
        optics = optics_table(state.optics.values(), {"rlnMicrographPixelSize": pixels})
        tables = {"optics": optics, "micrographs": star.Table.of(columns)}
        save_table(self.project / process / "micrographs.star", tables)

    def _picks(self, state: ProcState, order: list[str], process: str) -> None:
        picks = [state.picked[m] for m in order if m in state.picked]
        micrographs = [state.imported[p.movie].micrograph for p in picks]
        files = star.Table.of(
            {
                "rlnMicrographName": micrographs,
                "rlnMicrographCoordinates": [p.coordinates for p in picks],
            }
        )
        summary = star.Table.of(
            {
                "rlnMicrographName": micrographs,
                "rlnAutopickFigureOfMerit": [p.mean_figure_of_merit for p in picks],
                "rlnGroupNrParticles": [p.n_particles for p in picks],
            }
        )
        save_table(self.project / process / "autopick.star", {"coordinate_files": files})
        save_table(self.project / process / "summary.star", {"": summary})

    def _extracted(self, state: ProcState, order: list[str], process: str) -> None:
        if self._particles is None:
            path = self.project / process / "particles.star"
            self._particles = ParticlesFile(self.project, path)
        parts = [state.extracted[m] for m in order if m in state.extracted]
        groups = {state.imported[p.movie].optics_group: p for p in parts}
        used = [o for g, o in state.optics.items() if g in groups]
        optics = optics_table(
            used,
            {
                "rlnImagePixelSize": {g: p.pixel_size_A for g, p in groups.items()},
                "rlnImageSize": {g: p.box_px for g, p in groups.items()},
                "rlnImageDimensionality": dict.fromkeys(groups, 2),
                "rlnCtfDataAreCtfPremultiplied": dict.fromkeys(groups, 0),
            },
        )
        self._particles.update(optics, [(p.key, p.metadata_star) for p in parts if p.n_particles])
