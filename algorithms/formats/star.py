"""STAR files in RELION's dialect: line-oriented, blocks of lists and loops.

Values are kept as the text that stood in the file, so a file passes through unchanged whatever
its labels mean. numpy is imported only where arrays are made or taken: Schemes read STAR too.

Source: schemes.md section 1 and preprocessing.md section 7.1.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from algorithms.formats.atomic import atomic_write

if TYPE_CHECKING:
    import numpy as np

# RELION writes about 200 bytes per particle: 10 million particles fit, a runaway file does not.
MAX_BYTES = 2**31
MAX_COLUMNS = 1024

# Of a name or a line, as much is shown in a message.
_SHOWN = 60

# Rows split at a time: short-lived lists stay out of the garbage collector's long generations.
_BATCH = 2000

_BLANKS = " \t\r"
_BLANK_BYTES = b" \t\r\n"
_LOOP = re.compile(rb"loop_(?=[ \t]|$)")
_VERSION = re.compile(r"#\s*version\s+\d+\s*")
_WORD = re.compile(r"[ \t]*([^ \t]+)")
_CLOSING = {mark: re.compile(mark + r"(?=[ \t]|$)") for mark in "\"'"}
# With none of these in the rows, str.split() yields exactly RELION's tokens.
_NEEDS_CARE = "\"'#\r\x0b\x0c\x1c\x1d\x1e\x1f"


class StarError(ValueError):
    """A STAR file, or a table to be written, breaks RELION's rules; the message says where."""


@dataclass
class Table:
    """One block: columns of text, all of the same length.

    Parameters
    ----------
    columns
        Values by label, the label without its underscore, the values without quotes.
    loop
        True for a loop, False for a list of `label value` lines (one row).
    comments
        Comment lines that stood before the block, written back before it.
    """

    columns: dict[str, list[str]] = field(default_factory=dict)
    loop: bool = True
    comments: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, columns: Mapping[str, Any], loop: bool = True) -> "Table":
        """Return a table of sequences or arrays; a list table takes bare values too.

        Raises
        ------
        StarError
            Columns of different lengths.
        """
        bare = (str, int, float)
        table = cls(
            {
                label: _texts([values] if not loop and isinstance(values, bare) else values)
                for label, values in columns.items()
            },
            loop,
        )
        _check_shape(table, "new table")
        return table

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def strings(self, label: str) -> list[str]:
        """Return one column as text.

        Raises
        ------
        StarError
            No such label; the message lists the labels there are.
        """
        if label not in self.columns:
            there = ", ".join(self.columns)[: _SHOWN * 20] or "-"
            raise StarError(f"no column {label}; the table has: {there}")
        return self.columns[label]

    def floats(self, label: str) -> "np.ndarray":
        """Return one column as float64 `[rows]`; StarError names a value that is no number."""
        import numpy as np

        values = self.strings(label)
        try:
            return np.array(list(map(float, values)), dtype=np.float64)
        except ValueError as error:
            raise StarError(f"column {label}: {error}") from None

    def ints(self, label: str) -> "np.ndarray":
        """Return one column as int64 `[rows]`; `3` and `3.000000` are both three."""
        import numpy as np

        values = self.strings(label)
        try:
            return np.array(list(map(int, values)), dtype=np.int64)
        except (ValueError, OverflowError):
            numbers = self.floats(label)
        if not (np.abs(numbers) < 2**53).all() or (numbers != np.trunc(numbers)).any():
            raise StarError(f"column {label} holds values that are not whole numbers")
        return numbers.astype(np.int64)

    def row(self, index: int) -> dict[str, str]:
        """Return one row as a dictionary of text by label."""
        return {label: values[index] for label, values in self.columns.items()}


def format_float(value: float) -> str:
    """Text of a number as RELION writes it: 12 characters at most, exponents where needed."""
    digits = 5 if value < 0 else 6
    if 0 < abs(value) < 0.001 or abs(value) > 100_000:
        return f"{value:.{digits}e}"  # not cut: a third digit of an exponent must stay
    return f"{value:.{digits}f}"[:12]


def load(path: str | os.PathLike[str], only: Collection[str] | None = None) -> dict[str, Table]:
    """Read the blocks of a file; see `loads`."""
    size = os.stat(path).st_size
    if size > MAX_BYTES:
        raise StarError(f"{os.fspath(path)}: {size} bytes, more than the limit of {MAX_BYTES}")
    with open(path, "rb") as file:
        content = file.read()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise StarError(f"{os.fspath(path)}: not UTF-8 text: {error}") from None
    return loads(text, os.fspath(path), only)


