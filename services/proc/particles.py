"""particles.star in time proportional to what is new.

Rows are kept by the extraction, one STAR file per micrograph. Joined they can be hundreds of
megabytes, so what stands is not written again: two files take turns. The one that is not shown
gets the rows that it lacks, and takes the place of the other in one step; so a reader never opens
half a table, and each row is written twice in all. Anything else than new rows at the end, such
as a new optics group, joins all files again.
Source: preprocessing.md 5.3.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from algorithms.formats import star

LABELS = (
    "rlnCoordinateX rlnCoordinateY rlnAutopickFigureOfMerit rlnClassNumber rlnAnglePsi "
    "rlnImageName rlnMicrographName rlnOpticsGroup rlnCtfMaxResolution rlnCtfFigureOfMerit "
    "rlnDefocusU rlnDefocusV rlnDefocusAngle rlnCtfBfactor rlnCtfScalefactor rlnPhaseShift "
    "rlnOriginXAngst rlnOriginYAngst"
).split()

Part = tuple[str, str]  # content key, per-micrograph STAR below the project


class ParticlesFile:
    """Keeps one joined particles.star up to date.

    Parameters
    ----------
    project
        Root of the RELION project.
    path
        The joined file.
    labels
        Columns of the per-micrograph files, the same in each of them.
    """

    def __init__(self, project: Path, path: Path, labels: Sequence[str] = tuple(LABELS)):
        self._project, self._path, self._labels = project, path, tuple(labels)
        self._twin = path.with_name(f".{path.name}.twin")
        self._head = ""
        self._joined: list[Part] = []
        # Rows that the twin has, None as long as there is no twin.
        self._in_twin: int | None = None
        self._shown: tuple[int, int, int] | None = None

    def update(self, optics: star.Table, parts: Sequence[Part], *, in_order: bool = True) -> None:
        """Bring the file in line with `parts`.

        Not `in_order`: parts that come late may stand behind those that they precede, until the
        file is joined anew.
        """
        head, wanted = self._head_of(optics), list(parts)
        is_ours = self._is_ours()
        if not in_order and is_ours and head == self._head:
            wanted = self._with_new_ones(wanted)
        known = len(self._joined)
        if is_ours and head == self._head and wanted == self._joined:
            return
        grows = is_ours and head == self._head and known and wanted[:known] == self._joined
        if grows:
            self._append(wanted)
        else:
            self._join(head, wanted)
        self._head, self._joined = head, wanted
        self._shown = _identity(self._path)

    def _with_new_ones(self, parts: list[Part]) -> list[Part]:
        """Return the parts that are joined, then the others; as given if one is gone."""
        joined = set(self._joined)
        if not joined <= set(parts):
            return parts
        return [*self._joined, *(part for part in parts if part not in joined)]

    def _is_ours(self) -> bool:
        """Say whether the file is there and is the one that was shown last."""
        return self._shown is not None and _identity(self._path) == self._shown

    def _join(self, head: str, wanted: Sequence[Part]) -> None:
        """Write everything."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._twin.unlink(missing_ok=True)
        self._in_twin = None
        new = self._path.with_name(f".{self._path.name}.tmp")
        new.unlink(missing_ok=True)
        with open(new, "w") as file:
            file.write(head)
            for _, part in wanted:
                file.writelines(_rows(self._project / part))
        os.replace(new, self._path)

    def _append(self, wanted: Sequence[Part]) -> None:
        """Bring the twin up to date and show it; what was shown becomes the twin."""
        if self._in_twin is None:
            shutil.copyfile(self._path, self._twin)
            self._in_twin = len(self._joined)
        with open(self._twin, "a") as file:
            for _, part in wanted[self._in_twin :]:
                file.writelines(_rows(self._project / part))
        shown = self._path.with_name(f".{self._path.name}.tmp")
        shown.unlink(missing_ok=True)
        keeps = False
        with suppress(OSError):  # a file system without hard links: the next update copies again
            os.link(self._path, shown)
            keeps = True
        os.replace(self._twin, self._path)
        if keeps:
            os.replace(shown, self._twin)
        self._in_twin = len(self._joined) if keeps else None

    def _head_of(self, optics: star.Table) -> str:
        labels = "".join(f"_{label} #{i} \n" for i, label in enumerate(self._labels, 1))
        return (
            star.dumps({"optics": optics}).rstrip()
            + f"\n \n\n# version 50001\n\ndata_particles\n\nloop_ \n{labels}"
        )


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a file from another one, and from itself when somebody writes into it."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _rows(path: Path) -> list[str]:
    """Return the row lines of a per-micrograph file; none when it has no particles."""
    lines = path.read_text().splitlines(keepends=True)
    first = max((i for i, line in enumerate(lines) if line.startswith("_rln")), default=None)
    if first is None:
        return []
    return [line for line in lines[first + 1 :] if line.strip()]
