"""`scheme.star`: text of a Scheme and back, in RELION's block and row order.

Source: schemes.md section 2.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from algorithms.formats import star
from schemer import check
from schemer.errors import SchemeError, at
from schemer.scheme import (
    UNDEFINED,
    Block,
    BoolVariable,
    Edge,
    FloatVariable,
    JobRow,
    Operator,
    Scheme,
    StringVariable,
    parse_bool,
)
from schemer.state import State

_VARIABLES = (("floats", "Float"), ("bools", "Boolean"), ("strings", "String"))
_OPERATOR_LABELS = ("Name", "Type", "Output", "Input1", "Input2")
_JOB_LABELS = ("NameOriginal", "Name", "Mode", "HasStarted")
_EDGE_LABELS = (
    "InputNodeName",
    "OutputNodeName",
    "IsFork",
    "OutputNodeNameIfTrue",
    "BooleanVariable",
)
_BLOCKS = ("general", "floats", "bools", "strings", "operators", "jobs", "edges")
_KNOWN = tuple(f"scheme_{name}" for name in _BLOCKS)

Item = TypeVar("Item")


def load(path: str | os.PathLike[str]) -> Scheme:
    """Read and check a Scheme.

    Parameters
    ----------
    path
        The Scheme's folder, or its `scheme.star`.

    Raises
    ------
    SchemeError
        Anything that keeps the Scheme from running; names file, block, row, value and remedy.
    """
    scheme = read(path)
    found = check.errors(scheme)
    if found:
        raise found[0]
    return scheme


def read(path: str | os.PathLike[str]) -> Scheme:
    """Read a Scheme without checking that its names fit together; otherwise as `load`."""
    file = Path(path)
    file = file / "scheme.star" if file.is_dir() else file
    try:
        tables = star.load(file)
    except FileNotFoundError:
        raise SchemeError(f"{file}: there is no such Scheme; give its folder") from None
    except star.StarError as error:
        raise SchemeError(str(error)) from None
    return from_tables(tables, str(file))


def from_tables(tables: Mapping[str, star.Table], source: str) -> Scheme:
    """Return the Scheme in the blocks of a STAR file; `source` is its name in messages."""
    rows = _Rows(tables, source)
    general = next(iter(rows.of("general", ("Name", "CurrentNodeName"), "")), None)
    if general is None:
        raise SchemeError(f"{source}: no block data_scheme_general; this is not a scheme.star")
    edges = tuple(
        Edge(source_node, target, rows.truth("edges", source_node, fork), if_true, boolean)
        for source_node, target, fork, if_true, boolean in rows.of("edges", _EDGE_LABELS, "Edge")
    )
    current = general[1]
    if current == UNDEFINED and edges:
        current = edges[0].source
    return Scheme(
        name=general[0].rstrip("/") + "/",
        current_node=current,
        floats=rows.named("floats", _labels_of("Float"), "", _variable(FloatVariable, rows.number)),
        bools=rows.named("bools", _labels_of("Boolean"), "", _variable(BoolVariable, rows.truth)),
        strings=rows.named(
            "strings",
            _labels_of("String"),
            "",
            lambda _, value, reset: StringVariable(value, reset),
        ),
        operators=rows.named(
            "operators", _OPERATOR_LABELS, "Operator", lambda _, *values: Operator(*values)
        ),
        jobs=rows.named("jobs", _JOB_LABELS, "Job", rows.job),
        edges=edges,
        unknown=tuple(
            Block(name, table.loop, table.columns, table.comments)
            for name, table in tables.items()
            if name not in _KNOWN
        ),
        source=source,
    )


def _labels_of(kind: str) -> tuple[str, ...]:
    return tuple(f"{kind}Variable{part}" for part in ("Name", "Value", "ResetValue"))


def _variable(
    make: Callable[..., Item], parse: Callable[[str, str, str], float | bool]
) -> Callable[[str, str, str], Item]:
    block = "floats" if make is FloatVariable else "bools"
    return lambda name, value, reset: make(parse(block, name, value), parse(block, name, reset))


class _Rows:
    """The rows of the known blocks, with messages that say where a value stands."""

    def __init__(self, tables: Mapping[str, star.Table], source: str):
        self.tables, self.source = tables, source

    def of(self, block: str, labels: tuple[str, ...], prefix: str) -> Iterator[tuple[str, ...]]:
        table = self.tables.get(f"scheme_{block}")
        if table is None or len(table) == 0:
            return
        columns = []
        for label in labels:
            full = f"rlnScheme{prefix}{label}"
            if full not in table.columns:
                raise SchemeError(
                    f"{self.source}: block data_scheme_{block} has no column _{full}; add it"
                )
            columns.append(table.columns[full])
        yield from zip(*columns, strict=True)

    def named(
        self, block: str, labels: tuple[str, ...], prefix: str, make: Callable[..., Item]
    ) -> dict[str, Item]:
        found: dict[str, Item] = {}
        for name, *values in self.of(block, labels, prefix):
            if block == "jobs" and not any(values[:2]):
                continue  # RELION's phantom row of a job that was only named in a path
            if name in found:
                raise at(
                    self.source,
                    f"scheme_{block}",
                    name,
                    name,
                    "is there twice",
                    "remove one of the rows",
                )
            found[name] = make(name, *values)
        return found

    def number(self, block: str, row: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise at(
                self.source,
                f"scheme_{block}",
                row,
                text,
                "is not a number (RELION would take it as 0)",
                "write a number such as 180",
            ) from None

    def truth(self, block: str, row: str, text: str) -> bool:
        value = parse_bool(text)
        if value is None:
            raise at(
                self.source, f"scheme_{block}", row, text, "is not a truth value", "write 0 or 1"
            )
        return value

    def job(self, name: str, current: str, mode: str, started: str) -> JobRow:
        if mode not in ("new", "continue"):
            raise at(self.source, "scheme_jobs", name, mode, "is no mode", "write new or continue")
        return JobRow(current, mode, self.truth("jobs", name, started))


def dump(scheme: Scheme, state: State | None = None) -> str:
    """Return the text of `scheme.star`.

    Variables, operators and jobs are sorted by name, edges keep their order, blocks that Schemes
    do not know follow at the end.

    Parameters
    ----------
    scheme
        The graph and the reset values.
    state
        Present values, job table and current node; None writes those that were loaded. Numbers
        are written with six decimals, as RELION does: the exact ones are in the journal.
    """
    general = {
        "rlnSchemeName": scheme.name,
        "rlnSchemeCurrentNodeName": state.current_node if state else scheme.current_node,
    }
    tables = {"scheme_general": star.Table.of(general, loop=False)}
    for field, kind in _VARIABLES:
        variables = getattr(scheme, field)
        values = getattr(state, field) if state else {n: v.value for n, v in variables.items()}
        names = sorted(variables)
        tables[f"scheme_{field}"] = _table(
            "",
            _labels_of(kind),
            [(name, values[name], variables[name].reset) for name in names],
        )
    tables["scheme_operators"] = _table(
        "Operator",
        _OPERATOR_LABELS,
        [
            (name, node.type, node.output, node.input1, node.input2)
            for name, node in sorted(scheme.operators.items())
        ],
    )
    jobs = state.jobs if state else scheme.jobs
    tables["scheme_jobs"] = _table(
        "Job",
        _JOB_LABELS,
        [(name, row.current_name, row.mode, row.has_started) for name, row in sorted(jobs.items())],
    )
    tables["scheme_edges"] = _table(
        "Edge",
        _EDGE_LABELS,
        [(e.source, e.target, e.is_fork, e.if_true, e.boolean) for e in scheme.edges],
    )
    for block in scheme.unknown:
        tables[block.name] = star.Table(block.columns, block.loop, block.comments)
    return star.dumps({name: table for name, table in tables.items() if len(table)})


def _table(prefix: str, labels: tuple[str, ...], rows: list[tuple[object, ...]]) -> star.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in labels)
    return star.Table.of(
        {
            f"rlnScheme{prefix}{label}": list(values)
            for label, values in zip(labels, columns, strict=True)
        }
    )