def count_rows(path: str | os.PathLike[str]) -> dict[str, int]:
    """Return the number of rows of each block of a file: 1 of a list, 0 of an empty one.

    Lines are counted and not split, so a file of 100,000 rows takes some hundredths of a second
    and no memory. The numbers are those of `load` for every file that `load` accepts; what is
    wrong within a row goes unnoticed.

    Raises
    ------
    StarError
        NUL bytes, or text outside a block or a list.
    """
    with open(path, "rb") as file:
        return _Counter(file, os.fspath(path)).counts()


def loads(
    text: str, source: str = "<text>", only: Collection[str] | None = None
) -> dict[str, Table]:
    """Read the blocks of a STAR text, by name without `data_`; the unnamed block is "".

    A loop ends at a blank line; what follows up to the next block is not part of it. Of two
    blocks with one name the first counts. CR LF line ends are read as LF.

    Parameters
    ----------
    text
        The whole file.
    source
        Its name, for messages.
    only
        Names of the blocks wanted. Like RELION, the others are then passed over, not parsed: old
        job.star files have a help text with a stray tab in a block that nobody reads.

    Raises
    ------
    StarError
        Ragged rows, text outside a block, repeated labels; names source, line and block.
    """
    if "\0" in text:
        raise StarError(f"{source}: holds NUL bytes, so it is no STAR text")
    return _Reader(text.replace("\r\n", "\n").split("\n"), source).tables(only)


class _Counter:
    """A walk over the lines of a file that only counts; follows `_Reader` step by step."""

    def __init__(self, file: Iterable[bytes], source: str):
        self.lines, self.source = iter(file), source
        self.found: dict[str, int] = {}
        self.block: str | None = None

    def counts(self) -> dict[str, int]:
        over = False
        line = self.next_line()
        while line is not None:
            if line.startswith(b"data_"):
                self.block = line[5:].decode(errors="replace").strip()
                over = self.block in self.found
                self.found.setdefault(self.block, 0)
            elif line and not over and not line.startswith(b"#"):
                if self.block is not None and _LOOP.match(line):
                    line = self.loop()
                    over = True
                    continue
                if self.block is None or not line.startswith(b"_"):
                    where = f"block data_{(self.block or '')[:_SHOWN]}"
                    raise StarError(f"{self.source}: {where}: text out of place: {line[:_SHOWN]!r}")
                self.found[self.block] = 1
            line = self.next_line()
        return self.found

    def next_line(self) -> bytes | None:
        """Return the next line without its blanks, None at the end."""
        line = next(self.lines, None)
        if line is not None and b"\0" in line:
            raise StarError(f"{self.source}: holds NUL bytes, so it is no STAR text")
        return None if line is None else line.strip(_BLANK_BYTES)

    def loop(self) -> bytes | None:
        """Count the rows of a loop; return the line that ended it."""
        line = self.next_line()
        while line is not None and (not line or line.startswith((b"_", b"#"))):
            line = self.next_line()
        if line is None or line.startswith(b"data_"):
            return line  # an empty loop is followed by the next block, not by rows
        rows = 1
        for row in self.lines:
            if not row.strip(_BLANK_BYTES):
                break
            rows += 1
        self.found[self.block or ""] = rows
        return self.next_line()


