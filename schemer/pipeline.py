"""`default_pipeline.star` as tables that are changed row by row; what is not known is kept.

In memory labels are those of RELION 5 whatever the file has: those of 4, or the numbers of 3.1.
Source: schemes.md section 11.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from algorithms.formats import star
from schemer import pipeline31
from schemer.errors import ProjectError
from schemer.jobs.labels import STAR_VERSION, Generation, node_label
from schemer.pipeline31 import STATUSES, Remembered

__all__ = ["STATUSES", "Pipeline", "Remembered"]

_GENERAL = "pipeline_general"
_PROCESSES = "pipeline_processes"
_NODES = "pipeline_nodes"
_INPUTS = "pipeline_input_edges"
_OUTPUTS = "pipeline_output_edges"
_COUNTER = "rlnPipeLineJobCounter"
_PROCESS = "rlnPipeLineProcessName"
_ALIAS = "rlnPipeLineProcessAlias"
_TYPE = "rlnPipeLineProcessTypeLabel"
_STATUS = "rlnPipeLineProcessStatusLabel"
_NODE = "rlnPipeLineNodeName"
_NODE_TYPE = "rlnPipeLineNodeTypeLabel"
_DEPTH = "rlnPipeLineNodeTypeLabelDepth"
_FROM = "rlnPipeLineEdgeFromNode"
_EDGE_PROCESS = "rlnPipeLineEdgeProcess"
_TO = "rlnPipeLineEdgeToNode"
_COLUMNS = {
    _PROCESSES: (_PROCESS, _ALIAS, _TYPE, _STATUS),
    _NODES: (_NODE, _NODE_TYPE),
    _INPUTS: (_FROM, _EDGE_PROCESS),
    _OUTPUTS: (_EDGE_PROCESS, _TO),
}
_RESTORE = "restore it from the copy in the job folder with the highest number"
_VERSION = re.compile(r"^# version +(\d+)", re.MULTILINE)


class Pipeline:
    """The jobs of a project, the files they make, and which job reads which file.

    Parameters
    ----------
    tables
        Blocks of the file, changed in place; none for an empty project.
    source
        Name of the file for messages.
    version
        Of the STAR tables, if known: tells RELION 5's file from one of 4 that is alike.
    remembered
        Labels that a file of RELION 3.1 cannot hold.

    Attributes
    ----------
    generation
        The RELION that the file was written for, None where there is none yet.
    changed
        Whether anything was changed since it was read.
    """

    def __init__(
        self,
        tables: dict[str, star.Table] | None = None,
        source: str = "pipeline",
        *,
        version: int | None = None,
        remembered: Remembered | None = None,
    ):
        self._tables = tables if tables is not None else {}
        self.changed = False
        if _GENERAL not in self._tables:
            if self._tables:
                raise ProjectError(f"{source}: no block data_{_GENERAL}: not a pipeline file")
            self._tables[_GENERAL] = star.Table.of({_COUNTER: 1}, loop=False)
        for block, labels in _COLUMNS.items():
            table = self._tables.setdefault(block, star.Table())
            if len(table) == 0:
                table.columns = {label: [] for label in labels}
        try:
            self.generation: Generation | None = self._to_labels(
                version, remembered or Remembered()
            )
            self._counter = int(self._tables[_GENERAL].strings(_COUNTER)[0])
        except (ValueError, star.StarError) as error:
            raise ProjectError(f"{source}: block data_{_GENERAL}: {error}") from None
        except ProjectError as error:
            raise ProjectError(f"{source}: {error}") from None
        for block, labels in _COLUMNS.items():
            missing = [label for label in labels if label not in self._tables[block].columns]
            if missing:
                raise ProjectError(
                    f"{source}: block data_{block} has no column _{missing[0]}; {_RESTORE}"
                )
        nodes = self._tables[_NODES].columns
        nodes.setdefault(_DEPTH, ["1"] * len(nodes[_NODE]))

    @classmethod
    def load(cls, path: str, remembered: Remembered | None = None) -> "Pipeline":
        """Read a pipeline file; an absent one is that of an empty project."""
        try:
            with open(path, "rb") as file:
                return cls.loads(file.read(), path, remembered)
        except FileNotFoundError:
            return cls(None, path)

    @classmethod
    def loads(cls, content: bytes, source: str, remembered: Remembered | None = None) -> "Pipeline":
        """Read the content of a pipeline file."""
        try:
            text = content.decode()
            version = _VERSION.search(text)
            number = int(version[1]) if version else None
            tables = star.loads(text, source)
        except UnicodeDecodeError as error:
            raise ProjectError(f"{source}: not UTF-8 text: {error}") from None
        except star.StarError as error:
            raise ProjectError(str(error)) from None
        if not tables:  # of a program that died while it wrote: even an empty project has a counter
            raise ProjectError(f"{source}: the file is empty; {_RESTORE}")
        return cls(tables, source, version=number, remembered=remembered)

    def _to_labels(self, version: int | None, remembered: Remembered) -> Generation | None:
        """Bring all labels to those of RELION 5; return which ones the file had."""
        jobs, nodes = self._tables[_PROCESSES], self._tables[_NODES]
        numbers = pipeline31.jobs_to_labels(jobs, _PROCESS, remembered)
        numbers = pipeline31.nodes_to_labels(nodes, _NODE, remembered) or numbers
        if numbers:
            return "3.1"
        types = nodes.columns.get(_NODE_TYPE, [])
        five = [node_label(label, "5.0") for label in types]
        if _NODE_TYPE in nodes.columns:
            nodes.columns[_NODE_TYPE] = five
        if version is None:  # no file, or a writer without version lines
            is_four = five != types and _DEPTH not in nodes.columns
            return "4.0" if is_four else "5.0" if types else remembered.generation
        if version >= STAR_VERSION["5.0"] or _DEPTH in nodes.columns:
            return "5.0"
        empty = len(jobs) == 0 and len(nodes) == 0
        return (empty and remembered.generation) or "4.0"

    def tables(self, generation: Generation = "5.0") -> dict[str, star.Table]:
        """Return the blocks to be written for one generation, rows in RELION's order."""
        nodes = dict(self._tables[_NODES].columns)
        if generation != "5.0":
            nodes.pop(_DEPTH)
        converted = {
            _GENERAL: self._tables[_GENERAL].columns | {_COUNTER: [str(self.counter)]},
            _PROCESSES: self._tables[_PROCESSES].columns,
            _INPUTS: self._by_process(self._tables[_INPUTS].columns),
            _OUTPUTS: self._by_process(self._tables[_OUTPUTS].columns),
        }
        if generation == "3.1":
            converted[_PROCESSES] = pipeline31.jobs_to_numbers(converted[_PROCESSES])
            nodes = pipeline31.nodes_to_numbers(nodes)
        elif generation == "4.0":
            nodes[_NODE_TYPE] = [node_label(label, "4.0") for label in nodes[_NODE_TYPE]]
        converted[_NODES] = nodes
        order = [_GENERAL, *_COLUMNS, *(name for name in self._tables if name not in converted)]
        # An absent block is an empty one to RELION.
        return {
            name: star.Table(converted.get(name, table.columns), table.loop, table.comments)
            for name in order
            if len(table := self._tables[name])
        }

    def remember(self) -> Remembered:
        """Return what RELION 3.1's numbers lose of the labels."""
        jobs = self._tables[_PROCESSES].columns
        labels = dict(zip(jobs[_PROCESS], jobs[_TYPE], strict=True))
        return pipeline31.remember(labels, self.nodes)

    # Reading

    @property
    def counter(self) -> int:
        """Return the number of the next job."""
        return self._counter

    @counter.setter
    def counter(self, number: int) -> None:
        self.changed = self.changed or number != self._counter
        self._counter = number

    @property
    def processes(self) -> dict[str, str]:
        """Return process name -> status."""
        columns = self._tables[_PROCESSES].columns
        return dict(zip(columns[_PROCESS], columns[_STATUS], strict=True))

    @property
    def nodes(self) -> dict[str, str]:
        """Return file -> node label of RELION 5."""
        columns = self._tables[_NODES].columns
        return dict(zip(columns[_NODE], columns[_NODE_TYPE], strict=True))

    @property
    def aliases(self) -> dict[str, str]:
        """Return process name -> alias folder, of the processes that have one."""
        columns = self._tables[_PROCESSES].columns
        pairs = zip(columns[_PROCESS], columns[_ALIAS], strict=True)
        return {process: alias for process, alias in pairs if alias not in ("None", "")}

    def status(self, process: str) -> str | None:
        """Return the status of a process, None if there is no such process."""
        return self._cell(process, _STATUS)

    def label(self, process: str) -> str | None:
        """Return the label of a process, `relion.motioncorr.own`; None without such a process."""
        return self._cell(process, _TYPE)

    def alias(self, process: str) -> str:
        """Return the process's alias folder, or its own name where it has none."""
        alias = self._cell(process, _ALIAS)
        return process if alias in (None, "None", "") else alias

    def node(self, name: str) -> tuple[str, int] | None:
        """Return label and label depth of a file, None if it is not a node."""
        columns = self._tables[_NODES].columns
        if name not in columns[_NODE]:
            return None
        at = columns[_NODE].index(name)
        depth = columns[_DEPTH][at]
        return columns[_NODE_TYPE][at], int(depth) if depth.isdecimal() else 1

    def inputs(self, process: str) -> list[str]:
        """Return the files that the process reads."""
        columns = self._tables[_INPUTS].columns
        pairs = zip(columns[_EDGE_PROCESS], columns[_FROM], strict=True)
        return [name for reader, name in pairs if reader == process]

    def outputs(self, process: str) -> list[str]:
        """Return the files that the process makes."""
        columns = self._tables[_OUTPUTS].columns
        pairs = zip(columns[_EDGE_PROCESS], columns[_TO], strict=True)
        return [name for owner, name in pairs if owner == process]

    def maker(self, name: str) -> str | None:
        """Return the process in whose folder a file lies, None for a file from elsewhere."""
        process = "/".join(name.split("/")[:2]) + "/"
        return process if process in self._tables[_PROCESSES].columns[_PROCESS] else None

    # Changing

    def add_process(self, process: str, label: str) -> None:
        """Add a scheduled process, unless it is there."""
        if self.status(process) is None:
            row = {_PROCESS: process, _ALIAS: "None", _TYPE: label, _STATUS: "Scheduled"}
            self._append(_PROCESSES, row)

    def set_status(self, process: str, status: str) -> None:
        """Change the status in the process's row."""
        self._set_cell(process, _STATUS, status)

    def set_alias(self, process: str, alias: str) -> None:
        """Change the alias folder in the process's row; an empty one takes it away."""
        self._set_cell(process, _ALIAS, alias or "None")

    def add_node(self, name: str, label: str, depth: int = 1) -> str:
        """Add a node unless it is there (it keeps its label); a file of a job is its output.

        Returns its name: a path through an alias is that through the job's own folder.
        """
        name = self._without_alias(name)
        if name not in self._tables[_NODES].columns[_NODE]:
            self._append(_NODES, {_NODE: name, _NODE_TYPE: label, _DEPTH: str(depth)})
            if (owner := self.maker(name)) is not None:
                self._add_edge(_OUTPUTS, {_EDGE_PROCESS: owner, _TO: name})
        return name

    def add_input(self, process: str, name: str, label: str) -> None:
        """Say that the process reads this file."""
        self._add_edge(_INPUTS, {_FROM: self.add_node(name, label), _EDGE_PROCESS: process})

    def add_output(self, process: str, name: str, label: str, depth: int = 1) -> None:
        """Say that the process makes this file."""
        made = self.add_node(name, label, depth)
        self._add_edge(_OUTPUTS, {_EDGE_PROCESS: process, _TO: made})

    def relabel(self, name: str, label: str) -> None:
        """Change the label of a node."""
        columns = self._tables[_NODES].columns
        at = columns[_NODE].index(name)
        self.changed = self.changed or columns[_NODE_TYPE][at] != label
        columns[_NODE_TYPE][at] = label

    def remove_nodes(self, names: Collection[str]) -> None:
        """Take nodes and their edges out, as RELION does with files that were never made."""
        for block, label in ((_NODES, _NODE), (_INPUTS, _FROM), (_OUTPUTS, _TO)):
            table = self._tables[block]
            keep = [at for at, name in enumerate(table.columns[label]) if name not in names]
            if len(keep) < len(table):
                self._tables[block] = _rows(table, keep)
                self.changed = True

    def only(self, process: str) -> "Pipeline":
        """Return a pipeline with this one process, its nodes and edges: `job_pipeline.star`."""
        tables = {_GENERAL: star.Table.of({_COUNTER: 2}, loop=False)}
        for block, label in ((_PROCESSES, _PROCESS), (_INPUTS, _EDGE_PROCESS),
                             (_OUTPUTS, _EDGE_PROCESS)):  # fmt: skip
            table = self._tables[block]
            mine = [at for at, name in enumerate(table.columns[label]) if name == process]
            tables[block] = _rows(table, mine)
        named = {*tables[_INPUTS].columns[_FROM], *tables[_OUTPUTS].columns[_TO]}
        nodes = self._tables[_NODES]
        mine = [at for at, name in enumerate(nodes.columns[_NODE]) if name in named]
        return Pipeline(tables | {_NODES: _rows(nodes, mine)}, version=STAR_VERSION["5.0"])

    def _cell(self, process: str, label: str) -> str | None:
        columns = self._tables[_PROCESSES].columns
        if process not in columns[_PROCESS]:
            return None
        return columns[label][columns[_PROCESS].index(process)]

    def _set_cell(self, process: str, label: str, value: str) -> None:
        columns = self._tables[_PROCESSES].columns
        at = columns[_PROCESS].index(process)
        self.changed = self.changed or columns[label][at] != value
        columns[label][at] = value

    def _without_alias(self, name: str) -> str:
        columns = self._tables[_PROCESSES].columns
        folder = "/".join(name.split("/")[:2]) + "/"
        if folder not in columns[_ALIAS]:
            return name
        return columns[_PROCESS][columns[_ALIAS].index(folder)] + name[len(folder) :]

    def _add_edge(self, block: str, row: Mapping[str, str]) -> None:
        columns = self._tables[block].columns
        if tuple(row.values()) not in zip(*(columns[label] for label in row), strict=True):
            self._append(block, row)

    def _append(self, block: str, row: Mapping[str, str]) -> None:
        """Add a row; columns that only others know stay empty, unknown ones are left out."""
        table = self._tables[block]
        for label, values in table.columns.items():
            values.append(row.get(label, ""))
        table.loop = True  # some writers put a one-row table as a list
        self.changed = True

    def _by_process(self, columns: dict[str, list[str]]) -> dict[str, list[str]]:
        """Return edges in the order of their processes, as every RELION program writes them."""
        rows = {name: at for at, name in enumerate(self._tables[_PROCESSES].columns[_PROCESS])}
        places = [rows.get(process, len(rows)) for process in columns[_EDGE_PROCESS]]
        if places == sorted(places):
            return columns
        order = sorted(range(len(places)), key=places.__getitem__)
        return {label: [values[at] for at in order] for label, values in columns.items()}


def _rows(table: star.Table, at: Iterable[int]) -> star.Table:
    chosen = list(at)
    return star.Table({label: [v[n] for n in chosen] for label, v in table.columns.items()})
