"""Applying relion_it's options to a project: everything is checked before a file is written.

Keys are `SCHEME__JOB__OPTION` or `SCHEME__VARIABLE`; those without `__` steer relion_it itself.
Source: schemes.md section 17.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from schemer import edit, optionfile, settings, templates
from schemer.errors import SchemeError
from schemer.relionit_rules import DEFAULTS, WrongValue, calculated, coupled, doubts, switch
from schemer.settings import Definition

OPTIONS_FILE = "relion_it_options.py"
CONTROLS = ("do_prep", "do_proc", "do_auto_boxsize")


class Plan(Struct):
    """What applying the options would do.

    `options` are all of them; `done` those that reach a Scheme or relion_it itself; `unknown` are
    keys of the files that nothing here has, with what may have been meant; `calculated` are the
    keys that the rules set; `copied` are the Schemes that the project gets. Changed while it is
    made, by `plan` only.
    """

    options: dict[str, str]
    done: dict[str, str]
    unknown: dict[str, str]
    calculated: dict[str, str]
    warnings: list[str]
    copied: list[str]
    definitions: dict[str, Definition]


def plan(
    project: Path,
    files: list[Path],
    *,
    schemes: Path | None = None,
    rules: str | None = None,
    only_given: bool = False,
) -> Plan:
    """Read and check everything, write nothing.

    Parameters
    ----------
    project
        Project folder.
    files
        Option files; later ones win.
    schemes
        Folder with `prep` and `proc` to copy where the project lacks them; else that of
        RELION_SCRIPT_DIRECTORY, else our own.
    rules
        Calculate boxes and coupled fields, by one of `RULES`.
    only_given
        Leave out relion_it's defaults: what the files do not name stays as it is.

    Raises
    ------
    SchemeError
        A file cannot be read, or a value does not fit: names file, key, value, remedy.
    """
    options, sources = dict({} if only_given else DEFAULTS), {}
    for file in files:
        given = optionfile.read(file)
        options |= given
        sources |= dict.fromkeys(given, str(file))
    changes: dict[str, str] = {}
    try:
        if rules is not None:
            changes = calculated(options, rules)
            changes |= coupled(options | changes, {*sources, *changes})
            changes = {key: value for key, value in changes.items() if options.get(key) != value}
            options |= changes
        for key in CONTROLS:
            switch(options, key)
        warnings = list(doubts(options, lambda path: os.path.exists(project / path)))
    except WrongValue as error:
        raise SchemeError(f"{sources.get(error.key, 'relion_it')}: {error}") from None
    definitions, copied = _definitions(project, schemes, options)
    made = Plan(options, {}, {}, changes, warnings, copied, definitions)
    for key, value in options.items():
        _place(made, key, value, sources)
    return made


def _place(plan: Plan, key: str, value: str, sources: Mapping[str, str]) -> None:
    """Put one option where it belongs, in the plan."""
    owner = _owner(plan.definitions, key)
    if key in CONTROLS:
        plan.done[key] = value
    elif owner is not None:
        plan.done[key] = value
        try:
            plan.definitions[owner] = settings.set_key(plan.definitions[owner], key, value)
        except SchemeError as error:
            raise SchemeError(f"{sources.get(key, 'relion_it')}: key {key!r}: {error}") from None
    elif key in sources:  # a default that a Scheme lacks is nobody's mistake
        plan.unknown[key] = edit.suggestion(key, _known(plan.definitions))


def _definitions(
    project: Path, schemes: Path | None, options: Mapping[str, str]
) -> tuple[dict[str, Definition], list[str]]:
    """Return prep, proc and every other Scheme of the project that a key names; those to copy."""
    present = {path.parent.name for path in project.glob("Schemes/*/scheme.star")}
    named = {key.partition("__")[0] for key in options}
    copied = [name for name in templates.NAMES if name not in present]
    found = {name: _elsewhere(name, schemes) for name in copied}
    for name in sorted(present & {*named, *templates.NAMES}):
        found[name] = templates.read(project / "Schemes" / name)
    return found, copied


def _elsewhere(name: str, schemes: Path | None) -> Definition:
    if schemes is not None:
        return templates.read(schemes / name)
    scripts = os.environ.get("RELION_SCRIPT_DIRECTORY")
    folder = Path(scripts or ".") / "Schemes" / name
    if scripts and (folder / "scheme.star").exists():
        return templates.read(folder)
    return templates.shipped(name)


def _owner(definitions: Mapping[str, Definition], key: str) -> str | None:
    return next(
        (name for name, one in definitions.items() if settings.place(one, key) is not None), None
    )


def _known(definitions: Mapping[str, Definition]) -> list[str]:
    return [*CONTROLS, *(key for one in definitions.values() for key in settings.keys(one))]


def apply(project: Path, plan: Plan) -> None:
    """Write what was planned: the Schemes, then `relion_it_options.py` with every option.

    Raises
    ------
    SchemeError
        One of the Schemes runs; nothing was written.
    """
    folders = {name: project / "Schemes" / name for name in plan.definitions}
    for folder in folders.values():
        templates.need_stopped(folder)
    for name, definition in plan.definitions.items():
        templates.write(folders[name], definition)
    optionfile.write(project / OPTIONS_FILE, plan.options)


def record(project: Path, changes: Mapping[str, str]) -> None:
    """Note changes in `relion_it_options.py`, so that relion_it repeats them; if it is there."""
    path = project / OPTIONS_FILE
    if path.exists():
        optionfile.write(path, optionfile.read(path) | dict(changes))