class _Reader:
    """A cursor over the lines of one text."""

    def __init__(self, lines: list[str], source: str):
        self.lines, self.source = lines, source
        self.at, self.block = 0, ""

    def error(self, what: str) -> StarError:
        block = self.block[:_SHOWN]
        return StarError(f"{self.source}: line {self.at + 1}, block data_{block}: {what}")

    def tables(self, only: Collection[str] | None) -> dict[str, Table]:
        found: dict[str, Table] = {}
        current: Table | None = None
        over = False  # the block's loop has ended
        comments: list[str] = []
        while self.at < len(self.lines):
            line = self.lines[self.at].strip(_BLANKS)
            if not line or line.startswith("#"):
                if line and not _VERSION.fullmatch(line):
                    comments.append(line)
            elif line.startswith("data_"):
                self.block = line[5:].strip()
                over = self.block in found or (only is not None and self.block not in only)
                current = Table(loop=False, comments=comments)
                if not over:
                    found[self.block] = current
                comments = []
            elif current is None:
                raise self.error(f"text before the first data_ line: {line[:_SHOWN]!r}")
            elif not over:
                current.comments += comments
                comments = []
                if _first_word(line) == "loop_":
                    self.loop(current)
                    over = True
                    continue
                self.list_line(current, line)
            self.at += 1
        if current is not None:
            current.comments += comments
        return found

    def list_line(self, table: Table, line: str) -> None:
        tokens = list(_tokens(line))
        if not line.startswith("_") or len(tokens) > 2:
            raise self.error(
                f"expected `_label value`, found {line[:_SHOWN]!r}; quote a value that holds blanks"
            )
        self.add_label(table, tokens[0])
        table.columns[tokens[0][1:]].append(tokens[1] if len(tokens) == 2 else "")

    def add_label(self, table: Table, token: str) -> None:
        if token[1:] in table.columns:
            raise self.error(f"label {token[:_SHOWN]} appears twice")
        if len(table.columns) == MAX_COLUMNS:
            raise self.error(f"more than {MAX_COLUMNS} columns")
        table.columns[token[1:]] = []

    def loop(self, table: Table) -> None:
        """Read labels and rows; leaves the cursor on the line that ended the loop."""
        if table.columns:
            raise self.error("a loop_ after list values; give the loop a block of its own")
        table.loop = True
        self.at += 1
        line = ""
        while self.at < len(self.lines):
            line = self.lines[self.at].strip(_BLANKS)
            if line.startswith("_"):
                self.add_label(table, _first_word(line))
            elif line.startswith("#") and not _VERSION.fullmatch(line):
                table.comments.append(line)
            elif line and not line.startswith("#"):
                break
            self.at += 1
        # An empty loop is followed by the next block, not by rows.
        if self.at == len(self.lines) or line.startswith("data_"):
            return
        if not table.columns:
            raise self.error("loop_ without labels")
        first = self.at
        end = next(
            (i for i in range(first, len(self.lines)) if not self.lines[i].strip(_BLANKS)), None
        )
        end = len(self.lines) if end is None else end
        for self.at in range(first, end, _BATCH):
            rows = self.rows(self.lines[self.at : min(self.at + _BATCH, end)], len(table.columns))
            for column, values in zip(table.columns.values(), zip(*rows, strict=True), strict=True):
                column.extend(values)
        self.at = end

    def rows(self, lines: list[str], width: int) -> list[list[str]]:
        text = "\n".join(lines)
        if text.isascii() and not any(mark in text for mark in _NEEDS_CARE):
            rows = [line.split() for line in lines]
        else:
            rows = [list(_tokens(re.sub(r"[ \t]+", " ", line))) for line in lines]
        if width == 2:
            rows = [[*row, ""] if len(row) == 1 else row for row in rows]
        if set(map(len, rows)) == {width}:
            return rows
        bad = next(i for i, row in enumerate(rows) if len(row) != width)
        self.at += bad
        raise self.error(
            f"{len(rows[bad])} values for {width} labels in {lines[bad].strip()[:_SHOWN]!r}; "
            "a loop must end with a blank line, and a value with blanks must be quoted"
        )


def _first_word(line: str) -> str:
    found = _WORD.match(line)
    return found[1] if found else ""


def _tokens(line: str) -> Iterator[str]:
    """Values of one line; in time linear in its length, whatever quotes it holds."""
    line = line.rstrip(_BLANKS)
    closing = {mark: [m.start() for m in end.finditer(line)] for mark, end in _CLOSING.items()}
    at = 0
    while match := _WORD.match(line, at):
        word, (start, at) = match[1], match.span(1)
        if word[0] == "#":
            return
        ends = closing.get(word[0], [])
        following = bisect_right(ends, start)
        if following == len(ends):
            yield word
        else:
            at = ends[following] + 1
            yield line[start + 1 : at - 1]


def save(
    path: str | os.PathLike[str],
    tables: Mapping[str, Table],
    version: int = 50001,
    durable: bool = True,
) -> None:
    """Replace a file by `dumps(tables)` in one step; `durable` as in `atomic_write`."""
    atomic_write(path, dumps(tables, version), durable=durable)


