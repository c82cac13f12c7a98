"""`scheme.star`: text of a Scheme and back, in RELION's block and row order.

Source: schemes.md section 2.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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

# How far C++ reads a number; what follows is left.
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

Item = TypeVar("Item")


def load(path: str | os.PathLike[str], *, strict: bool = False) -> Scheme:
    """Read and check a Scheme.

    Parameters
    ----------
    path
        The Scheme's folder, or its `scheme.star`.
    strict
        Read values and check names as RELION does: text that is no number is 0, a word is false.

    Raises
    ------
    SchemeError
        Anything that keeps the Scheme from running; names file, block, row, value and remedy.
    """
    scheme = read(path, strict=strict)
    found = check.errors(scheme, strict=strict)
    if found:
        raise found[0]
    return scheme


def read(path: str | os.PathLike[str], *, strict: bool = False) -> Scheme:
    """Read a Scheme without checking that its names fit together; otherwise as `load`."""
    file = Path(path)
    file = file / "scheme.star" if file.is_dir() else file
    try:
        tables = star.load(file)
    except FileNotFoundError:
        raise SchemeError(f"{file}: there is no such Scheme; give its folder") from None
    except OSError as error:
        raise SchemeError(f"{file}: cannot be read ({error}); correct that first") from None
    except star.StarError as error:
        raise SchemeError(str(error)) from None
    return from_tables(tables, str(file), strict=strict)


def from_tables(tables: Mapping[str, star.Table], source: str, *, strict: bool = False) -> Scheme:
    """Return the Scheme in the blocks of a STAR file; `source` is its name in messages."""
    rows = _Rows(tables, source, strict)
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
    jobs = rows.named("jobs", _JOB_LABELS, "Job", rows.job)
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
            "operators",
            _OPERATOR_LABELS,
            "Operator",
            lambda _, *values: Operator(*(value or UNDEFINED for value in values)),
        ),
        jobs={name: row for name, row in jobs.items() if not _is_phantom(row)},
        phantoms={name: row for name, row in jobs.items() if _is_phantom(row)},
        edges=edges,
        unknown=tuple(
            Block(name, table.loop, table.columns, table.comments)
            for name, table in tables.items()
            if name not in _KNOWN
        ),
        extra=rows.extra(),
        notes=tuple(rows.notes),
        source=source,
    )


def _labels_of(kind: str) -> tuple[str, ...]:
    return tuple(f"{kind}Variable{part}" for part in ("Name", "Value", "ResetValue"))


def _variable(
    make: Callable[..., Item], parse: Callable[[str, str, str], float | bool]
) -> Callable[[str, str, str], Item]:
    block = "floats" if make is FloatVariable else "bools"
    return lambda name, value, reset: make(parse(block, name, value), parse(block, name, reset))


def _is_phantom(row: JobRow) -> bool:
    """Return whether RELION made the row for a path that names a job which is not there."""
    return not row.current_name and not row.mode


class _Rows:
    """The rows of the known blocks, with messages that say where a value stands."""

    def __init__(self, tables: Mapping[str, star.Table], source: str, strict: bool):
        self.tables, self.source, self.strict = tables, source, strict
        self.used: dict[str, tuple[str, ...]] = {}
        self.notes: list[str] = []

    def of(self, block: str, labels: tuple[str, ...], prefix: str) -> Iterator[tuple[str, ...]]:
        table = self.tables.get(f"scheme_{block}")
        if table is None or len(table) == 0:
            return
        columns = []
        full_labels = tuple(f"rlnScheme{prefix}{label}" for label in labels)
        for full in full_labels:
            if full not in table.columns:
                raise SchemeError(
                    f"{self.source}: block data_scheme_{block} has no column _{full}; add it"
                )
            columns.append(table.columns[full])
        self.used[f"scheme_{block}"] = full_labels
        yield from zip(*columns, strict=True)

    def extra(self) -> dict[str, dict[str, dict[str, str]]]:
        """Return the columns that Schemes do not know; edges are told apart by their number."""
        found: dict[str, dict[str, dict[str, str]]] = {}
        for block, labels in self.used.items():
            columns = self.tables[block].columns
            names = columns[labels[0]]
            if block in ("scheme_edges", "scheme_general"):
                names = [str(number) for number in range(len(names))]
            more = {
                label: dict(zip(names, values, strict=True))
                for label, values in columns.items()
                if label not in labels
            }
            if more:
                found[block] = more
        return found

    def named(
        self, block: str, labels: tuple[str, ...], prefix: str, make: Callable[..., Item]
    ) -> dict[str, Item]:
        found: dict[str, Item] = {}
        for name, *values in self.of(block, labels, prefix):
            if name in found and not self.strict:
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
            if self.strict:
                start = _NUMBER.match(text)
                return float(start[0]) if start else 0.0
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
        is_word = not _NUMBER.match(text)
        if self.strict:
            return bool(value) and not is_word
        if value is None:
            raise at(
                self.source, f"scheme_{block}", row, text, "is not a truth value", "write 0 or 1"
            )
        if value and is_word:
            self.notes.append(
                f"scheme_{block}, row {row!r}: the word {text} is read as 1; RELION reads every "
                "word as 0, so write 1"
            )
        return value

    def job(self, name: str, current: str, mode: str, started: str) -> JobRow:
        phantom = not current and not mode
        if mode not in ("new", "continue") and not phantom and not self.strict:
            raise at(self.source, "scheme_jobs", name, mode, "is no mode", "write new or continue")
        return JobRow(current, mode, self.truth("jobs", name, started))


def dump(
    scheme: Scheme, state: State | None = None, more: Mapping[str, star.Table] | None = None
) -> str:
    """Return the text of `scheme.star`.

    Variables, operators and jobs are sorted by name, edges keep their order, blocks that Schemes
    do not know follow at the end.

    Parameters
    ----------
    scheme
        The graph and the reset values.
    state
        Present values, job table and current node; None writes those that were loaded. Numbers
        are written with six decimals, as RELION does.
    more
        Further blocks, in place of unknown ones of the same name.
    """
    source = state or scheme
    general = {
        "rlnSchemeName": scheme.name,
        "rlnSchemeCurrentNodeName": source.current_node,
    }
    tables = {"scheme_general": star.Table.of(general, loop=False)}
    for field, kind in _VARIABLES:
        rows = _variable_rows(scheme, state, field)
        tables[f"scheme_{field}"] = _table("", _labels_of(kind), rows)
    operators = [
        (name, node.type, node.output, node.input1, node.input2)
        for name, node in sorted(scheme.operators.items())
    ]
    tables["scheme_operators"] = _table("Operator", _OPERATOR_LABELS, operators)
    jobs = [
        (name, row.current_name, row.mode, row.has_started)
        for name, row in sorted({**source.phantoms, **source.jobs}.items())
    ]
    tables["scheme_jobs"] = _table("Job", _JOB_LABELS, jobs)
    edges = [(e.source, e.target, e.is_fork, e.if_true, e.boolean) for e in scheme.edges]
    tables["scheme_edges"] = _table("Edge", _EDGE_LABELS, edges)
    for name, table in tables.items():
        _add_extra(scheme, name, table)
    for block in scheme.unknown:
        tables[block.name] = star.Table(block.columns, block.loop, block.comments)
    tables |= more or {}
    return star.dumps({name: table for name, table in tables.items() if len(table)})


def _variable_rows(scheme: Scheme, state: State | None, field: str) -> list[tuple[object, ...]]:
    """Return (name, value, reset value), sorted; a variable that came into being resets to 0."""
    variables = getattr(scheme, field)
    if state is None:
        return [(name, one.value, one.reset) for name, one in sorted(variables.items())]
    fresh = {"floats": 0.0, "bools": False, "strings": ""}[field]
    return [
        (name, value, variables[name].reset if name in variables else fresh)
        for name, value in sorted(getattr(state, field).items())
    ]


def _add_extra(scheme: Scheme, block: str, table: star.Table) -> None:
    """Add the columns that Schemes do not know; rows of edges are told apart by their number."""
    more = scheme.extra.get(block)
    if not more:
        return
    names = next(iter(table.columns.values()))
    if block in ("scheme_edges", "scheme_general"):
        names = [str(number) for number in range(len(names))]
    for label, values in more.items():
        table.columns[label] = [values.get(name, "") for name in names]


def _table(prefix: str, labels: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> star.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in labels)
    return star.Table.of(
        {
            f"rlnScheme{prefix}{label}": list(values)
            for label, values in zip(labels, columns, strict=True)
        }
    )
