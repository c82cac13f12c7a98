"""Why a table does not fit a Struct: every misfit with its key, value and remedy, not only one.

msgspec stops at the first and leaves the value out; a person who edits a file wants all of them.
"""

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, inspect

from schemer.edit import suggestion

_KINDS = {
    "`str`": "text",
    "`int`": "a whole number",
    "`float`": "a number",
    "`bool`": "true or false",
    "`array`": "a list in [ ]",
    "`object`": "a table",
}


class Misfit(NamedTuple):
    """One thing that is wrong; `value` is None for a key that is missing, `key` empty for all."""

    key: str
    value: object
    problem: str
    remedy: str

    def __str__(self) -> str:
        shown = self.key if self.value is None else f"{self.key} = {_shown(self.value)}"
        return f"{shown} {self.problem}; {self.remedy}".lstrip()


def misfits(value: object, kind: Any, key: str = "") -> Iterator[Misfit]:
    """Yield everything that keeps a value from being decoded; nothing when it fits.

    Parameters
    ----------
    value
        As TOML or JSON gives it.
    kind
        A Struct or any type that a Struct's field may have. The description of a `Meta`
        ("an absolute path") is used as remedy.
    key
        Where the value stands.
    """
    kind = _without_none(kind)
    origin = get_origin(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        yield from _of_struct(value, kind, key)
    elif origin is dict and isinstance(value, dict):
        name_kind, one_kind = get_args(kind)
        for name, one in value.items():
            where = f"{key}.{name}" if key else str(name)
            yield from _of_leaf(name, name_kind, where, is_key=True)
            yield from misfits(one, one_kind, where)
    elif origin is tuple and isinstance(value, list):
        for number, one in enumerate(value, 1):
            yield from misfits(one, get_args(kind)[0], f"{key}[{_label(one, number)}]")
    else:
        yield from _of_leaf(value, kind, key)


def _of_struct(
    table: Mapping[str, object], kind: type[msgspec.Struct], key: str
) -> Iterator[Misfit]:
    hints = get_type_hints(kind, include_extras=True)
    prefix = f"{key}." if key else ""
    found = False
    for name, value in table.items():
        if name not in hints:
            problem = f"is not a key of {f'[{key}]' if key else 'this file'}"
            yield Misfit(prefix + name, value, problem, suggestion(name, hints))
            found = True
            continue
        for misfit in misfits(value, hints[name], prefix + name):
            yield misfit
            found = True
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in table:
            remedy = f"give {_wanted(hints[field.name]) or 'it'}"
            yield Misfit(prefix + field.name, None, "is missing", remedy)
            found = True
    if not found:  # what only the whole shows, told by its __post_init__
        yield from _of_leaf(dict(table), kind, key)


def _of_leaf(value: object, kind: Any, key: str, *, is_key: bool = False) -> Iterator[Misfit]:
    try:
        if is_key:
            msgspec.convert({value: 0}, dict[kind, int], str_keys=True)
        else:
            msgspec.convert(value, kind, str_keys=True)
    except msgspec.ValidationError as error:
        said = str(error)
        if not said.startswith(("Expected", "Invalid")):
            problem, _, remedy = said.partition("; ")
            yield Misfit(key, None, problem, remedy or "correct it")
            return
        wanted = _wanted(kind) or _plain(said)
        yield Misfit(key, value, "does not fit", f"write {wanted}")


def _wanted(kind: Any) -> str:
    """Return what a type takes, in words; empty when only msgspec can tell."""
    kind = _without_none(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is not Annotated:
        return {str: "text", float: "a number", int: "a whole number", bool: "true or false"}.get(
            kind, ""
        )
    base, *extras = get_args(kind)
    for meta in extras:
        if isinstance(meta, Meta) and meta.description:
            return meta.description
    bounds = [f"{words} {limit:g}" for words, limit in _limits(kind) if limit is not None]
    return f"{_wanted(base)} {' and '.join(bounds)}".strip() if bounds else _wanted(base)


def _limits(kind: Any) -> list[tuple[str, float | None]]:
    described = inspect.type_info(kind)
    if not isinstance(described, inspect.IntType | inspect.FloatType):
        return []
    return [
        ("of at least", described.ge),
        ("above", described.gt),
        ("of at most", described.le),
        ("below", described.lt),
    ]


def _without_none(kind: Any) -> Any:
    """Return X for X | None: TOML has no null, so None only stands for a key that is not there."""
    if get_origin(kind) in (Union, types.UnionType):
        rest = [one for one in get_args(kind) if one is not types.NoneType]
        return rest[0] if len(rest) == 1 else kind
    return kind


def _plain(said: str) -> str:
    """Return what msgspec wants, in words that a person who never saw Python knows."""
    text = said.removeprefix("Expected ").partition(", got")[0].partition(" - at")[0]
    for name, words in _KINDS.items():
        text = text.replace(name, words)
    return text


def _label(item: object, number: int) -> str:
    """Call an item of a list what a person calls it, else by its number, counted from 1."""
    names = (item.get(key) for key in ("name", "id", "model")) if isinstance(item, dict) else ()
    return next((name for name in names if isinstance(name, str) and name), str(number))


def _shown(value: object) -> str:
    text = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
