"""Tables that a job reads and passes on: optics groups and the rows of movies or images.

Columns that a job knows nothing of pass through unchanged. Source: preprocessing.md section 7.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from algorithms.formats import star
from services.jobs.job import Job
from services.kit.errors import Misuse
from services.kit.tables import save_table

GROUP = "rlnOpticsGroup"
PIXEL = "rlnMicrographPixelSize"
ORIGINAL_PIXEL = "rlnMicrographOriginalPixelSize"


class Images:
    """Movies, micrographs or particles as a STAR file lists them.

    Parameters
    ----------
    project
        Root of the RELION project.
    name
        The STAR file, below it.
    blocks
        Names of the block, of which one has to be there.

    Raises
    ------
    Misuse
        The file has no optics groups, or groups that its rows do not know.
    StarError
        It is no STAR file.
    """

    def __init__(self, project: Path, name: str, *blocks: str):
        self.name = name
        tables = star.load(project / name)
        if "optics" not in tables:
            raise Misuse(f"{name} has no block data_optics: convert it with relion_convert_star")
        self.optics = tables["optics"]
        # RELION does not write an empty table at all.
        self.block = next((block for block in blocks if block in tables), blocks[0])
        self.rows = tables.get(self.block, star.Table())
        others = set(tables) - {"optics", self.block}
        if not len(self.rows) and others:
            raise Misuse(f"{name} has no block data_{' or data_'.join(blocks)}, but {others}")
        self._groups: dict[str, dict[str, str]] = {
            number: self.optics.row(i) for i, number in enumerate(self._texts(self.optics, GROUP))
        }
        unknown = set(self.texts(GROUP)) - set(self._groups)
        if unknown:
            raise Misuse(f"{name}: optics group {unknown.pop()} is not in its block data_optics")

    def _texts(self, table: star.Table, label: str) -> list[str]:
        if not len(table):
            return []
        try:
            return table.strings(label)
        except star.StarError as error:
            raise Misuse(f"{self.name}: {error}") from None

    def __len__(self) -> int:
        return len(self.rows)

    def has(self, label: str) -> bool:
        """Return whether the rows have a column."""
        return label in self.rows.columns

    def texts(self, label: str) -> list[str]:
        """Return a column of the rows.

        Raises
        ------
        Misuse
            There is none; the message lists those that there are.
        """
        return self._texts(self.rows, label)

    def floats(self, label: str, default: float | None = None) -> list[float]:
        """Return a column as numbers; `default` in every row when there is none.

        Raises
        ------
        Misuse
            There is none, or it holds something else; the message names the value.
        """
        if default is not None and not self.has(label):
            return [default] * len(self)
        try:
            return [float(text) for text in self.texts(label)]
        except ValueError as error:
            raise Misuse(f"{self.name}: column {label}: {error}") from None

    def optics_floats(self, *labels: str) -> list[float]:
        """Return for each row a number of its optics group: the first label that is there.

        Raises
        ------
        Misuse
            No such column, or it holds something else.
        """
        label = next((one for one in labels if one in self.optics.columns), labels[0])
        self._texts(self.optics, label)
        try:
            groups = {number: float(row[label]) for number, row in self._groups.items()}
        except ValueError as error:
            raise Misuse(f"{self.name}: block data_optics, column {label}: {error}") from None
        return [groups[number] for number in self.texts(GROUP)]

    def keep(self, rows: Iterable[int]) -> star.Table:
        """Return some of the rows, all columns."""
        chosen = list(rows)
        columns = self.rows.columns.items()
        return star.Table({label: [values[i] for i in chosen] for label, values in columns})


def with_columns(
    table: star.Table,
    columns: Mapping[str, Callable[[dict[str, str]], object]],
    *,
    drop: Iterable[str] = (),
) -> star.Table:
    """Return an optics table with more columns, each a function of the row."""
    rows = [table.row(i) for i in range(len(table))]
    kept = {label: values for label, values in table.columns.items() if label not in drop}
    more = {label: [value(row) for row in rows] for label, value in columns.items()}
    return star.Table.of({**kept, **more})


def save(job: Job, name: str, optics: star.Table, block: str, rows: star.Table) -> None:
    """Write a table of images into the job folder, in one step."""
    save_table(job.folder / name, {"optics": optics, block: rows})
