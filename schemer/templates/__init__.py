"""The Schemes that coldstream ships: RELION's node and variable names, defaults that run here.

How they differ from RELION's own is in `docs/reference/schemes.md`, value by value.
Source: schemes.md sections 14, 15 and 17.
"""

import os
from collections.abc import Iterator, Mapping
from importlib.resources import as_file, files
from pathlib import Path

from msgspec import structs

from algorithms.formats.atomic import atomic_write
from schemer import starfile, store
from schemer.errors import SchemeError
from schemer.jobs import JobFile
from schemer.scheme import Scheme
from schemer.settings import Definition, set_key

NAMES = ("prep", "proc")
# Ours alone: what RELION's proc ends with, repeated while the particles grow.
OWN = ("refine",)
SHIPPED = (*NAMES, *OWN)


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
        `prep`, `proc` or `refine`.
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
    target = Path(project_root) / "Schemes" / name
    definition = read(target) if (target / "scheme.star").exists() else shipped(name)
    for key, value in _own(name, settings or {}):
        definition = set_key(definition, key, value)
    write(target, definition)
    return target


def shipped(name: str) -> Definition:
    """Return a Scheme as coldstream ships it.

    Raises
    ------
    SchemeError
        There is none of that name.
    """
    if name not in SHIPPED:
        raise SchemeError(f"there is no Scheme template {name!r}; there are {', '.join(SHIPPED)}")
    with as_file(files("schemer.templates") / name) as folder:
        return read(folder)


def read(folder: Path) -> Definition:
    """Return the Scheme of a folder and its jobs, each with all options of its type."""
    scheme = starfile.load(folder)
    jobs = {}
    for job in scheme.jobs:
        content = JobFile.load(folder / job / "job.star")
        complete, _ = content.type.complete(content.options)
        jobs[job] = structs.replace(content, options={**content.options, **complete})
    return Definition(scheme, jobs)


def write(folder: Path, definition: Definition) -> None:
    """Make a Scheme's folder, or give the one that is there these variables and options.

    Files that would not change are not touched; `scheme.star` comes last, so that a folder
    without one is one that was interrupted.

    Raises
    ------
    SchemeError
        The Scheme is there, would change, and runs.
    """
    path, new = folder / "scheme.star", definition.scheme

    def values(scheme: Scheme) -> Scheme:
        return structs.replace(scheme, floats=new.floats, bools=new.bools, strings=new.strings)

    exists = path.exists()
    changes = exists and values(now := starfile.read(folder)) != now
    if changes:
        need_stopped(folder)  # before the first file is written
    for job, content in definition.jobs.items():
        _replace(folder / job / "job.star", content.dumps())
    if changes:
        store.edit(folder, values)
    elif not exists:
        atomic_write(path, starfile.dump(new))


def need_stopped(folder: Path) -> None:
    """Raise SchemeError if anybody runs the Scheme of a folder."""
    if store.running(folder) is not None:
        raise store.busy(folder)
    store.refuse_relion(folder.absolute().parent.parent, folder)


def _replace(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        atomic_write(path, text)


def _own(name: str, settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        scheme = key.partition("__")[0]
        if scheme == name or scheme not in SHIPPED:
            yield key, str(value)
