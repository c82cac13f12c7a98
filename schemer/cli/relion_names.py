"""relion_schemer's own command line, so that scripts written for it work with `schemer`.

`schemer --scheme prep --set_var wait_sec --value 60` does what `schemer set` does. One action per
call, in RELION's order of precedence. Source: schemes.md section 8.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from schemer.cli import add, edit
from schemer.cli.common import USAGE, fail
from schemer.cli.run import run_scheme
from schemer.scheme import UNDEFINED

Given = Mapping[str, str]

_FLAGS = ("run", "abort", "reset", "strict", "json")
_VALUED = (
    *("scheme", "run_pipeline", "pipeline_control", "verb", "copy", "add"),
    *("set_var", "set_job_mode", "set_has_started", "set_current_node"),
    *("name", "value", "original_value", "type", "mode", "bool", "i", "i2", "o", "o2"),
    *("project", "executor"),
)


def main(argv: Sequence[str]) -> int:
    """Do what a relion_schemer command line asks for; return the exit code.

    Parameters
    ----------
    argv
        Words after the program's name. `--project`, `--executor`, `--strict` and `--json` of our
        own commands are understood too.
    """
    try:
        given = _parse(argv)
        action = next((name for name in _ACTIONS if name in given), None)
        if action is None:
            fail(USAGE, f"nothing to do; give one of {', '.join(f'--{one}' for one in _ACTIONS)}")
        return _ACTIONS[action](given) or 0
    except typer.Exit as end:
        return end.exit_code


def _parse(argv: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        name = word.removeprefix("--")
        if name == word or name not in {*_FLAGS, *_VALUED}:
            fail(USAGE, f"{word!r} is no option of relion_schemer; see `schemer --help` for ours")
        value = "" if name in _FLAGS else next(words, None)
        if value is None:
            fail(USAGE, f"{word} needs a value")
        given[name] = value
    if not given.get("scheme"):
        fail(USAGE, "say which Scheme with --scheme NAME")
    return given


def _need(given: Given, *names: str) -> list[Any]:
    """Return the values of options without which the action makes no sense."""
    missing = [f"--{name}" for name in names if name not in given]
    if missing:
        fail(USAGE, f"{', '.join(missing)} must be given too")
    return [given[name] for name in names]


def _at(given: Given) -> dict[str, Any]:
    """Return the arguments that all commands share."""
    return {
        "scheme": given["scheme"],
        "project": Path(given.get("project", ".")),
        "as_json": "json" in given,
    }


def _run(given: Given) -> int:
    return run_scheme(
        **_at(given),
        strict="strict" in given,
        executor=given.get("executor", "native"),
        quiet=given.get("verb") == "0",
    )


def _add(given: Given) -> None:
    kind = given["add"]
    if kind not in _ADD:
        fail(USAGE, f"--add {kind}: write one of {', '.join(_ADD)}")
    _ADD[kind](given)


def _add_operator(given: Given) -> None:
    inputs = {f"input{n}": given.get(key, UNDEFINED) for n, key in ((1, "i"), (2, "i2"))}
    output = given.get("o", UNDEFINED)
    add.operator(*_need(given, "name", "type"), **inputs, output=output, **_at(given))


def _add_job(given: Given) -> None:
    (folder,) = _need(given, "i")
    mode, name = given.get("mode", "continue"), given.get("name", "")
    add.job(Path(folder), mode=mode, name=name, **_at(given))


_ADD: dict[str, Callable[[Given], None]] = {
    "variable": lambda given: add.variable(
        *_need(given, "name", "value"), reset_value=given.get("original_value"), **_at(given)
    ),
    "operator": _add_operator,
    "job": _add_job,
    "edge": lambda given: add.edge(*_need(given, "i", "o"), **_at(given)),
    "fork": lambda given: add.fork(*_need(given, "i", "bool", "o", "o2"), **_at(given)),
}

# In order of precedence.
_ACTIONS: dict[str, Callable[[Given], int | None]] = {
    "run": _run,
    "abort": lambda given: edit.abort(**_at(given)),
    "copy": lambda given: edit.copy(given["copy"], **_at(given)),
    "add": _add,
    "reset": lambda given: edit.reset(**_at(given)),
    "set_var": lambda given: edit.set_value(
        *_need(given, "set_var", "value"), reset_value=given.get("original_value"), **_at(given)
    ),
    "set_job_mode": lambda given: edit.set_job_mode(
        *_need(given, "set_job_mode", "value"), **_at(given)
    ),
    "set_has_started": lambda given: edit.set_has_started(
        *_need(given, "set_has_started", "value"), **_at(given)
    ),
    "set_current_node": lambda given: edit.set_current_node(
        given["set_current_node"], **_at(given)
    ),
}
