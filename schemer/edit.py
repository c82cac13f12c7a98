"""Changes of a Scheme, and of a job node's options, as pure functions.

Each returns the changed copy, or raises SchemeError that names the place, the value and a remedy.
`schemer.store.edit` makes them durable. Source: schemes.md sections 2, 8, 13 and 18.
"""

import math
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from msgspec import structs

from algorithms.formats import star
from schemer import check
from schemer.errors import SchemeError, at
from schemer.jobs import JobFile, Option
from schemer.scheme import (
    UNDEFINED,
    BoolVariable,
    Edge,
    FloatVariable,
    JobRow,
    Operator,
    Scheme,
    StringVariable,
    parse_bool,
)

FIELDS = ("floats", "bools", "strings")  # in the order in which RELION looks a name up
_KINDS = {"floats": FloatVariable, "bools": BoolVariable, "strings": StringVariable}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_WORDS = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}
_YES_NO = {"true": "Yes", "True": "Yes", "false": "No", "False": "No"}
# What a name may be, so that STAR files, `$$name` and folders can carry it.
_NAME = re.compile(r"[^\s\"'#_$/.-][^\s\"'$/]*")


class _Misfit(Exception):
    """A text that does not fit: the problem and the remedy, for a message that adds the place."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: what may have been meant."""
    near = get_close_matches(word, list(known), n=5, cutoff=0.6)
    return f"did you mean {', '.join(near)}?" if near else "no known key is like it"


