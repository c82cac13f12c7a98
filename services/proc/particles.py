"""particles.star in time proportional to what is new.

Rows are kept by the extraction, one STAR file per micrograph. Joined they can be hundreds of
megabytes, so the joined file is copied as a whole by the kernel and the new rows are appended to
the copy, which then replaces it. Anything else than new rows at the end joins all files again.
Source: preprocessing.md 5.3.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from algorithms.formats import star

LABELS = (
    "rlnCoordinateX rlnCoordinateY rlnAutopickFigureOfMerit rlnClassNumber rlnAnglePsi "
    "rlnImageName rlnMicrographName rlnOpticsGroup rlnCtfMaxResolution rlnCtfFigureOfMerit "
    "rlnDefocusU rlnDefocusV rlnDefocusAngle rlnCtfBfactor rlnCtfScalefactor rlnPhaseShift "
    "rlnOriginXAngst rlnOriginYAngst"
).split()


class ParticlesFile:
    """Keeps one joined particles.star up to date.

    Parameters
    ----------
    project
        Root of the RELION project.
    path
        The joined file.
    """

    def __init__(self, project: Path, path: Path):
        self._project, self._path = project, path
        self._head = ""
        self._joined: list[tuple[str, str]] = []

    def update(self, optics: star.Table, parts: Sequence[tuple[str, str]]) -> None:
        """Bring the file in line with `parts`: (content key, per-micrograph STAR), in order."""
        head = _head(optics)
        wanted = list(parts)
        known = len(self._joined)
        if head == self._head and wanted == self._joined and self._path.exists():
            return
        grows = head == self._head and known and wanted[:known] == self._joined
        new = self._path.with_name(f".{self._path.name}.tmp")
        if grows and self._path.exists():
            shutil.copyfile(self._path, new)
        else:
            known = 0
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(head)
        with open(new, "a") as file:
            for _, part in wanted[known:]:
                file.writelines(_rows(self._project / part))
        os.replace(new, self._path)
        self._head, self._joined = head, wanted


def _head(optics: star.Table) -> str:
    labels = "".join(f"_{label} #{i} \n" for i, label in enumerate(LABELS, 1))
    return (
        star.dumps({"optics": optics}).rstrip()
        + f"\n \n\n# version 50001\n\ndata_particles\n\nloop_ \n{labels}"
    )


def _rows(path: Path) -> list[str]:
    """Return the row lines of a per-micrograph file; none when it has no particles."""
    lines = path.read_text().splitlines(keepends=True)
    first = max((i for i, line in enumerate(lines) if line.startswith("_rln")), default=None)
    if first is None:
        return []
    return [line for line in lines[first + 1 :] if line.strip()]
