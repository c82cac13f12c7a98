"""The particles of a classification, joined where they are read and not where they are counted.

proc writes which micrographs take part, in order: a short file. The process that classifies joins
their tables: with thousands of micrographs that takes seconds, and proc has other things to do.
"""

from pathlib import Path

import msgspec

from algorithms.formats import star
from services.kit.paths import atomic_write
from services.proc.particles import Part, ParticlesFile

TABLE = ".coldstream/particles.star"
PARTS = ".coldstream/parts.json"


class Parts(msgspec.Struct, frozen=True):
    """What the table is joined of: the optics block as text, and files in their order."""

    optics: str
    parts: list[Part]


def ask(folder: Path, optics: star.Table, parts: list[Part]) -> None:
    """Tell the process of a job which particles its table is to have."""
    told = Parts(star.dumps({"optics": optics}), parts)
    atomic_write(folder / PARTS, msgspec.json.encode(told), durable=False)


class Gatherer:
    """Keeps the table of a job in line with what was asked for.

    Parameters
    ----------
    project
        Root of the RELION project.
    folder
        Of the job; one for which nothing was asked is left alone.
    """

    def __init__(self, project: Path, folder: Path):
        self._file = folder / PARTS
        self._table = ParticlesFile(project, folder / TABLE)
        self._seen = b""

    def update(self) -> None:
        """Join what is asked for and not there yet."""
        if not self._file.exists():
            return
        content = self._file.read_bytes()
        if content == self._seen:
            return
        asked = msgspec.json.decode(content, type=Parts)
        self._table.update(star.loads(asked.optics)["optics"], asked.parts)
        self._seen = content
