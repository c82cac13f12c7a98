"""proc's side of the RELION project: scheme.star, micrograph, coordinate and particle tables.

All of it is written from the state and never read back. Source: preprocessing.md section 7.
"""

from collections.abc import Sequence
from pathlib import Path

from algorithms.formats import star
from schemer.machine import State
from schemer.scheme import Scheme
from services.kit.schemes import write_scheme
from services.kit.tables import ctf_columns, optics_table, save_table
from services.proc import selecting
from services.proc.particles import Part, ParticlesFile
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

    def tables(self, state: ProcState, *, in_order: bool = False) -> None:
        """Write micrographs.star, autopick.star, summary.star and particles.star.

        Not `in_order`: particles of a micrograph that comes late stand at the end for the moment.
        """
        jobs = state.machine.jobs
        order = state.in_order()
        if jobs["select_mics"].has_started:
            self._selected(state, order, jobs["select_mics"].current_name)
        order = [movie for movie in order if not state.is_left_out(movie)]
        if jobs["autopick"].has_started:
            self._picks(state, order, jobs["autopick"].current_name)
        if jobs["extract"].has_started:
            self._extracted(state, order, jobs["extract"].current_name, in_order=in_order)

    def _selected(self, state: ProcState, order: list[str], process: str) -> None:
        fits = [state.imported[m] for m in order if state.is_kept(m)]
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
        folder = self.project / process
        save_table(folder / "micrographs.star", tables)
        save_table(folder / "micrographs_selected.star", tables)
        # In the order of micrographs_ctf.star, which RELION's selection starts from.
        chosen = [int(state.is_kept(m)) for m in order]
        save_table(folder / "backup_selection.star", {"": star.Table.of({"rlnSelected": chosen})})
        self._quality(state, order, folder)

    def _quality(self, state: ProcState, order: list[str], folder: Path) -> None:
        """Write what is known of every micrograph, chosen or not, and of every grid square."""
        values = {m: selecting.metrics(state.imported[m]) for m in order}
        for movie, picked in state.picked.items():
            values[movie]["rlnGroupNrParticles"] = float(picked.n_particles)
        labels = dict.fromkeys(label for one in values.values() for label in one)
        manual = [state.overrides[m].keep if m in state.overrides else None for m in order]
        quality = {
            "rlnMicrographName": [state.imported[m].micrograph for m in order],
            "rlnSelected": [int(state.is_kept(m)) for m in order],
            "rlnColdstreamManual": ["none" if k is None else str(int(k)) for k in manual],
            "rlnColdstreamGridSquare": [selecting.square_of(m) for m in order],
            "rlnColdstreamRobustZ": selecting.farthest([values[m] for m in order]),
            **{label: [values[m].get(label, -1.0) for m in order] for label in labels},
        }
        intensities = [values[m].get("rlnColdstreamMeanIntensity") for m in order]
        if None not in intensities:
            thickness = selecting.relative_thickness_A([v for v in intensities if v is not None])
            quality["rlnColdstreamRelativeThickness"] = thickness
        found = selecting.squares((selecting.square_of(m), values[m]) for m in order)
        kept = dict.fromkeys(found, 0)
        for movie in order:
            kept[selecting.square_of(movie)] += state.is_kept(movie)
        squares = {
            "rlnColdstreamGridSquare": list(found),
            "rlnColdstreamMicrographs": [int(one["micrographs"]) for one in found.values()],
            "rlnColdstreamSelected": list(kept.values()),
            **{label: [one.get(label, -1.0) for one in found.values()] for label in labels},
        }
        save_table(
            folder / "quality.star",
            {"squares": star.Table.of(squares), "micrographs": star.Table.of(quality)}
            if order
            else {"micrographs": star.Table.of(quality)},
        )

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

    def _extracted(
        self, state: ProcState, order: list[str], process: str, *, in_order: bool
    ) -> None:
        if self._particles is None:
            path = self.project / process / "particles.star"
            self._particles = ParticlesFile(self.project, path)
        movies = [m for m in order if m in state.extracted]
        self._particles.update(*particle_tables(state, movies), in_order=in_order)


def particle_tables(state: ProcState, movies: Sequence[str]) -> tuple[star.Table, list[Part]]:
    """Return the optics table of extracted micrographs, and what their particles are joined of."""
    parts = [state.extracted[m] for m in movies]
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
    return optics, [(p.key, p.metadata_star) for p in parts if p.n_particles]
