"""Scheme paths to real job folders, and `$$variable` substitution in job options.

Both are pure: the job table of another Scheme comes through the `World`.
Source: schemes.md sections 4 and 5; deviations from RELION are those of section 19, column "safe".
"""

from collections.abc import Mapping
from ctypes import c_float
from typing import NamedTuple, Protocol

from schemer.errors import SchemeError
from schemer.facts import World
from schemer.scheme import JobRow

_ROOT = "Schemes/"
_UNKNOWN_JOB = "undefined"  # RELION puts this in place of a job the other Scheme does not have
_MAX_SUBSTITUTIONS = 100  # far above any real option; a variable that names itself never ends


class Resolved(NamedTuple):
    """A text with its Scheme path replaced.

    `pending` if it names a job that has not run yet. `phantom` is the job row that RELION adds to
    its table by mistake, where the text names no job of the own Scheme; else empty.
    """

    text: str
    pending: bool = False
    phantom: str = ""


class Filled(NamedTuple):
    """A job's options, ready to run.

    `phantoms` are the rows that RELION adds to the job table (strict only); `pending` the folders
    in the Schemes, `Schemes/prep/ctffind/`, of the jobs that are named and have not run yet.
    """

    options: dict[str, str]
    phantoms: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()


class Variables(Protocol):
    """Present values of a Scheme's variables, and its job table: the machine's `State`."""

    floats: dict[str, float]
    bools: dict[str, bool]
    strings: dict[str, str]
    jobs: dict[str, JobRow]


def is_scheme_path(value: str, scheme_name: str) -> bool:
    """Return whether `resolve` has anything to do."""
    return _ROOT in value or scheme_name in value


def resolve(
    value: str, scheme_name: str, jobs: Mapping[str, JobRow], world: World, *, strict: bool = False
) -> Resolved:
    """Return `value` with the prefix `Schemes/<scheme>/<job>/` replaced by the job's real folder.

    A reference to a job that has not run yet is returned unchanged and marked pending: it counts
    as a file that does not exist.

    Parameters
    ----------
    value
        A string variable's value or a job option's value.
    scheme_name
        The Scheme in which the value is used, `Schemes/prep/`.
    jobs
        That Scheme's own job table.
    world
        Asked for the job table of another Scheme.
    strict
        Form RELION's text for a job that has not run yet, by its bare name: `ctffindmics.star`
        for one of the own Scheme, `ctffind/mics.star` for another's.

    Raises
    ------
    SchemeError
        The other Scheme does not exist, or its job table is empty.
    """
    if scheme_name in value:
        return _resolve_own(value, scheme_name, jobs, strict)
    if _ROOT in value:
        return _resolve_other(value, world, strict)
    return Resolved(value)


def _own_job(value: str, scheme_name: str, jobs: Mapping[str, JobRow]) -> str:
    """Return what RELION takes for the job: up to the last slash, or all where there is none."""
    rest = value.split(scheme_name, 1)[1]
    folder, slash, _ = rest.rpartition("/")
    if not slash:
        return rest
    if folder not in jobs and scheme_name in rest:
        return rest.partition("/")[0]  # several paths of one job in one value
    return folder


def _resolve_own(
    value: str, scheme_name: str, jobs: Mapping[str, JobRow], strict: bool
) -> Resolved:
    job = _own_job(value, scheme_name, jobs)
    prefix = f"{scheme_name}{job}/"
    row = jobs.get(job)
    if row is None or not row.current_name:
        return Resolved(value.replace(prefix, ""), phantom=job)
    if prefix not in value:
        return Resolved(value)
    current = row.current_name
    pending = current == job
    if strict:
        return Resolved(value.replace(prefix, current), pending)
    return Resolved(value, True) if pending else Resolved(value.replace(prefix, _folder(current)))