def dumps(tables: Mapping[str, Table], version: int = 50001) -> str:
    """Text of the tables, laid out as RELION does.

    An empty loop is written only as the last block: RELION takes what follows one for its rows,
    and reads a block that is absent as an empty table.

    Raises
    ------
    StarError
        Columns of different lengths, or a name or value that no STAR file can hold.
    """
    parts: list[str] = []
    last = next(reversed(list(tables)), None)
    for name, table in tables.items():
        _check_shape(table, f"block data_{name}")
        if len(table) == 0 and name != last:
            continue
        if re.search(r"\s", name) or any(re.search(r"\s", label) for label in table.columns):
            raise StarError(f"block data_{name}: a block name or label holds a blank")
        parts += [f"{line}\n" for line in table.comments]
        parts.append(f"\n# version {version}\n\ndata_{name}\n\n")
        parts += _loop_lines(name, table) if table.loop else _list_lines(name, table)
        parts.append(" \n")
    return "".join(parts)


def _loop_lines(name: str, table: Table) -> Iterator[str]:
    yield "loop_ \n"
    for number, label in enumerate(table.columns, 1):
        yield f"_{label} #{number} \n"
    columns = [_quoted(values, name, label) for label, values in table.columns.items()]
    row = "%10s " * len(columns) + "\n"
    yield "".join([row % values for values in zip(*columns, strict=True)])


def _list_lines(name: str, table: Table) -> Iterator[str]:
    widest = max(map(len, table.columns), default=0)
    for label, values in table.columns.items():
        value = _quoted(values, name, label)[0]
        yield f"_{label}{' ' * (12 + widest - len(label))}{value}\n"


def _quoted(values: list[str], name: str, label: str) -> list[str]:
    """Return the column with quotes where RELION needs them; most columns need none."""
    whole = "\n" + "\n".join(values) + "\n"
    marks = (" ", "\t", '"', "'", "#", "\r", "\0", "\n\n", "\n_", "\ndata_", "\nloop_")
    if whole.count("\n") == len(values) + 1 and not any(mark in whole for mark in marks):
        return values
    try:
        return [_quote(value) for value in values]
    except StarError as error:
        raise StarError(f"block data_{name}, column {label}: {error}") from None


def _quote(value: str) -> str:
    if re.search(r"[\n\r\0]", value):
        raise StarError(f"{value!r} holds a line end or NUL, which a STAR file cannot")
    if value and not re.search(r"[ \t]|^[\"'#_]|^data_|^loop_", value):
        return value
    for mark in "\"'":
        if not re.search(mark + r"(?:[ \t]|$)", value):
            return f"{mark}{value}{mark}"
    raise StarError(f"{value!r} holds both kinds of quotes before blanks, so it cannot be quoted")


def _check_shape(table: Table, where: str) -> None:
    lengths = {label: len(values) for label, values in table.columns.items()}
    if len(set(lengths.values())) > 1:
        raise StarError(f"{where}: columns differ in length: {lengths}")
    if not table.loop and table.columns and len(table) != 1:
        raise StarError(f"{where}: a list holds one value per label, not {len(table)}")


def _texts(values: Any) -> list[str]:
    """Text of a column of text, numbers or truth values, as RELION writes them."""
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    if kind == "f":
        return _float_texts(values)
    if kind in "iu" and kind:
        return list(map(str, values.tolist()))
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if hasattr(value, "item"):  # a numpy scalar
        value = value.item()
    return format_float(value) if isinstance(value, float) else str(int(value))


def _float_texts(values: "np.ndarray") -> list[str]:
    """Return `format_float` of an array, ten times as fast where no sign or exponent is needed."""
    import numpy as np

    numbers = values.astype(np.float64)
    plain = (numbers == 0) | ((numbers >= 0.001) & (numbers < 99_999))
    rest = np.rint(np.where(plain, numbers, 0) * 1e6).astype(np.int64)
    digits = np.full((len(values), 13), ord(" "), dtype=np.uint8)
    for place in (11, 10, 9, 8, 7, 6, 4, 3, 2, 1, 0):  # from the right; 5 is the point
        rest, digit = np.divmod(rest, 10)
        digits[:, place] = np.where((rest > 0) | (digit > 0) | (place >= 4), digit + 48, 32)
    digits[:, 5] = ord(".")
    texts = digits.tobytes().decode().split()
    for index in np.flatnonzero(~plain).tolist():
        texts[index] = format_float(float(numbers[index]))
    return texts
