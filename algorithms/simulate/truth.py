"""What is true about a simulated session, written beside the data and never inside it.

    <out>_truth/session_truth.json     recipe, seed, camera defects, conventions
    <out>_truth/<stem>.json            one exposure: names, fault, optics, drift, decoys
    <out>_truth/<stem>.npz             its particles
    <out>_truth/particles_truth.star   all particles of all exposures
    <out>_truth/pool/                  rendered movies that are used more than once

Positions are px of the first frame in MRC orientation; displacements are the specimen's, +d.

Source: simulation.md section 6.
"""

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.ctf import Ctf
from algorithms.formats import star
from algorithms.formats.atomic import atomic_write
from algorithms.simulate.scene import Decoy

CONVENTIONS = {
    "position_px": "x, y of the first frame, MRC orientation; TIFF rows are stored upside down",
    "displacement_px": "movement of the specimen since the first frame; a correction is minus it",
    "local_coeff": "x axis then y axis; 1, x, x2, y, y2, xy (-0.5 to 0.5), each times z, z2, z3",
    "angles": "rot, tilt, psi in degrees, RELION's ZYZ",
    "defocus_offset_A": "add to the movie's defocus to get the particle's",
}
_ARRAYS = ("position_px", "height_A", "defocus_offset_A", "rot", "tilt", "psi", "displacement_px")


@dataclass(frozen=True, kw_only=True)
class MovieTruth:
    """One rendered movie; arrays have one entry per particle."""

    index: int
    pixel_size_A: float
    dose_per_frame_e_A2: float
    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    nominal_defocus_A: float
    defocus_u_A: float
    defocus_v_A: float
    defocus_angle_deg: float
    b_factor_A2: float
    ice_thickness_A: float
    particle_diameter_A: float
    global_shift_px: NDArray[np.float64]
    """`[F, 2]` (x, y), displacement of the specimen."""
    local_coeff: NDArray[np.float64]
    """`[2, 18]`."""
    decoys: tuple[Decoy, ...]

    position_px: NDArray[np.float64]
    height_A: NDArray[np.float64]
    defocus_offset_A: NDArray[np.float64]
    rot: NDArray[np.float64]
    tilt: NDArray[np.float64]
    psi: NDArray[np.float64]
    displacement_px: NDArray[np.float64]
    """`[n, F, 2]`."""

    @property
    def ctf(self) -> Ctf:
        """The CTF in the middle of the layer."""
        return Ctf(
            defocus_u_A=self.defocus_u_A,
            defocus_v_A=self.defocus_v_A,
            angle_deg=self.defocus_angle_deg,
            voltage_kV=self.voltage_kV,
            spherical_aberration_mm=self.spherical_aberration_mm,
            amplitude_contrast=self.amplitude_contrast,
        )

    def header(self) -> dict[str, Any]:
        """Everything but the per-particle arrays, as plain values."""
        table = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in _ARRAYS
        }
        table["global_shift_px"] = self.global_shift_px.tolist()
        table["local_coeff"] = self.local_coeff.reshape(-1).tolist()
        table["decoys"] = [dataclasses.asdict(decoy) for decoy in self.decoys]
        return table

    def particles(self) -> dict[str, NDArray[np.float64]]:
        """The per-particle arrays by name."""
        return {name: getattr(self, name) for name in _ARRAYS}


def movie_truth(header: Mapping[str, Any], particles: Mapping[str, Any]) -> MovieTruth:
    """The inverse of `MovieTruth.header` and `MovieTruth.particles`; further keys are ignored."""
    known = {field.name for field in dataclasses.fields(MovieTruth)}
    values = {key: value for key, value in header.items() if key in known}
    values["global_shift_px"] = np.asarray(header["global_shift_px"]).reshape(-1, 2)
    values["local_coeff"] = np.asarray(header["local_coeff"]).reshape(2, 18)
    values["decoys"] = tuple(Decoy(**decoy) for decoy in header["decoys"])
    return MovieTruth(**values, **{name: particles[name] for name in _ARRAYS})


def truth_folder(out: Path) -> Path:
    """Where the truth about the session folder `out` goes."""
    return out.with_name(out.name + "_truth")


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    atomic_write(path, json.dumps(table, indent=1) + "\n", durable=False)


def write_movie_truth(stem: Path, header: Mapping[str, Any], truth: MovieTruth) -> None:
    """Write `<stem>.npz`, then `<stem>.json`: the JSON says that an exposure is complete."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **truth.particles())  # pyright: ignore[reportArgumentType]
    atomic_write(stem.with_name(stem.name + ".npz"), buffer.getvalue(), durable=False)
    write_json(stem.with_name(stem.name + ".json"), {**header, **truth.header()})


def read_movie_truth(stem: Path) -> MovieTruth:
    """Read what `write_movie_truth` wrote for a stem."""
    header = json.loads(stem.with_name(stem.name + ".json").read_text(encoding="utf-8"))
    with np.load(stem.with_name(stem.name + ".npz")) as arrays:
        return movie_truth(header, arrays)


def write_particles_star(path: Path, movies: Mapping[str, MovieTruth]) -> None:
    """Write one row per particle of all movies; `movies` maps micrograph names to truths."""
    truths = list(movies.values())
    names = [name for name, truth in movies.items() for _ in truth.rot]

    def joined(values: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.concatenate(values) if values else np.empty(0)

    columns = {
        "rlnMicrographName": names,
        "rlnCoordinateX": joined([t.position_px[:, 0] for t in truths]),
        "rlnCoordinateY": joined([t.position_px[:, 1] for t in truths]),
        "rlnAngleRot": joined([t.rot for t in truths]),
        "rlnAngleTilt": joined([t.tilt for t in truths]),
        "rlnAnglePsi": joined([t.psi for t in truths]),
        "rlnDefocusU": joined([t.defocus_u_A + t.defocus_offset_A for t in truths]),
        "rlnDefocusV": joined([t.defocus_v_A + t.defocus_offset_A for t in truths]),
        "rlnDefocusAngle": joined([np.full(len(t.rot), t.defocus_angle_deg) for t in truths]),
    }
    star.save(path, {"particles": star.Table.of(columns)}, durable=False)
