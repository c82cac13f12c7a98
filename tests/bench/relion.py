"""RELION's programs as peers, on the same files; a program that is not installed is left out."""

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from algorithms.formats import star
from tests.bench.data import DIAMETER_A, recipe
from tests.system.sessions import environment

MOTION, PICK, EXTRACT = "relion_run_motioncorr", "relion_autopick", "relion_preprocess"


def missing(*programs: str) -> str:
    """Return a note about the programs that are not installed; empty when all are."""
    absent = [program for program in programs if shutil.which(program) is None]
    return f"No peer: {', '.join(absent)} not installed." if absent else ""


def version() -> str:
    """Return "RELION 3.1.3"."""
    done = subprocess.run(
        [MOTION, "--version"], capture_output=True, text=True, check=False, env=environment()
    )
    words = done.stdout.split()
    numbers = [word for word in words if word[:1].isdigit()]
    return f"RELION {numbers[0].rstrip(',')}" if numbers else "RELION"


def run(commands: Sequence[Sequence[str]], folder: Path) -> float:
    """Run commands side by side; return the seconds until the last has ended.

    Raises
    ------
    RuntimeError
        One of them failed.
    """
    begun = time.monotonic()
    with open(folder / "peer.log", "ab") as log:
        running = [
            subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
            )
            for command in commands
        ]
        codes = [process.wait() for process in running]
    if any(codes):
        tail = (folder / "peer.log").read_text(errors="replace")[-1500:]
        raise RuntimeError(f"{commands[0][0]} ended with {codes}:\n{tail}")
    return time.monotonic() - begun


def _optics(label: str) -> star.Table:
    values = recipe(1)
    return star.Table.of(
        {
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnOpticsGroup": [1],
            label: [values.pixel_size_A],
            "rlnMicrographOriginalPixelSize": [values.pixel_size_A],
            "rlnVoltage": [values.voltage_kV],
            "rlnSphericalAberration": [values.spherical_aberration_mm],
            "rlnAmplitudeContrast": [values.amplitude_contrast],
        }
    )


def movies_star(path: Path, movies: Sequence[str]) -> Path:
    """Write the table of movies to correct."""
    columns = {"rlnMicrographMovieName": movies, "rlnOpticsGroup": [1] * len(movies)}
    optics = _optics("rlnMicrographOriginalPixelSize")
    star.save(path, {"optics": optics, "movies": star.Table.of(columns)}, durable=False)
    return path


def micrographs_star(path: Path, micrographs: Sequence[str]) -> Path:
    """Write the table of micrographs to pick in."""
    columns = {"rlnMicrographName": micrographs, "rlnOpticsGroup": [1] * len(micrographs)}
    optics = _optics("rlnMicrographPixelSize")
    star.save(path, {"optics": optics, "micrographs": star.Table.of(columns)}, durable=False)
    return path


def motion(
    movies: Path, out: str, gain: Path | str, *, threads: int = 1, save_nodw: bool = True
) -> list[str]:
    """Return the command that corrects movies as prep does: patches, dose-weighted, spectrum.

    With more than one thread RELION 3.1 needs several times the processor time for small movies.
    """
    values = recipe(1)
    bfactor = 100.0 / values.pixel_size_A**2
    command = [MOTION, "--i", str(movies), "--o", out, "--use_own", "--j"]
    command += [str(threads), "--patch_x", "5", "--patch_y", "5", "--bfactor", f"{bfactor:g}"]
    command += ["--dose_weighting", "--dose_per_frame", f"{values.dose_per_frame_e_A2:g}"]
    command += ["--preexposure", "0"]
    command += ["--gainref", str(gain)] if gain else []
    command += ["--save_noDW"] if save_nodw else []
    return [*command, "--grouping_for_ps", str(round(4.0 / values.dose_per_frame_e_A2))]


def pick(micrographs: Path, out: str) -> list[str]:
    """Return the command that picks as proc does."""
    command = [PICK, "--i", str(micrographs), "--odir", out, "--pickname", "autopick", "--LoG"]
    command += ["--LoG_diam_min", f"{DIAMETER_A / 1.2:g}", "--LoG_diam_max", f"{DIAMETER_A:g}"]
    return [*command, "--shrink", "0", "--lowpass", "20", "--LoG_adjust_threshold", "0"]


def extract(micrographs: Path, picks: str, out: str) -> list[str]:
    """Return the command that extracts as proc does."""
    from algorithms.boxes import box_sizes

    sizes = box_sizes(recipe(1).pixel_size_A, DIAMETER_A)
    command = [EXTRACT, "--i", str(micrographs), "--coord_dir", picks]
    command += ["--coord_suffix", "_autopick.star", "--part_star", f"{out}particles.star"]
    command += ["--part_dir", out, "--extract", "--extract_size", str(sizes.box_px)]
    command += ["--scale", str(sizes.scaled_px), "--norm", "--bg_radius", str(sizes.bg_radius_px)]
    return [*command, "--white_dust", "-1", "--black_dust", "-1", "--invert_contrast"]


def shares(items: Sequence[str], count: int) -> list[list[str]]:
    """Deal items out to `count` processes."""
    return [list(items[first::count]) for first in range(count)]