def _float(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise _Misfit("is not a number", "write one such as 1.5")
    return float(text)


def _bool(text: str) -> bool:
    if text not in _WORDS:
        raise _Misfit("is not a truth value", "write True or False")
    return _WORDS[text]


def _string(text: str) -> str:
    try:
        star.dumps({"x": star.Table.of({"x": [text]})}).encode()
    except (star.StarError, UnicodeEncodeError):
        raise _Misfit(
            "holds a line end, both kinds of quotes or bytes that are no text, which STAR files "
            "cannot",
            "write it on one line with one kind of quotes",
        ) from None
    return text


_PARSE: dict[str, Callable[[str], Any]] = {"floats": _float, "bools": _bool, "strings": _string}


def _value(scheme: Scheme, field: str, name: str, text: str) -> Any:
    try:
        return _PARSE[field](text)
    except _Misfit as error:
        raise at(scheme.source, f"scheme_{field}", name, text, *error.args) from None


def truth(name: str, text: str) -> bool:
    """Return what one of RELION's six words for a truth value means; `name` is for the message."""
    try:
        return _bool(text)
    except _Misfit as error:
        raise SchemeError(f"{name}: value {text!r} {error.args[0]}; {error.args[1]}") from None


# Variables, current node, jobs


def set_variable(scheme: Scheme, name: str, value: str, reset: str | None = None) -> Scheme:
    """Give a variable another value, and another reset value if one is given.

    Booleans take true, True, 1, false, False and 0 only; floats take numbers only, where RELION
    takes anything that begins with one.
    """
    field = field_of(scheme, name)
    if field is None:
        known = (name for field in FIELDS for name in getattr(scheme, field))
        raise SchemeError(
            f"{scheme.source}: there is no variable {name!r}; {suggestion(name, known)}"
        )
    variables = getattr(scheme, field)
    new = _KINDS[field](
        _value(scheme, field, name, value),
        variables[name].reset if reset is None else _value(scheme, field, name, reset),
    )
    return structs.replace(scheme, **{field: variables | {name: new}})


def field_of(scheme: Scheme, name: str) -> str | None:
    """Return which of `FIELDS` holds a variable, None if there is none of that name."""
    return next((field for field in FIELDS if name in getattr(scheme, field)), None)


def set_current_node(scheme: Scheme, node: str) -> Scheme:
    """Go on from `node` at the next run; unlike RELION, it has to exist."""
    _need_node(scheme, node)
    return structs.replace(scheme, current_node=node)


def set_job_mode(scheme: Scheme, job: str, mode: str) -> Scheme:
    """Let a job make a new folder at each visit (`new`), or go on in the same (`continue`)."""
    return _with_row(scheme, job, mode=_mode(scheme, job, mode))


def set_has_started(scheme: Scheme, job: str, started: bool) -> Scheme:
    """Say whether a job has run; one that has not makes a new folder at its next visit."""
    return _with_row(scheme, job, has_started=started)


def reset(scheme: Scheme) -> Scheme:
    """Put variables to their reset values, forget which jobs ran, start at the first edge.

    Modes stay as they are, and RELION's useless rows in the job table go.
    """

    def again(variables: dict[str, Any]) -> dict[str, Any]:
        return {name: type(one)(one.reset, one.reset) for name, one in variables.items()}

    return structs.replace(
        scheme,
        current_node=scheme.start,
        floats=again(scheme.floats),
        bools=again(scheme.bools),
        strings=again(scheme.strings),
        jobs={name: JobRow(name, row.mode) for name, row in scheme.jobs.items()},
        phantoms={},
    )


def _with_row(scheme: Scheme, job: str, **fields: object) -> Scheme:
    if job not in scheme.jobs:
        raise SchemeError(f"{scheme.source}: there is no job {job!r}; {_there(scheme.jobs)}")
    row = structs.replace(scheme.jobs[job], **fields)
    return structs.replace(scheme, jobs=scheme.jobs | {job: row})


def _mode(scheme: Scheme, job: str, mode: str) -> str:
    if mode not in ("new", "continue"):
        raise at(scheme.source, "scheme_jobs", job, mode, "is no mode", "write new or continue")
    return mode


def _need_node(scheme: Scheme, node: str) -> None:
    nodes = {*scheme.operators, *scheme.jobs}
    if node not in nodes:
        raise SchemeError(f"{scheme.source}: there is no node {node!r}; {_there(nodes)}")


def _there(names: Iterable[str]) -> str:
    return f"there are {', '.join(sorted(names)) or 'none'}"


# Additions


def empty(name: str) -> Scheme:
    """Return a Scheme with nothing in it yet; `name` is the last part of its folder."""
    return Scheme(name=_path(name), source=f"Schemes/{name}/scheme.star")


def _path(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise SchemeError(f"{name!r} cannot be the name of a Scheme; use letters, digits and _")
    return f"Schemes/{name}/"


def add_variable(scheme: Scheme, name: str, value: str, reset: str | None = None) -> Scheme:
    """Add a variable, or set one that is there.

    A number makes a float, true, True, false and False a boolean, anything else a string (RELION
    makes a float of a text such as `3D.mrc`, which begins with a number).
    """
    if field_of(scheme, name) is not None:
        return set_variable(scheme, name, value, reset)
    _need_new(scheme, name)
    if _NUMBER.fullmatch(value):
        field = "floats"
    else:
        field = "bools" if value in _YES_NO else "strings"
    both = (
        _value(scheme, field, name, text) for text in (value, value if reset is None else reset)
    )
    grown = getattr(scheme, field) | {name: _KINDS[field](*both)}
    return structs.replace(scheme, **{field: grown})


def add_operator(
    scheme: Scheme,
    name: str,
    type: str,
    input1: str = UNDEFINED,
    input2: str = UNDEFINED,
    output: str = UNDEFINED,
) -> Scheme:
    """Add an operator node; its arguments are checked as when a Scheme is loaded."""
    _need_new(scheme, name)
    operator = Operator(type, output, input1, input2)
    # The loader checks what it can reach: a Scheme of this node alone.
    alone = structs.replace(
        scheme,
        current_node=name,
        operators={name: operator},
        jobs={},
        edges=(Edge(name, name),),
    )
    found = check.errors(alone)
    if found:
        raise found[0]
    return structs.replace(scheme, operators=scheme.operators | {name: operator})


def add_job(scheme: Scheme, name: str, mode: str) -> Scheme:
    """Add a job node that has not run; its job.star belongs into the folder of this name."""
    _need_new(scheme, name)
    row = JobRow(name, _mode(scheme, name, mode))
    return structs.replace(scheme, jobs=scheme.jobs | {name: row})


def add_edge(scheme: Scheme, source: str, target: str) -> Scheme:
    """Add an edge from one node to another; each node has one way out."""
    return _with_edge(scheme, Edge(source, target))


def add_fork(scheme: Scheme, source: str, boolean: str, if_true: str, if_false: str) -> Scheme:
    """Add a fork: to `if_true` where the boolean variable is true, else to `if_false`."""
    if boolean not in scheme.bools:
        raise SchemeError(
            f"{scheme.source}: there is no boolean variable {boolean!r}; {_there(scheme.bools)}"
        )
    return _with_edge(scheme, Edge(source, if_false, True, if_true, boolean))


def _with_edge(scheme: Scheme, edge: Edge) -> Scheme:
    for node in (edge.source, edge.target, *([edge.if_true] if edge.is_fork else [])):
        _need_node(scheme, node)
    if any(one.source == edge.source for one in scheme.edges):
        raise SchemeError(
            f"{scheme.source}: an edge leaves {edge.source!r} already; a node has one way out, "
            "so put an operator between or use a fork"
        )
    return structs.replace(scheme, edges=(*scheme.edges, edge))


def _need_new(scheme: Scheme, name: str) -> None:
    if name == UNDEFINED or not _NAME.fullmatch(name):
        raise SchemeError(
            f"{scheme.source}: {name!r} cannot be a name; use letters, digits and _, "
            "without blanks, and begin with a letter or digit"
        )
    used = (*scheme.floats, *scheme.bools, *scheme.strings, *scheme.operators, *scheme.jobs)
    if name in used:
        raise SchemeError(
            f"{scheme.source}: the name {name!r} is used already; RELION mixes up equal names"
        )


# Copies


def copy(scheme: Scheme, name: str) -> Scheme:
    """Return the Scheme under another name, its path in string variables changed with it.

    Parameters
    ----------
    scheme
        As it is; values, job table and current node are kept.
    name
        New name, the last part of the folder.
    """
    new = _path(name)
    strings = {
        key: StringVariable(
            one.value.replace(scheme.name, new), one.reset.replace(scheme.name, new)
        )
        for key, one in scheme.strings.items()
    }
    return structs.replace(scheme, name=new, strings=strings)


def copy_job(job: JobFile, old: str, new: str) -> JobFile:
    """Return a job's options with the Scheme path `old` (`Schemes/prep/`) changed to `new`."""
    options = {option: value.replace(old, new) for option, value in job.options.items()}
    return structs.replace(job, options=options)


# Job options


def set_job_option(job: JobFile, option: str, value: str, source: str = "job.star") -> JobFile:
    """Return a job file with one option set, and with all options of its type.

    Parameters
    ----------
    job
        As loaded; options that its type does not have are kept for other versions of RELION.
    option, value
        `True`, `true`, `False` and `false` become Yes and No, as RELION's `--editJob` does. A
        number may be left empty, as people do with those that their job does not use; a value
        with `$$variable` fits every kind.
    source
        Name of the file, for messages.
    """
    job_type = job.type
    if option not in job_type.options:
        raise SchemeError(
            f"{source}: {job_type.label} has no option {option!r}; "
            f"{suggestion(option, job_type.options)}"
        )
    text = option_text(f"{source}: option {option!r}", job_type.options[option], value)
    complete, _ = job_type.complete(job.options)
    return structs.replace(job, options={**job.options, **complete, option: text})


def option_text(where: str, option: Option, value: str) -> str:
    """Return an option's value as RELION writes it; `where` begins the message if it is wrong."""
    try:
        return _option_text(option, value)
    except _Misfit as error:
        raise SchemeError(f"{where}: value {value!r} {error.args[0]}; {error.args[1]}") from None


def _option_text(option: Option, value: str) -> str:
    text = _string(_YES_NO.get(value, value))
    if "$$" in text:
        return text
    if option.kind == "boolean":
        found = parse_bool(text)
        if found is None:
            raise _Misfit("is not a truth value", "write Yes or No")
        return "Yes" if found else "No"
    if option.kind == "radio" and text not in option.choices:
        raise _Misfit("is none of the choices", f"write one of {', '.join(option.choices)}")
    if option.kind == "slider" and text:
        _float(text)
    return text
