"""A Scheme with its jobs' options, and settings by key, as relion_it names them.

`prep__motioncorr__bin_factor` is an option of a job, `prep__wait_sec` a variable (value and reset
value). Pure. Source: schemes.md section 17.
"""

from collections.abc import Iterator
from typing import NamedTuple

from schemer import edit
from schemer.errors import SchemeError
from schemer.jobs import JobFile
from schemer.scheme import Scheme, parse_bool


class Definition(NamedTuple):
    """What the folder of a Scheme holds: the Scheme, and the options of each job node."""

    scheme: Scheme
    jobs: dict[str, JobFile]


class Place(NamedTuple):
    """What a key names: an option of `job`, or a variable where `job` is empty."""

    job: str
    name: str


def keys(definition: Definition) -> Iterator[str]:
    """Yield the key of every job option and of every variable."""
    scheme = definition.scheme.short_name
    for job, content in definition.jobs.items():
        yield from (f"{scheme}__{job}__{option}" for option in content.type.options)
    for field in edit.FIELDS:
        yield from (f"{scheme}__{name}" for name in getattr(definition.scheme, field))


def place(definition: Definition, key: str) -> Place | None:
    """Return what a key names in this Scheme, None if it has nothing of that name."""
    scheme, mark, rest = key.partition("__")
    if not mark or scheme != definition.scheme.short_name:
        return None
    job, mark, option = rest.partition("__")
    if mark and job in definition.jobs:
        known = definition.jobs[job].type.options
        return Place(job, option) if option in known else None
    return None if edit.field_of(definition.scheme, rest) is None else Place("", rest)


def set_key(definition: Definition, key: str, value: str) -> Definition:
    """Return the definition with one option, or one variable and its reset value, set.

    Raises
    ------
    SchemeError
        The Scheme has no such key (with near matches), or the value does not fit.
    """
    found = place(definition, key)
    scheme, jobs = definition
    if found is None:
        raise SchemeError(
            f"{key!r} is not a setting of the Scheme {scheme.short_name!r}; "
            + edit.suggestion(key, keys(definition))
        )
    if found.job:
        job = edit.set_job_option(jobs[found.job], found.name, value, f"{found.job}/job.star")
        return Definition(scheme, jobs | {found.job: job})
    if found.name in scheme.bools:
        # Settings speak RELION's words for options too: Yes and No.
        truth = parse_bool(value)
        value = value if truth is None else str(truth)
    return Definition(edit.set_variable(scheme, found.name, value, value), jobs)
