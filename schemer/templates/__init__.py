"""The Schemes that coldstream ships: RELION's node and variable names, defaults that run here.

Against RELION's own: no 48 h limit, waits ended by data, no limit per batch, LoG picking, and no
graphics card asked for. Source: schemes.md sections 14, 15 and 17.
"""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.resources import as_file, files
from pathlib import Path

from msgspec import structs

from algorithms.formats.atomic import atomic_write
from schemer import starfile
from schemer.errors import SchemeError
from schemer.jobs import JobFile, find
from schemer.scheme import BoolVariable, FloatVariable, Scheme, StringVariable, parse_bool

NAMES = ("prep", "proc")


def install(
    project_root: str | os.PathLike[str], name: str, settings: Mapping[str, str] | None = None
) -> Path:
    """Put a Scheme into `Schemes/<name>/` with settings applied; return that folder.

    A Scheme that is already there is kept and only gets the settings, so that repeating the call
    changes nothing. All settings are checked before a file is written; `scheme.star` is written
    last.

    Parameters
    ----------
    project_root
        Project folder.
    name
        `prep` or `proc`.
    settings
        Values by key, as for relion_it: `prep__motioncorr__fn_gain_ref` sets a job option,
        `proc__min_nr_parts_3d` a variable (value and reset value). Keys of the other Schemes that
        coldstream ships are left to their own installation.

    Raises
    ------
    SchemeError
        No such template, a key that the Scheme does not have (with near matches), or a value that
        does not fit the option's or variable's type.
    """
    if name not in NAMES:
        raise SchemeError(f"there is no Scheme template {name!r}; there are {', '.join(NAMES)}")
    target = Path(project_root) / "Schemes" / name
    if (target / "scheme.star").exists():
        scheme, jobs = _read(target)
    else:
        with as_file(files("schemer.templates") / name) as folder:
            scheme, jobs = _read(folder)
    for key, value in _own(name, settings or {}):
        scheme = _apply(scheme, jobs, key, value)
    for job, content in jobs.items():
        atomic_write(target / job / "job.star", content.dumps())
    atomic_write(target / "scheme.star", starfile.dump(scheme))
    return target


def _read(folder: Path) -> tuple[Scheme, dict[str, JobFile]]:
    """Return the Scheme of a folder and its jobs, each with all options of its type."""
    scheme = starfile.load(folder)
    jobs = {}
    for job in scheme.jobs:
        content = JobFile.load(folder / job / "job.star")
        options, _ = find(content.label).complete(content.options)
        jobs[job] = JobFile(content.label, options, content.is_continue)
    return scheme, jobs


def _own(name: str, settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        scheme = key.partition("__")[0]
        if scheme == name or scheme not in NAMES:
            yield key, str(value)


def _apply(scheme: Scheme, jobs: dict[str, JobFile], key: str, value: str) -> Scheme:
    """Set one option in `jobs`, or return the Scheme with one variable set."""
    parts = key.split("__")
    if parts[0] == scheme.short_name and len(parts) == 3 and parts[1] in jobs:
        job, option = jobs[parts[1]], parts[2]
        if option in job.options:
            kind = find(job.label).kinds[option]
            job.options[option] = option_text(key, kind, value)
            return scheme
    if parts[0] == scheme.short_name and len(parts) == 2:
        for field, parse in (("floats", _float), ("bools", _bool), ("strings", _string)):
            variables = getattr(scheme, field)
            if parts[1] in variables:
                changed = variables | {parts[1]: parse(key, value)}
                return structs.replace(scheme, **{field: changed})
    near = get_close_matches(key, list(_keys(scheme, jobs)), n=5, cutoff=0.6)
    hint = f"did you mean {', '.join(near)}?" if near else "no known key is like it"
    raise SchemeError(f"{key!r} is not a setting of the Scheme {scheme.short_name!r}; {hint}")


def _keys(scheme: Scheme, jobs: Mapping[str, JobFile]) -> Iterator[str]:
    for job, content in jobs.items():
        yield from (f"{scheme.short_name}__{job}__{option}" for option in content.options)
    for variable in (*scheme.floats, *scheme.bools, *scheme.strings):
        yield f"{scheme.short_name}__{variable}"


def option_text(key: str, kind: str, value: str) -> str:
    """Return a job option's value as RELION writes it, checked against the option's kind.

    Parameters
    ----------
    key
        Name for the message.
    kind
        boolean (any word for yes or no), slider (a number) or another; `$$variable` fits all.
    value
        What the person wrote.
    """
    if "$$" in value:
        return value
    if kind == "boolean":
        truth = parse_bool(value)
        if truth is None:
            raise SchemeError(f"{key}: {value!r} is not a truth value; write Yes or No")
        return "Yes" if truth else "No"
    if kind == "slider":
        _float(key, value)
    return _string(key, value).value


def _float(key: str, value: str) -> FloatVariable:
    try:
        number = float(value)
    except ValueError:
        raise SchemeError(f"{key}: {value!r} is not a number; write one such as 1.5") from None
    return FloatVariable(number, number)


def _bool(key: str, value: str) -> BoolVariable:
    truth = parse_bool(value)
    if truth is None:
        raise SchemeError(f"{key}: {value!r} is not a truth value; write Yes or No")
    return BoolVariable(truth, truth)


def _string(key: str, value: str) -> StringVariable:
    if any(mark in value for mark in "\n\r\0"):
        raise SchemeError(f"{key}: {value!r} holds a line end, which no STAR file can")
    return StringVariable(value, value)
