"""Small sessions with a readable exposure, and stand-ins for programs of other people."""

import shutil
import time
from pathlib import Path

import numpy as np
import tifffile

from mdcatch.launch.files import Files
from mdcatch.launch.known import Known, assemble
from mdcatch.launch.newest import Newest
from mdcatch.launch.request import OpenRequest, from_arguments
from mdcatch.parsers.record import Record
from services.kit.sitetables import Camera, Microscope, Site
from tests.epu_tree import FOLDER, image_xml, stem

MOVIE = f"{FOLDER}/{stem()}_fractions.tiff"
WIDTH, HEIGHT, FRAMES = 64, 48, 4
SITE = Site(
    microscopes=(
        Microscope(
            id="3299",
            name="Krios1",
            spherical_aberration_mm=2.7,
            cameras=(Camera(model="K3", epu_id="EF-CCD"),),
        ),
    )
)


def session(folder: Path, **fields) -> Path:
    """Write an EPU session with one exposure of 64 x 48 px at 1 A; return its folder."""
    data = folder / FOLDER
    data.mkdir(parents=True)
    name = stem()
    (data / f"{name}.xml").write_bytes(image_xml(**fields))
    frames = np.random.default_rng(1).poisson(1.0, (FRAMES, HEIGHT, WIDTH)).astype(np.uint8)
    tifffile.imwrite(
        data / f"{name}_fractions.tiff", frames, compression="lzw", photometric="minisblack"
    )
    tifffile.imwrite(data / f"{name}_gain.tiff", np.ones((HEIGHT, WIDTH), np.float32))
    return folder


def request(**fields) -> OpenRequest:
    """Return a request with usual fields."""
    return from_arguments({"raw": "/raw", "project": "/projects/p", **fields})


def record(format="epu_xml", kind="exposure", source="xml", **fields) -> Record:
    """Return a record with these fields."""
    found = Record(format=format, kind=kind)
    for key, value in fields.items():
        found.put(key, value, source)
    return found


K3 = {
    "microscope_id": "3299",
    "voltage_kV": 300.0,
    "pixel_size_A": 0.53,
    "total_dose_e_per_A2": 50.0,
    "detector": "EF-CCD",
    "detector_model": "BioQuantum K3",
    "counting": True,
    "super_resolution_factor": 2,
    "binning": 1,
    "magnification": 81000.0,
    "movie_size_px": (11520, 8184),
}


def known(asked: OpenRequest, movie=MOVIE, frames=50, files=None, **fields) -> Known:
    """Return what is known of a K3 session in super-resolution, no disk looked at."""
    metadata = record(**{**K3, **fields})
    suffix = Path(movie).suffix
    header = record(
        format="eer" if suffix == ".eer" else "tiff",
        kind="movie",
        source="header",
        n_frames=frames,
        movie_size_px=metadata.get("movie_size_px"),
    )
    newest = Newest(Path(asked.raw) / "x.xml", Path(asked.raw) / movie)
    return assemble(asked, SITE, newest, metadata, header, beside=files or Files())


def program(folder: Path, name: str, script: str) -> Path:
    """Write a program of a few shell lines; put `folder` on the PATH to have it found."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def on_path(monkeypatch, folder: Path) -> None:
    """Look for programs in a folder, before the usual ones."""
    import os

    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def wait_for(test, seconds=20.0):
    """Wait until a test is true; fail when it never is."""
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def tree(folder: Path) -> list[str]:
    """Return every path below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def has(name: str) -> bool:
    """Tell whether a program is installed."""
    return shutil.which(name) is not None
