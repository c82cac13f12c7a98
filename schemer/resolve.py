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
    """A text with its Scheme path replaced; `pending` if it names a job that has not run yet."""

    text: str
    pending: bool = False


class Variables(Protocol):
    """Present values of a Scheme's variables, and its job table: the machine's `State`."""

    floats: dict[str, float]
    bools: dict[str, bool]
    strings: dict[str, str]
    jobs: dict[str, JobRow]


def resolve(value: str, scheme_name: str, jobs: Mapping[str, JobRow], world: World) -> Resolved:
    """Return `value` with the prefix `Schemes/<scheme>/<job>/` replaced by the job's real folder.

    A reference to a job that has not run yet is returned unchanged and marked pending: it counts
    as a file that does not exist (RELION forms a name without slash that normally does not).

    Parameters
    ----------
    value
        A string variable's value or a job option's value.
    scheme_name
        The Scheme in which the value is used, `Schemes/prep/`.
    jobs
        That Scheme's own job table.
    world
        Asked for the job table of another Scheme; SchemeError if that Scheme does not exist.
    """
    if scheme_name in value:
        return _resolve_own(value, scheme_name, jobs)
    if _ROOT in value:
        return _resolve_other(value, world)
    return Resolved(value)


def _job_in(path: str) -> str:
    """Return the text up to the last slash of what follows a Scheme's name: the job."""
    return path.rpartition("/")[0]


def _resolve_own(value: str, scheme_name: str, jobs: Mapping[str, JobRow]) -> Resolved:
    rest = value.split(scheme_name, 1)[1]
    job = _job_in(rest)
    if value.count(scheme_name) > 1 and job not in jobs:
        job = rest.partition("/")[0]  # several paths of one job in one value
    if not job:
        return Resolved(value)  # a file of the Scheme folder itself
    prefix = f"{scheme_name}{job}/"
    row = jobs.get(job)
    if row is None:
        return Resolved(value.replace(prefix, ""))  # as RELION, less its phantom job row
    if not row.current_name.endswith("/"):
        return Resolved(value, pending=True)
    return Resolved(value.replace(prefix, row.current_name))


def _resolve_other(value: str, world: World) -> Resolved:
    other, slash, rest = value.split(_ROOT, 1)[1].partition("/")
    if not slash or not other:
        return Resolved(value)
    table = world.job_table(other)
    if table is None:
        raise SchemeError(
            f"{value!r} names the Scheme {other!r}, but {_ROOT}{other}/scheme.star does not exist; "
            "install that Scheme or correct the path"
        )
    job = _job_in(rest)
    if not job:
        return Resolved(value)
    current = table.get(job, _UNKNOWN_JOB)
    if current == job:
        return Resolved(value, pending=True)
    folder = current if current.endswith("/") else current + "/"
    return Resolved(value.replace(f"{_ROOT}{other}/{job}/", folder))


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
        numbers fit none of them, texts fit neither booleans nor sliders.
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
) -> dict[str, str]:
    """Return a job node's options ready to run: variables substituted, then paths resolved.

    Parameters
    ----------
    options
        As in the Scheme's `job.star`, re-read at every visit.
    kinds
        Kind of each option (`schemer.jobs`); an option without one is taken as free text.
    scheme_name, variables, world
        As for `resolve` and `substitute`; `variables` is the machine's state.
    """
    filled = {}
    for option, value in options.items():
        text = substitute(value, option, kinds.get(option, "any"), variables)
        filled[option] = resolve(text, scheme_name, variables.jobs, world).text
    return filled