def _resolve_other(value: str, world: World, strict: bool) -> Resolved:
    other, slash, rest = value.split(_ROOT, 1)[1].partition("/")
    if not slash or not other:
        return Resolved(value)
    job = rest.rpartition("/")[0]
    file = f"{_ROOT}{other}/scheme.star"
    if not job and not strict and world.file_exists(file):
        return Resolved(value)  # a file of the Scheme folder itself; RELION reads the table first
    table = world.job_table(other)
    if not table:
        problem = "does not exist" if table is None else "has no jobs"
        raise SchemeError(
            f"{value!r} names the Scheme {other!r}, but {file} {problem}; install that Scheme or "
            "correct the path"
        )
    if not job:
        return Resolved(value)
    current = table.get(job, "") or _UNKNOWN_JOB
    pending = current == job
    if pending and not strict:
        return Resolved(value, True)
    return Resolved(value.replace(f"{_ROOT}{other}/{job}/", _folder(current)), pending)


def _folder(current: str) -> str:
    return current if current.endswith("/") else current + "/"


def float_text(value: float) -> str:
    """Return a float variable as RELION writes it into an option: %g of single precision."""
    return f"{c_float(value).value:g}"


def substitute(value: str, option: str, kind: str, variables: Variables) -> str:
    """Return a job option's value with every `$$name` replaced by that variable's value.

    Parameters
    ----------
    value
        The option as written in `job.star`.
    option, kind
        Its key and kind (`boolean`, `slider`, or any other): booleans fit only boolean options,
        numbers fit all others, texts fit neither booleans nor sliders.
    variables
        Present values; looked up in the order boolean, float, string.

    Raises
    ------
    SchemeError
        Unknown variable, a type that does not fit, or a variable that refers to itself.
    """
    original = value
    for _ in range(_MAX_SUBSTITUTIONS):
        before, mark, after = value.partition("$$")
        if not mark:
            return value
        words = after.split(" ")
        name, rest = words[0], [word for word in words[1:] if word]
        text = _variable_text(name, option, kind, variables)
        value = " ".join([before + text, *rest])
    raise SchemeError(
        f"option {option!r}: {original!r} never stops growing; a string variable refers to itself"
    )


def _variable_text(name: str, option: str, kind: str, variables: Variables) -> str:
    if name in variables.bools:
        fits, text = kind == "boolean", "Yes" if variables.bools[name] else "No"
    elif name in variables.floats:
        fits, text = kind != "boolean", float_text(variables.floats[name])
    elif name in variables.strings:
        fits, text = kind not in ("boolean", "slider"), variables.strings[name]
    else:
        raise SchemeError(
            f"option {option!r}: there is no variable {name!r}; a name runs to the next blank, "
            "so nothing may follow it directly"
        )
    if not fits:
        raise SchemeError(
            f"option {option!r} is a {kind}: the variable {name!r} has another type; "
            "use a variable of the option's type"
        )
    return text


def fill_options(
    options: Mapping[str, str],
    kinds: Mapping[str, str],
    scheme_name: str,
    variables: Variables,
    world: World,
    *,
    strict: bool = False,
) -> Filled:
    """Return a job node's options ready to run: variables substituted, then paths resolved.

    Parameters
    ----------
    options
        As in the Scheme's `job.star`, re-read at every visit.
    kinds
        Kind of each option (`schemer.jobs`); an option without one is taken as free text.
    scheme_name, variables, world, strict
        As for `resolve` and `substitute`; `variables` is the machine's state.
    """
    filled: dict[str, str] = {}
    phantoms: dict[str, None] = {}
    pending: dict[str, None] = {}
    for option, value in options.items():
        text = substitute(value, option, kinds.get(option, "any"), variables)
        found = resolve(text, scheme_name, variables.jobs, world, strict=strict)
        filled[option] = found.text
        if found.phantom and strict:
            phantoms[found.phantom] = None
        if found.pending:
            pending[_job_folder(text, scheme_name, variables.jobs)] = None
    return Filled(filled, tuple(phantoms), tuple(pending))


def _job_folder(value: str, scheme_name: str, jobs: Mapping[str, JobRow]) -> str:
    """Return the folder, in the Schemes, of the job that a value names."""
    if scheme_name in value:
        return f"{scheme_name}{_own_job(value, scheme_name, jobs)}/"
    return _ROOT + value.split(_ROOT, 1)[1].rpartition("/")[0] + "/"
