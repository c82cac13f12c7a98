"""Option files as relion_it takes them, read and written without ever being executed.

A file is a Python dictionary of literals (alone, or given a name), JSON, or TOML. The result is
text by key: everything ends as text in a STAR file. Source: schemes.md section 17.
"""

import ast
import json
import os
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from algorithms.formats.atomic import atomic_write
from schemer.errors import SchemeError

# The largest known file has some 60 keys; this is far above, and far below what exhausts a parser.
MAX_BYTES = 256 * 1024
_REMEDY = "write a text, a number, True or False"


def read(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the options of a file by key.

    Parameters
    ----------
    path
        Ends in `.json` or `.toml`; anything else is read as a Python dictionary. Tables of JSON
        and TOML may be nested: `[prep.motioncorr]` and `bin_factor = 2` is
        `prep__motioncorr__bin_factor`.

    Raises
    ------
    SchemeError
        Not readable, too large, anything but literals; names file, key or line, value, remedy.
    """
    file = Path(path)
    try:
        with open(file, "rb") as content:
            data = content.read(MAX_BYTES + 1)
    except OSError as error:
        raise SchemeError(
            f"{file}: cannot be read: {error.strerror}; give an option file"
        ) from None
    if len(data) > MAX_BYTES:
        raise SchemeError(f"{file}: larger than {MAX_BYTES} bytes; this is no option file")
    try:
        text = data.decode("utf-8-sig")
        if file.suffix == ".json":
            return dict(_flat(json.loads(text), str(file)))
        if file.suffix == ".toml":
            return dict(_flat(tomllib.loads(text), str(file)))
        return dict(_python(text, str(file)))
    except SchemeError:
        raise
    except UnicodeDecodeError:
        raise SchemeError(f"{file}: not UTF-8 text; save it as UTF-8") from None
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        reason = str(error).split("\n", 1)[0] or "it is nested too deeply"  # MemoryError
        form = {".json": "JSON", ".toml": "TOML"}.get(file.suffix, "a Python dictionary")
        raise SchemeError(f"{file}: cannot be read as {form}: {reason}") from None


def write(path: Path, options: Mapping[str, str]) -> None:
    """Write options as a Python dictionary of texts, the form that relion_it itself writes."""
    lines = [f"{key!r} : {value!r}, \n" for key, value in options.items()]
    atomic_write(path, "".join(["{\n", *lines, "}\n"]))


def _text(where: str, value: object) -> str:
    if isinstance(value, bool | int | float | str) or value is None:
        return str(value)
    shown = repr(value)[:60]
    raise SchemeError(f"{where}: value {shown} is a {type(value).__name__}; {_REMEDY}")


def _flat(table: Any, source: str) -> Iterator[tuple[str, str]]:
    if not isinstance(table, dict):
        raise SchemeError(f"{source}: holds no table of options; write key and value pairs")
    waiting = [("", table)]
    while waiting:
        prefix, inner = waiting.pop(0)
        for key, value in inner.items():
            if isinstance(value, dict):
                waiting.append((f"{prefix}{key}__", value))
            else:
                yield prefix + key, _text(f"{source}: key {prefix + key!r}", value)


def _python(text: str, source: str) -> Iterator[tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about backslashes in texts: the reader's affair
        body = ast.parse(text, filename=source).body
    table = None
    if len(body) == 1 and isinstance(body[0], ast.Expr | ast.Assign):
        table = body[0].value
    if not isinstance(table, ast.Dict):
        raise SchemeError(
            f"{source}: is not one dictionary of options; write {{'key': value, ...}} and nothing "
            "else (option files are read, never executed)"
        )
    for key, value in zip(table.keys, table.values, strict=True):
        line = getattr(key or value, "lineno", 0)
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
            raise SchemeError(f"{source}, line {line}: a key is not a text; put it in quotes")
        where = f"{source}, line {line}: key {key.value!r}"
        yield key.value, _text(where, _literal(where, value))


def _literal(where: str, node: ast.expr) -> object:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        if isinstance(value, int | float) and isinstance(node.op, ast.USub | ast.UAdd):
            return -value if isinstance(node.op, ast.USub) else value
    shown = type(node).__name__
    raise SchemeError(f"{where}: the value is no literal ({shown}); {_REMEDY}")
