"""`default_pipeline.star` as tables that are changed row by row; what is not known is kept.

Source: schemes.md section 11.
"""

from collections.abc import Iterator, Mapping

from algorithms.formats import star
from schemer.errors import ProjectError
from schemer.jobs import Generation, node_label

STATUSES = ("Running", "Scheduled", "Succeeded", "Failed", "Aborted")  # RELION dies of others

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


class Pipeline:
    """The jobs of a project, the files they make, and which job reads which file.

    Parameters
    ----------
    tables
        Blocks of the file, changed in place; none for an empty project.
    source
        Name of the file for messages.
    """

    def __init__(self, tables: dict[str, star.Table] | None = None, source: str = "pipeline"):
        self._tables = tables if tables is not None else {}
        if _GENERAL not in self._tables:
            if self._tables:
                raise ProjectError(f"{source}: no block data_{_GENERAL}: not a pipeline file")
            self._tables[_GENERAL] = star.Table.of({_COUNTER: 1}, loop=False)
        for block, labels in _COLUMNS.items():
            table = self._tables.setdefault(block, star.Table())
            if len(table) == 0:
                table.columns = {label: [] for label in labels}
            missing = [label for label in labels if label not in table.columns]
            if missing:
                raise ProjectError(
                    f"{source}: block data_{block} has no column _{missing[0]}; a project of "
                    "RELION 3.1 must be opened once with RELION 4 or 5, which converts it"
                )
        try:
            self.counter = int(self._tables[_GENERAL].strings(_COUNTER)[0])
        except (ValueError, star.StarError) as error:
            raise ProjectError(f"{source}: block data_{_GENERAL}: {error}") from None

    @classmethod
    def load(cls, path: str) -> "Pipeline":
        """Read a pipeline file; an absent one is that of an empty project."""
        try:
            return cls(star.load(path), path)
        except FileNotFoundError:
            return cls(None, path)
        except star.StarError as error:
            raise ProjectError(str(error)) from None

    def tables(self, generation: Generation) -> dict[str, star.Table]:
        """Return the blocks to be written, in RELION's order, node labels of `generation`."""
        self._tables[_GENERAL].columns[_COUNTER] = [str(self.counter)]
        nodes = self._tables[_NODES].columns
        nodes[_NODE_TYPE] = [node_label(label, generation) for label in nodes[_NODE_TYPE]]
        if generation == "4.0":
            nodes.pop(_DEPTH, None)
        else:
            nodes.setdefault(_DEPTH, ["1"] * len(nodes[_NODE]))
        order = [_GENERAL, *_COLUMNS, *(name for name in self._tables if name not in _COLUMNS)]
        # An absent block is an empty one to RELION.
        return {name: self._tables[name] for name in order if len(self._tables[name])}

    @property
    def processes(self) -> dict[str, str]:
        """Return process name -> status."""
        columns = self._tables[_PROCESSES].columns
        return dict(zip(columns[_PROCESS], columns[_STATUS], strict=True))

    @property
    def nodes(self) -> dict[str, str]:
        """Return file -> node label."""
        columns = self._tables[_NODES].columns
        return dict(zip(columns[_NODE], columns[_NODE_TYPE], strict=True))

    def alias(self, process: str) -> str:
        """Return the process's alias folder, or its own name where it has none."""
        columns = self._tables[_PROCESSES].columns
        alias = columns[_ALIAS][columns[_PROCESS].index(process)]
        return process if alias in ("None", "") else alias

    def add_process(self, process: str, label: str) -> None:
        """Add a scheduled process, unless it is there."""
        if process not in self.processes:
            row = {_PROCESS: process, _ALIAS: "None", _TYPE: label, _STATUS: "Scheduled"}
            _append(self._tables[_PROCESSES], row)

    def set_status(self, process: str, status: str) -> None:
        """Change the status in the process's row."""
        columns = self._tables[_PROCESSES].columns
        columns[_STATUS][columns[_PROCESS].index(process)] = status

    def add_node(self, name: str, label: str) -> None:
        """Add a node unless it is there (it keeps its label); a file of a job is its output."""
        if name in self.nodes:
            return
        _append(self._tables[_NODES], {_NODE: name, _NODE_TYPE: label, _DEPTH: "1"})
        owner = next((one for one in self.processes if name.startswith(one)), None)
        if owner is not None:
            self._add_edge(_OUTPUTS, {_EDGE_PROCESS: owner, _TO: name})

    def add_input(self, process: str, name: str, label: str) -> None:
        """Say that the process reads this file."""
        self.add_node(name, label)
        self._add_edge(_INPUTS, {_FROM: name, _EDGE_PROCESS: process})

    def add_output(self, process: str, name: str, label: str) -> None:
        """Say that the process makes this file."""
        self.add_node(name, label)
        self._add_edge(_OUTPUTS, {_EDGE_PROCESS: process, _TO: name})

    def outputs(self, process: str) -> list[str]:
        """Return the files that the process makes."""
        columns = self._tables[_OUTPUTS].columns
        pairs = zip(columns[_EDGE_PROCESS], columns[_TO], strict=True)
        return [name for owner, name in pairs if owner == process]

    def only(self, process: str) -> "Pipeline":
        """Return a pipeline with this one process, its nodes and edges: `job_pipeline.star`."""
        keep = {
            _PROCESSES: lambda row: row[_PROCESS] == process,
            _INPUTS: lambda row: row[_EDGE_PROCESS] == process,
            _OUTPUTS: lambda row: row[_EDGE_PROCESS] == process,
        }
        tables = {block: _where(self._tables[block], test) for block, test in keep.items()}
        named = {*tables[_INPUTS].columns[_FROM], *tables[_OUTPUTS].columns[_TO]}
        tables[_NODES] = _where(self._tables[_NODES], lambda row: row[_NODE] in named)
        tables[_GENERAL] = star.Table.of({_COUNTER: 2}, loop=False)
        return Pipeline(tables)

    def _add_edge(self, block: str, row: Mapping[str, str]) -> None:
        table = self._tables[block]
        pairs = zip(*(table.columns[label] for label in row), strict=True)
        if tuple(row.values()) not in pairs:
            _append(table, row)


def _rows(table: star.Table) -> Iterator[dict[str, str]]:
    return (table.row(index) for index in range(len(table)))


def _append(table: star.Table, row: Mapping[str, str]) -> None:
    """Add a row; columns that only others know stay empty, ones the table lacks are left out."""
    for label, values in table.columns.items():
        values.append(row.get(label, ""))
    table.loop = True  # some writers put a one-row table as a list


def _where(table: star.Table, test) -> star.Table:
    rows = [row for row in _rows(table) if test(row)]
    return star.Table({label: [row[label] for row in rows] for label in table.columns})
